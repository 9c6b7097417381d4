"""Runs compiled programs on device arrays: the pages, the token memory, the slots' settings.

Knows slots and positions, nothing of requests. Used by one thread at a time.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from serving.buckets import Buckets, round_up
from serving.compilation import Compiler, keep_programs_in
from serving.config import EngineConfig
from serving.draft_probe import are_drafts_exact, measure_steps
from serving.invariance import ProbeResult, kept_shapes, probe_positions
from serving.language_model import LanguageModel
from serving.ngram_filter import NgramFilter
from serving.page_tables import PageTables
from serving.program_set import ProgramSet
from serving.programs import DECODE_FIELDS, DecodeRow
from serving.request import SamplingParams
from serving.sampler import Logprobs, Sampled
from serving.sampling_state import SettingsTable, TokenMemory, is_adjusted, memory_row
from serving.step_times import StepTimes

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class HostLogprobs:
    """`serving.sampler.Logprobs` on the host: float32[R], int32[R, K], float32[R, K]."""

    chosen: NDArray[np.float32]
    top_ids: NDArray[np.int32]
    top: NDArray[np.float32]

    @classmethod
    def read(cls, logprobs: Logprobs) -> HostLogprobs:
        """Wait for the device and copy."""
        return cls(
            np.asarray(logprobs.chosen), np.asarray(logprobs.top_ids), np.asarray(logprobs.top)
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A decode step that was launched.

    Attributes:
        sampled: What it samples.
        logits: float32[B, V] of the model.
        batch: int32[4, B], as `serving.programs.decode` got it.
    """

    sampled: Sampled
    logits: jax.Array
    batch: NDArray[np.int32]

    @property
    def rows(self) -> int:
        """B, rows of padding included."""
        return int(self.batch.shape[1])


# What a probe of the warm-up samples with: every part of the sampler that a row can ask for.
_PROBE = SamplingParams(
    temperature=0.8, top_k=40, top_p=0.95, min_p=0.001, logit_bias={0: 1.0}, seed=1, logprobs=20
)


