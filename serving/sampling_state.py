"""What the sampler knows of each slot: small settings from the host, token memory on the device.

Arrays have a row for each slot and one more, the scratch slot, whose settings are always neutral;
rows that pad a decode step belong to it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from serving.ngram_filter import newest_tokens
from serving.request import SamplingParams

# Below this a temperature divides logits into values that float32 cannot tell apart from greedy.
_GREEDY_BELOW = 1e-5


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How each row (a slot, or a row of a decode step) samples; R rows.

    Attributes:
        temperature: float32[R]; 0 is greedy.
        top_k: int32[R]; 0 is off.
        top_p: float32[R]; 1 is off.
        min_p: float32[R]; 0 is off.
        presence_penalty: float32[R].
        frequency_penalty: float32[R].
        repetition_penalty: float32[R]; 1 is off.
        min_tokens: int32[R].
        seed: uint32[R, 2], high and low word.
        is_adjusted: bool[R]; whether penalties, bias or min_tokens change the row's logits.
        wants_logprobs: bool[R].
        avoids_ngrams: bool[R]; whether the row must not end a forbidden n-gram.
    """

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array
    min_p: jax.Array
    presence_penalty: jax.Array
    frequency_penalty: jax.Array
    repetition_penalty: jax.Array
    min_tokens: jax.Array
    seed: jax.Array
    is_adjusted: jax.Array
    wants_logprobs: jax.Array
    avoids_ngrams: jax.Array

    def rows(self, slots: jax.Array) -> SamplingSettings:
        """The settings of int32[B] slots, one row for each."""
        taken: SamplingSettings = jax.tree.map(lambda column: column[slots], self)
        return taken


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenMemory:
    """What each slot has seen and may not or should rather say.

    `recent` is read of rows that avoid n-grams, the other fields of adjusted rows.

    Attributes:
        counts: int32[slots, V]; how often a token was generated.
        in_prompt: bool[slots, V].
        bias: float32[slots, V].
        stops: bool[slots, V]; the tokens that `min_tokens` forbids.
        recent: int32[slots, n]; the newest tokens of prompt and generation, the newest last, -1
            before the first; None where no n-grams are forbidden.
    """

    counts: jax.Array
    in_prompt: jax.Array
    bias: jax.Array
    stops: jax.Array
    recent: jax.Array | None = None

    @classmethod
    def empty(cls, slots: int, vocab_size: int, ngram: int | None = None) -> TokenMemory:
        """Nothing seen yet; `ngram` is the length of n-grams that are forbidden, if any are."""
        shape = (slots, vocab_size)
        return cls(
            counts=jnp.zeros(shape, jnp.int32),
            in_prompt=jnp.zeros(shape, jnp.bool_),
            bias=jnp.zeros(shape, jnp.float32),
            stops=jnp.zeros(shape, jnp.bool_),
            recent=None if ngram is None else jnp.full((slots, ngram), -1, jnp.int32),
        )

    def with_row(self, slot: jax.Array, row: TokenMemory) -> TokenMemory:
        """This memory with the row of int32[] `slot` replaced by `row`, whose fields are [V]."""
        replaced: TokenMemory = jax.tree.map(
            lambda whole, new: jax.lax.dynamic_update_index_in_dim(whole, new, slot, 0), self, row
        )
        return replaced

    def with_tokens(self, slots: jax.Array, tokens: jax.Array) -> TokenMemory:
        """This memory when int32[R] `slots` have generated int32[R] `tokens`."""
        recent = self.recent
        if recent is not None:
            newest = jnp.concatenate([recent[slots, 1:], tokens[:, None]], axis=1)
            recent = recent.at[slots].set(newest)
        counts = self.counts.at[slots, tokens].add(1)
        return dataclasses.replace(self, counts=counts, recent=recent)

    def without_tokens(self, slots: jax.Array, tokens: jax.Array) -> TokenMemory:
        """What `with_tokens` was called on; the oldest of `recent` apart, which nothing reads."""
        recent = self.recent
        if recent is not None:
            recent = recent.at[slots].set(jnp.roll(recent[slots], 1, axis=1))
        counts = self.counts.at[slots, tokens].add(-1)
        return dataclasses.replace(self, counts=counts, recent=recent)

    def with_other_token(self, slot: jax.Array, token: jax.Array, other: jax.Array) -> TokenMemory:
        """This memory when int32[] `slot` has generated `other`, and not `token`, as its newest."""
        recent = self.recent
        if recent is not None:
            recent = recent.at[slot, -1].set(other)
        counts = self.counts.at[slot, token].add(-1).at[slot, other].add(1)
        return dataclasses.replace(self, counts=counts, recent=recent)


