"""Driving an `EngineCore` by hand, one step at a time."""

from __future__ import annotations

from collections import defaultdict

from serving.core import EngineCore
from serving.output import Delta, GenerationOutput
from serving.request import GenerationRequest, SamplingParams, collect
from serving.sequence import Sequence

MANY_STEPS = 10_000


class Driver:
    """Keeps what each request gained, by request id."""

    def __init__(self, core: EngineCore) -> None:
        self.core = core
        self.deltas: dict[str, list[Delta]] = defaultdict(list)

    def submit(self, request: GenerationRequest) -> Sequence:
        sequence = self.core.prepare(request)
        self.core.enqueue(sequence)
        return sequence

    def step(self) -> None:
        for sequence, delta in self.core.step():
            deltas = self.deltas[sequence.request.request_id]
            assert not deltas or deltas[-1].finish_reason is None, "a delta after the last"
            deltas.append(delta)

    def run(self) -> None:
        """Step until nothing is left to do."""
        for _ in range(MANY_STEPS):
            if not self.core.has_work:
                return
            self.step()
        raise AssertionError(f"still at work after {MANY_STEPS} steps")

    def output(self, request_id: str) -> GenerationOutput:
        return collect(self.deltas[request_id])


def request(
    request_id: str = "a",
    prompt: tuple[int, ...] = (30, 31, 32),
    avoid_ngrams: bool = False,
    **params: object,
) -> GenerationRequest:
    """A request that goes on to `max_tokens` unless told otherwise."""
    settings = {"ignore_eos": True, "temperature": 0.0, **params}
    return GenerationRequest(
        request_id=request_id,
        prompt_token_ids=prompt,
        avoid_ngrams=avoid_ngrams,
        params=SamplingParams(**settings),  # type: ignore[arg-type]
    )


def run_alone(core: EngineCore, asked: GenerationRequest) -> GenerationOutput:
    """What a request gives with nothing beside it."""
    driver = Driver(core)
    driver.submit(asked)
    driver.run()
    return driver.output(asked.request_id)
