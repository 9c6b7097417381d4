"""The engine on its own thread: streams, aborts, draining, stopping."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
from collections.abc import Awaitable, Callable

import jax
import numpy as np
import pytest

from serving.config import EngineConfig
from serving.core import EngineCore
from serving.engine import Engine
from serving.errors import EngineStoppedError, OverloadedError
from serving.output import Delta, GenerationOutput
from serving.request import GenerationRequest, collect
from tests.serving.conftest import CONTEXT, ENGINE
from tests.serving.stepping import request, run_alone

LONG = CONTEXT - 3
PATIENT = dataclasses.replace(ENGINE, max_slots=1, max_queued_requests=1)
Scenario = Callable[[Engine], Awaitable[None]]


@pytest.fixture
def run(language_model, tokenizer) -> Callable[..., None]:
    """Runs a scenario on an engine that is started before and stopped after."""

    def run(scenario: Scenario, config: EngineConfig = ENGINE) -> None:
        async def main() -> None:
            engine = Engine(language_model, tokenizer, config)
            await engine.start()
            try:
                await scenario(engine)
                assert engine.stats().recompilations_after_ready == 0
            finally:
                await engine.stop()

        asyncio.run(main())

    return run


async def collected(engine: Engine, asked: GenerationRequest) -> GenerationOutput:
    return collect([delta async for delta in engine.generate(asked)])


def test_many_at_once_give_what_each_gives_alone(run, core: EngineCore):
    asked = [
        request(f"{i}", prompt=tuple(range(20, 22 + i)), max_tokens=20, temperature=1.0, seed=i)
        for i in range(12)
    ]

    async def scenario(engine: Engine) -> None:
        outputs = await asyncio.gather(*(collected(engine, each) for each in asked))
        assert outputs == [run_alone(core, each) for each in asked]

    run(scenario)


def test_score_is_the_log_probability_of_each_token(run, pretrained):
    token_ids = list(range(30, 55))
    logits = np.asarray(pretrained.logits(np.asarray([token_ids])), np.float64)[0]
    logprobs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = logprobs[np.arange(24), token_ids[1:]]

    async def scenario(engine: Engine) -> None:
        first, *rest = await engine.score(token_ids)
        assert first is None
        np.testing.assert_allclose(rest, expected, atol=1e-5)
        assert await engine.score([7]) == [None]

    run(scenario)


def test_abort_ends_within_two_steps(run):
    async def scenario(engine: Engine) -> None:
        stream = engine.generate(request(max_tokens=LONG))
        first = await anext(stream)
        steps = engine.stats().steps_total
        engine.abort("a")
        engine.abort("unknown")
        rest = [delta async for delta in stream]
        assert rest[-1].finish_reason == "abort"
        # The count that stats() gave may be one behind a step in progress.
        assert len(collect([first, *rest]).token_ids) <= steps + 2

    run(scenario)


async def close(stream) -> None:
    await stream.aclose()


async def cancel(stream) -> None:
    async def consume() -> None:
        async for _ in stream:
            pass

    task = asyncio.create_task(consume())
    await asyncio.sleep(0)  # into its first iteration
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("leave", [close, cancel])
def test_leaving_a_stream_frees_its_slot(run, leave):
    async def scenario(engine: Engine) -> None:
        stream = engine.generate(request(max_tokens=LONG))
        await anext(stream)
        await leave(stream)
        output = await collected(engine, request("next", max_tokens=2))  # there is one slot
        assert output.finish_reason == "length"
        assert engine.stats().aborted_total == 1

    run(scenario, PATIENT)


def test_a_dropped_stream_frees_its_slot(run):
    async def scenario(engine: Engine) -> None:
        await anext(engine.generate(request(max_tokens=LONG)))
        gc.collect()
        output = await collected(engine, request("next", max_tokens=2))
        assert output.finish_reason == "length"
        assert engine.stats().aborted_total == 1

    run(scenario, PATIENT)


def test_a_consumer_that_comes_late_gets_everything_at_once(run):
    async def scenario(engine: Engine) -> None:
        late = engine.generate(request("late", max_tokens=5))
        await collected(engine, request("first", max_tokens=20))
        delta = await anext(late)
        assert (len(delta.token_ids), delta.finish_reason) == (5, "length")
        with pytest.raises(StopAsyncIteration):
            await anext(late)

    run(scenario)


def test_a_full_queue_refuses_and_the_others_go_on(run):
    async def scenario(engine: Engine) -> None:
        running = engine.generate(request("runs", max_tokens=LONG))
        first = await anext(running)
        waiting = engine.generate(request("waits", max_tokens=2))
        with pytest.raises(OverloadedError):
            engine.generate(request("refused", max_tokens=2))
        outputs = [collect([first, *[d async for d in running]])]
        outputs.append(collect([d async for d in waiting]))
        assert [output.finish_reason for output in outputs] == ["length", "length"]

    run(scenario, PATIENT)


def test_drain_lets_requests_end_and_admits_none(run):
    async def scenario(engine: Engine) -> None:
        stream = engine.generate(request(max_tokens=LONG))
        drained = asyncio.create_task(engine.drain(60))
        await asyncio.sleep(0)  # into the drain
        with pytest.raises(EngineStoppedError, match="draining"):
            engine.generate(request("b"))
        assert collect([d async for d in stream]).finish_reason == "length"
        assert await drained == 0

    run(scenario)


def test_drain_aborts_what_is_late(run):
    async def scenario(engine: Engine) -> None:
        streams = [engine.generate(request(f"{i}", max_tokens=LONG)) for i in range(2)]
        assert await engine.drain(0) == 2
        outputs = [collect([d async for d in stream]) for stream in streams]
        assert {output.finish_reason for output in outputs} == {"abort"}

    run(scenario)


def test_a_whole_output_comes_in_two_deltas_at_most(run, core: EngineCore):
    asked = [request(f"{i}", max_tokens=LONG - i, temperature=1.0, seed=i) for i in range(5)]

    async def deltas(engine: Engine, each: GenerationRequest) -> list[Delta]:
        return [delta async for delta in engine.generate(each, as_whole=True)]

    async def scenario(engine: Engine) -> None:
        for each, found in zip(
            asked, await asyncio.gather(*(deltas(engine, each) for each in asked)), strict=True
        ):
            assert len(found) <= 2
            assert found[0].token_ids
            assert collect(found) == run_alone(core, each)

    run(scenario)


def test_a_whole_output_that_is_aborted_ends_at_once(run):
    async def scenario(engine: Engine) -> None:
        stream = engine.generate(request("a", max_tokens=LONG), as_whole=True)
        first = await anext(stream)
        engine.abort("a")
        assert (await anext(stream)).finish_reason == "abort"
        assert first.token_ids

    run(scenario, PATIENT)


def test_an_engine_admits_only_between_start_and_stop(language_model, tokenizer):
    async def main() -> None:
        engine = Engine(language_model, tokenizer, ENGINE)
        with pytest.raises(EngineStoppedError, match="new"):
            engine.generate(request())
        await engine.start()
        assert engine.is_ready
        with pytest.raises(EngineStoppedError, match="starts once"):
            await engine.start()
        await engine.stop()
        with pytest.raises(EngineStoppedError, match="stopped"):
            engine.generate(request())
        with pytest.raises(EngineStoppedError, match="starts once"):
            await engine.start()
        await engine.stop()

    asyncio.run(main())


def test_a_stopped_engine_holds_no_device_memory(language_model, tokenizer):
    def device_bytes() -> int:
        gc.collect()
        return sum(array.nbytes for array in jax.live_arrays())

    async def main() -> None:
        before = device_bytes()
        engine = Engine(language_model, tokenizer, ENGINE)
        await engine.start()
        held = device_bytes() - before
        await collected(engine, request())
        await engine.stop()
        assert device_bytes() - before < held / 4

    asyncio.run(main())


def test_requests_belong_to_the_loop_of_the_engine(run):
    async def scenario(engine: Engine) -> None:
        async def elsewhere() -> None:
            engine.generate(request())

        with pytest.raises(EngineStoppedError, match="event loop"):
            await asyncio.to_thread(asyncio.run, elsewhere())

    run(scenario)


def test_without_a_tokenizer_it_serves_token_ids(language_model, core: EngineCore):
    asked = request(max_tokens=10)

    async def main() -> None:
        engine = Engine(language_model, None, ENGINE)
        await engine.start()
        output = await collected(engine, asked)
        assert output.text == ""
        assert output.token_ids == run_alone(core, asked).token_ids
        await engine.stop()

    asyncio.run(main())
