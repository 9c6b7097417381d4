"""Every program of an engine, compiled for every shape before it is ready."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from numpy.typing import NDArray

from serving.buckets import Buckets
from serving.compilation import Compiler, Executable
from serving.language_model import LanguageModel
from serving.ngram_filter import NgramFilter
from serving.page_tables import PageTables
from serving.programs import DECODE_FIELDS, avoid_ngrams, constrain, decode, prefill, remember
from serving.sampler import Sampled, no_logprobs
from serving.sampling_state import SettingsTable, TokenMemory

_Shape = TypeVar("_Shape")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProgramSet:
    """Executables by shape; work of another shape cannot run.

    Attributes:
        prefill: By (chunk length, cache positions read).
        decode: By (rows, cache positions read).
        constrain: By rows.
        avoid: By rows; none without n-grams to avoid.
        remember: Starts a slot's token memory.
    """

    prefill: Mapping[tuple[int, int], Executable]
    decode: Mapping[tuple[int, int], Executable]
    constrain: Mapping[int, Executable]
    avoid: Mapping[int, Executable]
    remember: Executable

    @classmethod
    def compile(
        cls,
        model: LanguageModel,
        buckets: Buckets,
        *,
        slots: int,
        num_pages: int,
        dtype: str,
        ngrams: NgramFilter | None,
        compiler: Compiler,
    ) -> ProgramSet:
        """Compile for memories of `slots` rows and a cache of `num_pages`; returns when done.

        `ngrams` is the filter that the programs will get, on the host or on the device.
        """
        shapes = _Shapes(model, buckets, slots, num_pages, dtype, ngrams)
        prefills = {
            (chunk, keys): compiler.submit(shapes.lower_prefill(chunk, keys), same_rounding=True)
            for chunk in buckets.chunks
            for keys in buckets.chunk_keys
            if keys >= chunk
        }
        decodes = {
            (rows, keys): compiler.submit(shapes.lower_decode(rows, keys), same_rounding=True)
            for rows in buckets.batches
            for keys in buckets.decode_keys
        }
        constrains = {
            rows: compiler.submit(shapes.lower_constrain(rows), same_rounding=True)
            for rows in buckets.batches
        }
        avoids = {
            rows: compiler.submit(shapes.lower_avoid(rows), same_rounding=True)
            for rows in (() if ngrams is None else buckets.batches)
        }
        remembering = compiler.submit(shapes.lower_remember())
        return cls(
            prefill=_results(prefills),
            decode=_results(decodes),
            constrain=_results(constrains),
            avoid=_results(avoids),
            remember=remembering.result(),
        )


class _Shapes:
    """Lowers each program for given sizes, without allocating an array."""

    def __init__(
        self,
        model: LanguageModel,
        buckets: Buckets,
        slots: int,
        num_pages: int,
        dtype: str,
        ngrams: NgramFilter | None = None,
    ) -> None:
        self._model = model
        self._page_size = buckets.page_size
        self._newest = _ints(slots)
        pages = buckets.cache_tokens // buckets.page_size
        self._tables = PageTables(slots, pages, model.page_chips)
        self._params = jax.tree.map(_abstract, model.params)
        self._cache = jax.eval_shape(lambda: model.init_cache(num_pages, buckets.page_size, dtype))
        ngram = None if ngrams is None else ngrams.ngram
        self._ngrams = jax.tree.map(_abstract, ngrams)
        self._memory = jax.eval_shape(lambda: TokenMemory.empty(slots, model.vocab_size, ngram))
        self._settings = jax.tree.map(_abstract, SettingsTable(slots).on_device())

    def lower_prefill(self, chunk: int, keys: int) -> jax.stages.Lowered:
        function = functools.partial(prefill, self._model)
        mesh = self._lie(("params", "cache", *["whole"] * 5), ("whole", "cache"))
        return jax.jit(function, donate_argnums=(1,), **mesh).lower(
            self._params,
            self._cache,
            _ints(chunk),
            _ints(chunk),
            _ints(),
            jax.tree.map(_abstract, self._tables.for_prefill(0, keys // self._page_size)),
            _scalar(jnp.bool_),
        )

    def lower_decode(self, rows: int, keys: int) -> jax.stages.Lowered:
        function = functools.partial(decode, self._model)
        mesh = self._lie(
            ("params", "cache", *["whole"] * 5), ("whole", "rows", "cache", "whole", "whole"), rows
        )
        return jax.jit(function, donate_argnums=(1, 2, 3), **mesh).lower(
            self._params,
            self._cache,
            self._memory,
            self._newest,
            self._settings,
            _ints(len(DECODE_FIELDS), rows),
            jax.tree.map(_abstract, self._tables.for_decode((), rows, keys // self._page_size)),
        )

    def lower_constrain(self, rows: int) -> jax.stages.Lowered:
        vocab_size = self._model.vocab_size
        mesh = self._lie(("whole", "rows", *["whole"] * 7), ("whole",) * 3, rows)
        return jax.jit(constrain, donate_argnums=(2, 3), **mesh).lower(
            self._sampled(rows),
            jax.ShapeDtypeStruct((rows, vocab_size), jnp.float32),
            self._memory,
            self._newest,
            self._settings,
            _ints(len(DECODE_FIELDS), rows),
            _ints(rows, -(-vocab_size // 32)),
            jax.ShapeDtypeStruct((rows,), jnp.bool_),
            self._ngrams,
        )

    def lower_avoid(self, rows: int) -> jax.stages.Lowered:
        mesh = self._lie(("whole", "rows", *["whole"] * 5), ("whole",) * 3, rows)
        return jax.jit(avoid_ngrams, donate_argnums=(2, 3), **mesh).lower(
            self._sampled(rows),
            jax.ShapeDtypeStruct((rows, self._model.vocab_size), jnp.float32),
            self._memory,
            self._newest,
            self._settings,
            _ints(len(DECODE_FIELDS), rows),
            self._ngrams,
        )

    def _sampled(self, rows: int) -> Any:
        vocab_size = self._model.vocab_size
        return jax.eval_shape(
            lambda: Sampled(
                tokens=jnp.zeros(rows, jnp.int32), logprobs=no_logprobs(rows, vocab_size)
            )
        )

    def lower_remember(self) -> jax.stages.Lowered:
        row = jax.tree.map(
            lambda field: jax.ShapeDtypeStruct(field.shape[1:], field.dtype), self._memory
        )
        return jax.jit(remember, donate_argnums=(0,), **self._lie(("whole",) * 3, "whole")).lower(
            self._memory, _scalar(jnp.int32), row
        )

    def _lie(
        self, inputs: tuple[str, ...], outputs: tuple[str, ...] | str, rows: int = 1
    ) -> dict[str, Any]:
        """For `jax.jit`: where arguments and results lie on the mesh; on one device nothing.

        "rows" is split by row, of which there are `rows`.

        What is donated comes back as it went in, or the next step would be another program.
        """
        sharding = self._model.sharding
        if sharding is None:
            return {}
        places = {
            "params": jax.tree.map(lambda array: array.sharding, self._model.params),
            "cache": sharding.cache,
            "whole": sharding.whole,
            "rows": sharding.by_row(rows),
        }
        return {
            "in_shardings": jax.tree.map(places.__getitem__, inputs),
            "out_shardings": jax.tree.map(places.__getitem__, outputs),
        }


def _results(futures: Mapping[_Shape, Future[Executable]]) -> dict[_Shape, Executable]:
    return {shape: future.result() for shape, future in futures.items()}


def _abstract(array: jax.Array | NDArray[Any]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _ints(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def _scalar(dtype: type) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), dtype)