class Runner:
    """The device's side of an engine."""

    def __init__(self, model: LanguageModel, config: EngineConfig) -> None:
        """Nothing is allocated or compiled before `make_ready`.

        Raises:
            ConfigError: The settings do not fit the model.
        """
        self.model = model
        self.max_model_len = config.context_tokens(model.max_seq_len)
        self._chips = model.page_chips
        self.buckets = Buckets.of(config, self.max_model_len, self._chips)
        self.compilations = 0
        self.is_batch_invariant = False
        self.is_chunk_invariant = False
        self.step_times: StepTimes | None = None
        """What decode steps take; None where drafts could change tokens, or are not wanted."""
        self._pages_a_chip = config.num_pages(self.max_model_len, self._chips)
        self.num_pages = self._chips * self._pages_a_chip
        self._config = config
        self._scratch_slot = config.max_slots
        self._whole = None if model.sharding is None else model.sharding.whole
        self._settings = SettingsTable(config.max_slots + 1, self._whole)
        # What constrained slots sample with; in the other table they are neutral.
        self._constrained = SettingsTable(config.max_slots + 1, self._whole)
        self._programs: ProgramSet
        self._ngrams: NgramFilter | None = None
        self._cache: Any
        self._memory: TokenMemory
        self._newest: Any
        self._decode_shapes: list[tuple[int, int]] = []
        pages = self.buckets.cache_tokens // config.page_size
        self._pages = PageTables(config.max_slots + 1, pages, self._chips)

    @property
    def ngram(self) -> int | None:
        """Tokens of the n-grams that requests can avoid; None if there are none."""
        return None if self._ngrams is None else self._ngrams.ngram

    def forbid(self, ngrams: NgramFilter) -> None:
        """Have programs that can avoid n-grams; before `make_ready`."""
        self._ngrams = jax.device_put(ngrams, self._whole)

    def make_ready(self) -> None:
        """Compile every program, allocate the cache, run each program once."""
        if self._config.cache_dir is not None:
            keep_programs_in(self._config.cache_dir)
        slots = self._config.max_slots + 1
        compiler = Compiler()
        try:
            self._programs = ProgramSet.compile(
                self.model,
                self.buckets,
                slots=slots,
                num_pages=self.num_pages,
                dtype=self._config.cache_dtype,
                ngrams=self._ngrams,
                compiler=compiler,
            )
        finally:
            compiler.close()
            self.compilations = compiler.compiled
        self._cache = self.model.init_cache(
            self.num_pages, self.buckets.page_size, self._config.cache_dtype
        )
        self._newest = jax.device_put(jnp.zeros(slots, jnp.int32), self._whole)
        memory = TokenMemory.empty(slots, self.model.vocab_size, self.ngram)
        self._memory = jax.device_put(memory, self._whole)
        self._warm_up()

    def release(self) -> None:
        """Give the cache and the programs back; a runner that was ready is of no use afterwards."""
        del self._programs, self._cache, self._memory, self._newest

    def open_slot(
        self,
        slot: int,
        params: SamplingParams,
        *,
        seed: int,
        prompt: tuple[int, ...],
        generated: Sequence[int] = (),
        stops: frozenset[int],
        is_constrained: bool = False,
        avoids_ngrams: bool = False,
    ) -> None:
        """Set a slot up for a request; `stops` are the tokens that `min_tokens` forbids.

        Of a constrained slot it is `constrain` that gives the tokens; what `decode` samples for it
        is meaningless.
        """
        table = self._constrained if is_constrained else self._settings
        table.fill(slot, params, seed, avoids_ngrams=avoids_ngrams)
        if is_adjusted(params) or avoids_ngrams:
            row = memory_row(params, prompt, generated, stops, self.model.vocab_size, self.ngram)
            self._memory = self._programs.remember(self._memory, np.int32(slot), row)

    def place_page(self, slot: int, index: int, page: int) -> None:
        """Enter a page in a slot's table."""
        self._pages.place(slot, index, page)

    def close_slot(self, slot: int) -> None:
        """Let a slot hold no page and ask nothing of the steps to come."""
        self._settings.clear(slot)
        self._constrained.clear(slot)
        self._pages.clear(slot)

    def prefill(
        self, slot: int, start: int, tokens: Sequence[int], targets: Sequence[int] | None
    ) -> Logprobs:
        """Take prompt tokens into a slot from position `start` on; does not wait for the device.

        Args:
            slot: The slot.
            start: Position of the first token, a multiple of the page size.
            tokens: At most the largest chunk.
            targets: As long as `tokens`: after each of them, the token whose logprob is wanted;
                None if no logprobs are.

        Returns:
            Logprobs of `targets`; rows beyond them are padding.
        """
        length = len(tokens)
        chunk = round_up(length, self.buckets.chunks)
        keys = round_up(max(start + length, chunk), self.buckets.chunk_keys)
        return self._launch_prefill((chunk, keys), slot, start, tokens, targets)

    @staticmethod
    def wait(logprobs: Logprobs) -> None:
        """Wait until the program that gives `logprobs` has run."""
        logprobs.chosen.block_until_ready()

    def decode(self, rows: Sequence[DecodeRow]) -> Decoded:
        """Feed every row's token and sample its next; does not wait for the device.

        Returns:
            What is sampled, a row for each of `rows` and more of padding.
        """
        needed = self._pages.rows_needed([row.slot for row in rows])
        return self._launch(self._shape_for(needed, 1 + max(row.position for row in rows)), rows)

    def _sampled(self, rows: Sequence[DecodeRow]) -> Sampled:
        return self.decode(rows).sampled

    def constrain(
        self, decoded: Decoded, masks: NDArray[np.int32], is_constrained: NDArray[np.bool_]
    ) -> Sampled:
        """Choose again for some rows of the newest step; does not wait for the device.

        Args:
            decoded: That step.
            masks: int32[B, ceil(V / 32)], the tokens allowed; not to be changed afterwards.
            is_constrained: bool[B], the rows to choose for; likewise.
        """
        sampled: Sampled
        sampled, self._memory, self._newest = self._programs.constrain[decoded.rows](
            decoded.sampled,
            decoded.logits,
            self._memory,
            self._newest,
            self._constrained.on_device(),
            decoded.batch,
            masks,
            is_constrained,
            self._ngrams,
        )
        return sampled

    def avoid(self, decoded: Decoded, sampled: Sampled) -> Sampled:
        """Choose again where the newest step ended a forbidden n-gram; does not wait.

        Args:
            decoded: That step.
            sampled: What it gave, or `constrain` made of it.
        """
        again: Sampled
        again, self._memory, self._newest = self._programs.avoid[decoded.rows](
            sampled,
            decoded.logits,
            self._memory,
            self._newest,
            self._settings.on_device(),
            decoded.batch,
            self._ngrams,
        )
        return again

    def _launch_prefill(
        self,
        shape: tuple[int, int],
        slot: int,
        start: int,
        tokens: Sequence[int],
        targets: Sequence[int] | None,
    ) -> Logprobs:
        chunk, keys = shape
        padded = np.zeros((2, chunk), np.int32)
        padded[0, : len(tokens)] = tokens
        if targets is not None:
            padded[1, : len(tokens)] = targets
        logprobs: Logprobs
        logprobs, self._cache = self._programs.prefill[shape](
            self.model.params,
            self._cache,
            padded[0],
            padded[1],
            np.int32(start),
            # A copy: the device may read the host's own memory, later.
            self._pages.for_prefill(slot, keys // self.buckets.page_size),
            np.bool_(targets is not None),
        )
        return logprobs

    def _launch(self, shape: tuple[int, int], rows: Sequence[DecodeRow]) -> Decoded:
        batch = np.zeros((len(DECODE_FIELDS), shape[0]), np.int32)
        batch[1] = self._scratch_slot
        batch[:, : len(rows)] = [
            [row.token for row in rows],
            [row.slot for row in rows],
            [row.position for row in rows],
            [row.generated for row in rows],
        ]
        slots = [row.slot for row in rows]
        pages = self._pages.for_decode(slots, shape[0], shape[1] // self.buckets.page_size)
        sampled, logits, self._cache, self._memory, self._newest = self._programs.decode[shape](
            self.model.params,
            self._cache,
            self._memory,
            self._newest,
            self._settings.on_device(),
            batch,
            pages,
        )
        return Decoded(sampled=sampled, logits=logits, batch=batch)

    def _shape_for(self, rows: int, keys: int) -> tuple[int, int]:
        for shape in self._decode_shapes:
            if shape[0] >= rows and shape[1] >= keys:
                return shape
        raise ValueError(f"no compiled step holds {rows} rows and {keys} keys")

    def _warm_up(self) -> None:
        """Run every program, and find out which of them give the same bits."""
        # A slot on each chip that has pages of its own: they must all give the same.
        slots = range(self._chips)
        for slot in slots:
            for index in range(self._pages.pages_a_slot):
                self.place_page(slot, index, min(index + 1, self._pages_a_chip - 1))
        token_ids = self._probe_prompt()
        self.is_chunk_invariant = self._probe_chunks(token_ids)
        for slot in slots:
            for start in range(0, len(token_ids), self.buckets.largest_chunk):
                chunk = token_ids[start : start + self.buckets.largest_chunk]
                self.prefill(slot, start, chunk, chunk)
            self.open_slot(slot, _PROBE, seed=1, prompt=(0,), stops=frozenset())
        positions = probe_positions(self.buckets.decode_keys, self.max_model_len)
        results = {
            shape: [
                self._probe(shape, token_ids[position], position)
                for position in positions
                if position < shape[1]
            ]
            for shape in self._programs.decode
        }
        self._decode_shapes, self.is_batch_invariant = kept_shapes(results)
        self.is_batch_invariant &= self._probe_constrained(token_ids[positions[0]], results)
        # Drafts are rows of one slot, and a chip with pages of its own has no rows to spare.
        if self._config.speculate == "auto" and self.is_batch_invariant and self._chips == 1:
            self._probe_drafts(token_ids)
        for slot in slots:
            self.close_slot(slot)
        dropped = len(results) - len(self._decode_shapes)
        if dropped:
            logger.warning(
                "%d of %d decode shapes round differently: not used", dropped, len(results)
            )
        if not self.is_batch_invariant:
            logger.error("rows of one decode step differ: tokens may depend on the batch")
        if not self.is_chunk_invariant:
            logger.warning("prompt chunks round differently: prefixes are shared in whole chunks")

    def _probe_chunks(self, token_ids: list[int]) -> bool:
        """Whether a token's keys and values are the same bits however it is taken in."""
        longest = self.buckets.largest_chunk
        prompt = token_ids[:longest]
        self.prefill(0, 0, prompt, prompt)
        expected = self._cached_bits(len(prompt))
        is_same = True
        for chunk, keys in self._programs.prefill:
            for start in range(0, len(prompt), chunk):
                part = prompt[start : start + chunk]
                if start + len(part) <= keys:
                    self._launch_prefill((chunk, keys), 0, start, part, part)
            known = min(keys, len(prompt))
            is_same &= self._cached_bits(known) == expected[:known]
        for position in range(min(len(prompt), self.buckets.page_size)):
            row = DecodeRow(prompt[position], 0, position, 0)
            self._launch((self.buckets.batches[0], self.buckets.decode_keys[0]), [row])
        return is_same and self._cached_bits(len(prompt)) == expected

    def _cached_bits(self, tokens: int) -> list[bytes]:
        """For each of the first tokens of slot 0, the bits of all that the cache holds of it."""
        # Slot 0 is on the first chip, whose pages are the first of all.
        pages = self._pages.of_slot(0, -(-tokens // self.buckets.page_size))
        held = [
            np.concatenate([np.asarray(array[int(page)]) for page in pages])
            for array in jax.tree.leaves(self._cache)
        ]
        return [b"".join(part[token].tobytes() for part in held) for token in range(tokens)]

    def _probe_prompt(self) -> list[int]:
        # Beyond the first page by a step of drafts, however few sizes there are.
        drafted = self.buckets.page_size + self.buckets.batches[-1]
        last = max(
            probe_positions(self.buckets.decode_keys, self.max_model_len)[-1],
            min(drafted, self.max_model_len - 1),
        )
        generator = np.random.default_rng(0)
        return [int(token) for token in generator.integers(0, self.model.vocab_size, last + 1)]

    def _probe(self, shape: tuple[int, int], token: int, position: int) -> ProbeResult:
        """One decode step in which all rows are the same."""
        sampled = self._launch(shape, self._probe_rows(shape[0], token, position)).sampled
        return _probe_result(position, sampled)

    def _probe_rows(self, rows: int, token: int, position: int) -> list[DecodeRow]:
        """Rows that are the same, on every chip that has pages of its own."""
        return [
            DecodeRow(token=token, slot=index % self._chips, position=position, generated=0)
            for index in range(rows)
        ]

    def _probe_constrained(
        self, token: int, results: Mapping[tuple[int, int], Sequence[ProbeResult]]
    ) -> bool:
        """Whether rows that may choose any token choose as `decode` does, in every batch size."""
        reference = results[self._decode_shapes[-1]][0]
        for slot in range(self._chips):
            self._settings.clear(slot)
            self.open_slot(
                slot, _PROBE, seed=1, prompt=(0,), stops=frozenset(), is_constrained=True
            )
        is_same = True
        for rows in self._programs.constrain:
            shape = (rows, self.buckets.decode_keys[0])
            decoded = self._launch(shape, self._probe_rows(rows, token, reference.position))
            words = -(-self.model.vocab_size // 32)
            again = self.constrain(
                decoded, np.full((rows, words), -1, np.int32), np.ones(rows, np.bool_)
            )
            found = _probe_result(reference.position, again).rows
            is_same &= shape not in self._decode_shapes or found == (reference.rows[0],) * rows
        self._constrained.clear(0)
        return is_same

    def _probe_drafts(self, token_ids: list[int]) -> None:
        """Find out what steps with drafts take, if such steps give the same tokens."""
        self.open_slot(0, _PROBE, seed=1, prompt=(0,), stops=frozenset())
        if are_drafts_exact(self._sampled, token_ids, self.buckets):
            self.open_slot(0, SamplingParams(), seed=1, prompt=(0,), stops=frozenset())
            self.step_times = measure_steps(self._sampled, self.buckets)


def _probe_result(position: int, sampled: Sampled) -> ProbeResult:
    tokens = np.asarray(sampled.tokens).tolist()
    logprobs = np.asarray(sampled.logprobs.top)
    rows = tuple((token, bits.tobytes()) for token, bits in zip(tokens, logprobs, strict=True))
    return ProbeResult(position=position, rows=rows)
