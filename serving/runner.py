"""Runs compiled programs on device arrays: the pages, the token memory, the slots' settings.

Knows slots and positions, nothing of requests. Used by one thread at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from serving.buckets import Buckets, round_up
from serving.compilation import Compiler, keep_programs_in
from serving.config import EngineConfig
from serving.language_model import LanguageModel
from serving.ngram_filter import NgramFilter
from serving.page_tables import PageTables
from serving.program_set import ProgramSet
from serving.programs import DECODE_FIELDS, DecodeRow
from serving.request import SamplingParams
from serving.sampler import Logprobs, Sampled
from serving.sampling_state import SettingsTable, TokenMemory, is_adjusted, memory_row
from serving.step_times import StepTimes
from serving.warm_up import Invariance, find_invariance, measure_drafts


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


class Runner:
    """The device's side of an engine."""

    def __init__(self, model: LanguageModel, config: EngineConfig) -> None:
        """Nothing is allocated or compiled before `make_ready`.

        Raises:
            ConfigError: The settings do not fit the model.
        """
        self.model = model
        self.max_model_len = config.context_tokens(model.max_seq_len)
        self.chips = model.page_chips
        self.buckets = Buckets.of(config, self.max_model_len, self.chips)
        self.compilations = 0
        self.is_batch_invariant = False
        self.is_chunk_invariant = False
        self.decode_shapes: list[tuple[int, int]] = []
        """Of the compiled (rows, cache positions read) those in use, cheapest first."""
        self.step_times: StepTimes | None = None
        """What decode steps take; None where drafts could change tokens, or are not wanted."""
        self.pages_a_chip = config.num_pages(self.max_model_len, self.chips)
        self.num_pages = self.chips * self.pages_a_chip
        self._config = config
        self._scratch_slot = config.max_slots
        self._whole = None if model.sharding is None else model.sharding.whole
        self._settings = SettingsTable(config.max_slots + 1, self._whole)
        # What constrained slots sample with; in the other table they are neutral.
        self._constrained = SettingsTable(config.max_slots + 1, self._whole)
        self.programs: ProgramSet
        self._ngrams: NgramFilter | None = None
        self._cache: Any
        self._memory: TokenMemory
        self._newest: Any
        pages = self.buckets.cache_tokens // config.page_size
        self._pages = PageTables(config.max_slots + 1, pages, self.chips)

    @property
    def pages_a_slot(self) -> int:
        """Entries of a slot's page table."""
        return self._pages.pages_a_slot

    @property
    def shares_cores(self) -> bool:
        """Whether programs run on the host's own cores."""
        return jax.default_backend() == "cpu"

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
            self.programs = ProgramSet.compile(
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
        self._use(find_invariance(self))
        # Drafts are rows of one slot, and a chip with pages of its own has no rows to spare.
        if self._config.speculate == "auto" and self.is_batch_invariant and self.chips == 1:
            self.step_times = measure_drafts(self)
        for slot in range(self.chips):
            self.close_slot(slot)

    def release(self) -> None:
        """Give the cache and the programs back; a runner that was ready is of no use afterwards."""
        del self.programs, self._cache, self._memory, self._newest

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
            self._memory = self.programs.remember(self._memory, np.int32(slot), row)

    def place_page(self, slot: int, index: int, page: int) -> None:
        """Enter a page in a slot's table."""
        self._pages.place(slot, index, page)

    def close_slot(self, slot: int) -> None:
        """Let a slot hold no page and ask nothing of the steps to come."""
        self.quiet_slot(slot)
        self._pages.clear(slot)

    def quiet_slot(self, slot: int) -> None:
        """Let a slot ask nothing of the steps to come; it keeps its pages."""
        self._settings.clear(slot)
        self._constrained.clear(slot)

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
        return self.prefill_by((chunk, keys), slot, start, tokens, targets)

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
        return self.decode_by(self._shape_for(needed, 1 + max(row.position for row in rows)), rows)

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
        sampled, self._memory, self._newest = self.programs.constrain[decoded.rows](
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
        again, self._memory, self._newest = self.programs.avoid[decoded.rows](
            sampled,
            decoded.logits,
            self._memory,
            self._newest,
            self._settings.on_device(),
            decoded.batch,
            self._ngrams,
        )
        return again

    def prefill_by(
        self,
        shape: tuple[int, int],
        slot: int,
        start: int,
        tokens: Sequence[int],
        targets: Sequence[int] | None,
    ) -> Logprobs:
        """`prefill` by the program of a (chunk length, cache positions read)."""
        chunk, keys = shape
        padded = np.zeros((2, chunk), np.int32)
        padded[0, : len(tokens)] = tokens
        if targets is not None:
            padded[1, : len(tokens)] = targets
        logprobs: Logprobs
        logprobs, self._cache = self.programs.prefill[shape](
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

    def decode_by(self, shape: tuple[int, int], rows: Sequence[DecodeRow]) -> Decoded:
        """`decode` by the program of a (rows, cache positions read)."""
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
        sampled, logits, self._cache, self._memory, self._newest = self.programs.decode[shape](
            self.model.params,
            self._cache,
            self._memory,
            self._newest,
            self._settings.on_device(),
            batch,
            pages,
        )
        return Decoded(sampled=sampled, logits=logits, batch=batch)

    def cached_bits(self, tokens: int) -> list[bytes]:
        """For each of the first tokens of slot 0, the bits of all that the cache holds of it."""
        # Slot 0 is on the first chip, whose pages are the first of all.
        pages = self._pages.of_slot(0, -(-tokens // self.buckets.page_size))
        held = [
            np.concatenate([np.asarray(array[int(page)]) for page in pages])
            for array in jax.tree.leaves(self._cache)
        ]
        return [b"".join(part[token].tobytes() for part in held) for token in range(tokens)]

    def _use(self, found: Invariance) -> None:
        self.decode_shapes = found.decode_shapes
        self.is_batch_invariant = found.is_batch_invariant
        self.is_chunk_invariant = found.is_chunk_invariant

    def _shape_for(self, rows: int, keys: int) -> tuple[int, int]:
        for shape in self.decode_shapes:
            if shape[0] >= rows and shape[1] >= keys:
                return shape
        raise ValueError(f"no compiled step holds {rows} rows and {keys} keys")
