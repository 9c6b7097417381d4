"""A step that raises, and a program that is compiled after the engine was ready."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import jax
import pytest

from model.tokenizer import SentencePieceTokenizer
from model.tokenizer.sentencepiece_model import MODEL_FILE
from serving.compilation import CompilationWatch
from serving.engine import Engine
from serving.errors import EngineCrashedError, RecompilationError
from serving.request import GenerationRequest, collect
from tests.serving.conftest import ENGINE
from tests.serving.stepping import request

SPECIAL = 99
"""The token on which the tokenizers below do what they should not; every request samples it."""


class RaisingTokenizer(SentencePieceTokenizer):
    """Fails on a token where the engine computes; grammars have read it without harm before."""

    def token_bytes(self, token_id: int, *, at_start: bool = False) -> bytes:
        if token_id == SPECIAL and threading.current_thread().name == "talipot-engine":
            raise RuntimeError(f"no bytes for token {token_id}")
        return super().token_bytes(token_id, at_start=at_start)


class CompilingTokenizer(SentencePieceTokenizer):
    """Runs a new program on the engine's thread, as a shape nobody thought of would."""

    def token_bytes(self, token_id: int, *, at_start: bool = False) -> bytes:
        if token_id == SPECIAL:
            jax.jit(lambda x: x + 1)(token_id)
        return super().token_bytes(token_id, at_start=at_start)


def special_request(request_id: str = "a") -> GenerationRequest:
    return request(request_id, max_tokens=4, logit_bias={SPECIAL: 100.0})


@pytest.fixture
def start(language_model, tmp_path, tokenizer):
    """Starts an engine whose tokenizer is of another class."""
    tokenizer.save(tmp_path)

    async def start(kind: type[SentencePieceTokenizer], *, fails: bool = True) -> Engine:
        config = dataclasses.replace(ENGINE, fail_on_recompilation=fails)
        engine = Engine(language_model, kind.from_file(tmp_path / MODEL_FILE), config)
        await engine.start()
        return engine

    return start


def test_a_step_that_raises_fails_every_request_and_the_engine(start):
    async def main() -> None:
        engine = await start(RaisingTokenizer)
        streams = [engine.generate(special_request(f"{i}")) for i in range(2)]
        for stream in streams:
            with pytest.raises(EngineCrashedError, match="no bytes for token") as failure:
                await anext(stream)
            assert isinstance(failure.value.__cause__, RuntimeError)
        assert not engine.is_ready
        with pytest.raises(EngineCrashedError):
            engine.generate(request())
        await engine.stop()

    asyncio.run(main())


def test_a_recompilation_fails_where_it_is_forbidden(start):
    async def main() -> None:
        engine = await start(CompilingTokenizer)
        with pytest.raises(EngineCrashedError, match="compiled after the engine was ready") as it:
            collect([d async for d in engine.generate(special_request())])
        assert isinstance(it.value.__cause__, RecompilationError)
        await engine.stop()

    asyncio.run(main())


def test_a_recompilation_is_counted_where_it_is_allowed(start):
    async def main() -> None:
        engine = await start(CompilingTokenizer, fails=False)
        assert engine.stats().recompilations_after_ready == 0
        output = collect([d async for d in engine.generate(special_request())])
        assert output.finish_reason == "length"
        assert engine.stats().recompilations_after_ready > 0
        await engine.stop()

    asyncio.run(main())


def test_the_watch_counts_its_own_thread_alone():
    watch = CompilationWatch()
    jax.jit(lambda x: x + 2)(1)
    assert watch.count == 0
    with watch.this_thread():
        jax.jit(lambda x: x + 3)(1)
    assert watch.count == 1
    jax.jit(lambda x: x + 4)(1)
    assert watch.count == 1
