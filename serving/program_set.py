"""Every program of an engine, compiled for every shape before it is ready."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from concurrent.futures import Future
from typing import TypeVar

import jax
import jax.numpy as jnp

from serving.buckets import Buckets
from serving.compilation import Compiler, Executable
from serving.language_model import LanguageModel
from serving.programs import DECODE_FIELDS, constrain, decode, prefill, remember
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
        remember: Starts a slot's token memory.
    """

    prefill: Mapping[tuple[int, int], Executable]
    decode: Mapping[tuple[int, int], Executable]
    constrain: Mapping[int, Executable]
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
        compiler: Compiler,
    ) -> ProgramSet:
        """Compile for memories of `slots` rows and a cache of `num_pages`; returns when done."""
        shapes = _Shapes(model, buckets, slots, num_pages, dtype)
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
        remembering = compiler.submit(shapes.lower_remember())
        return cls(
            prefill=_results(prefills),
            decode=_results(decodes),
            constrain=_results(constrains),
            remember=remembering.result(),
        )


class _Shapes:
    """Lowers each program for given sizes, without allocating an array."""

    def __init__(
        self, model: LanguageModel, buckets: Buckets, slots: int, num_pages: int, dtype: str
    ) -> None:
        self._model = model
        self._page_size = buckets.page_size
        self._newest = _ints(slots)
        self._params = jax.tree.map(_abstract, model.params)
        self._cache = jax.eval_shape(lambda: model.init_cache(num_pages, buckets.page_size, dtype))
        self._memory = jax.eval_shape(lambda: TokenMemory.empty(slots, model.vocab_size))
        self._settings = jax.tree.map(_abstract, SettingsTable(slots).on_device())

    def lower_prefill(self, chunk: int, keys: int) -> jax.stages.Lowered:
        return jax.jit(functools.partial(prefill, self._model), donate_argnums=(1,)).lower(
            self._params,
            self._cache,
            _ints(chunk),
            _ints(chunk),
            _ints(),
            _ints(keys // self._page_size),
            _scalar(jnp.bool_),
        )

    def lower_decode(self, rows: int, keys: int) -> jax.stages.Lowered:
        return jax.jit(functools.partial(decode, self._model), donate_argnums=(1, 2, 3)).lower(
            self._params,
            self._cache,
            self._memory,
            self._newest,
            self._settings,
            _ints(len(DECODE_FIELDS), rows),
            _ints(rows, keys // self._page_size),
        )

    def lower_constrain(self, rows: int) -> jax.stages.Lowered:
        vocab_size = self._model.vocab_size
        sampled = jax.eval_shape(
            lambda: Sampled(
                tokens=jnp.zeros(rows, jnp.int32), logprobs=no_logprobs(rows, vocab_size)
            )
        )
        return jax.jit(constrain, donate_argnums=(2, 3)).lower(
            sampled,
            jax.ShapeDtypeStruct((rows, vocab_size), jnp.float32),
            self._memory,
            self._newest,
            self._settings,
            _ints(len(DECODE_FIELDS), rows),
            _ints(rows, -(-vocab_size // 32)),
            jax.ShapeDtypeStruct((rows,), jnp.bool_),
        )

    def lower_remember(self) -> jax.stages.Lowered:
        row = jax.tree.map(
            lambda field: jax.ShapeDtypeStruct(field.shape[1:], field.dtype), self._memory
        )
        return jax.jit(remember, donate_argnums=(0,)).lower(self._memory, _scalar(jnp.int32), row)


def _results(futures: Mapping[_Shape, Future[Executable]]) -> dict[_Shape, Executable]:
    return {shape: future.result() for shape, future in futures.items()}


def _abstract(array: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _ints(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


def _scalar(dtype: type) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((), dtype)