def is_adjusted(params: SamplingParams) -> bool:
    """Whether a request's logits are changed before sampling, so that it needs token memory."""
    return bool(
        params.logit_bias
        or params.min_tokens
        or params.presence_penalty
        or params.frequency_penalty
        or params.repetition_penalty != 1
    )


def memory_row(
    params: SamplingParams,
    prompt: Sequence[int],
    generated: Sequence[int],
    stops: frozenset[int],
    vocab_size: int,
    ngram: int | None = None,
) -> TokenMemory:
    """The token memory, a row of each field, of a request that has generated so much at its start.

    `ngram` is that of `TokenMemory.empty`.
    """
    counts = np.bincount(np.asarray(generated, np.int64), minlength=vocab_size).astype(np.int32)
    in_prompt = np.zeros(vocab_size, np.bool_)
    in_prompt[np.asarray(prompt, np.int64)] = True
    bias = np.zeros(vocab_size, np.float32)
    for token_id, value in params.logit_bias.items():
        bias[token_id] = value
    forbidden = np.zeros(vocab_size, np.bool_)
    forbidden[np.asarray(sorted(stops), np.int64)] = True
    return TokenMemory(
        counts=jax.device_put(counts),
        in_prompt=jax.device_put(in_prompt),
        bias=jax.device_put(bias),
        stops=jax.device_put(forbidden),
        recent=(
            None if ngram is None else jax.device_put(newest_tokens([*prompt, *generated], ngram))
        ),
    )


class SettingsTable:
    """The host's copy of every slot's settings, sent to the device when it has changed."""

    def __init__(self, slots: int, whole: jax.sharding.Sharding | None = None) -> None:
        """All slots neutral: greedy, nothing asked for.

        `whole` names the devices that get the table, all of it each; None is the default device.
        """
        self._whole = whole
        self._columns: dict[str, NDArray[np.generic]] = {
            "temperature": np.zeros(slots, np.float32),
            "top_k": np.zeros(slots, np.int32),
            "top_p": np.ones(slots, np.float32),
            "min_p": np.zeros(slots, np.float32),
            "presence_penalty": np.zeros(slots, np.float32),
            "frequency_penalty": np.zeros(slots, np.float32),
            "repetition_penalty": np.ones(slots, np.float32),
            "min_tokens": np.zeros(slots, np.int32),
            "seed": np.zeros((slots, 2), np.uint32),
            "is_adjusted": np.zeros(slots, np.bool_),
            "wants_logprobs": np.zeros(slots, np.bool_),
            "avoids_ngrams": np.zeros(slots, np.bool_),
        }
        self._neutral = {name: column[0].copy() for name, column in self._columns.items()}
        self._sent: SamplingSettings | None = None

    def fill(
        self, slot: int, params: SamplingParams, seed: int, *, avoids_ngrams: bool = False
    ) -> None:
        """Give a slot to a request; `seed` counts modulo 2**64."""
        for name, column in self._columns.items():
            column[slot] = getattr(params, name, 0) if name != "seed" else 0
        columns = self._columns
        if params.temperature < _GREEDY_BELOW:
            columns["temperature"][slot] = 0.0
        columns["top_k"][slot] = min(params.top_k, 2**31 - 1)
        columns["seed"][slot] = ((seed >> 32) & 0xFFFFFFFF, seed & 0xFFFFFFFF)
        columns["is_adjusted"][slot] = is_adjusted(params)
        columns["wants_logprobs"][slot] = params.logprobs is not None
        columns["avoids_ngrams"][slot] = avoids_ngrams
        self._sent = None

    def clear(self, slot: int) -> None:
        """Make a slot neutral again, so that it asks nothing of the steps to come."""
        for name, column in self._columns.items():
            column[slot] = self._neutral[name]
        self._sent = None

    def on_device(self) -> SamplingSettings:
        """The table as device arrays [slots, ...]."""
        if self._sent is None:
            # Copies: on a CPU, device_put may keep using the host's own buffer.
            self._sent = SamplingSettings(
                **{
                    name: jax.device_put(column.copy(), self._whole)
                    for name, column in self._columns.items()
                }
            )
        return self._sent
