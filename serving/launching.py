"""From a plan to programs on their way: requests open slots, tokens are handed to the device."""

from __future__ import annotations

import dataclasses
import time

from serving.in_progress import RequestsInProgress
from serving.programs import ON_DEVICE, DecodeRow
from serving.runner import Decoded, Runner
from serving.sampler import Logprobs, Sampled
from serving.sequence import Sequence
from serving.step_plan import Admission, DecodeToken, PromptChunk, StepPlan


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LaunchedStep:
    """A step that the device has, or has done.

    Attributes:
        chunks: Each with its request and the logprobs of its tokens.
        decodes: The requests of the decode step's rows, in order, and their drafts: a request has
            a row, and one for each token of its draft.
        sampled: What that step gives; None without one.
        decoded: The same with what a choice among fewer tokens needs.
        prompt_tokens: Tokens of the chunks.
        rows: Rows of the decode step.
        started: When it was launched, on the clock of `time.perf_counter`.
    """

    chunks: list[tuple[PromptChunk, Sequence, Logprobs]]
    decodes: list[tuple[Sequence, tuple[int, ...]]]
    sampled: Sampled | None
    decoded: Decoded | None
    prompt_tokens: int
    rows: int
    started: float

    @property
    def has_drafts(self) -> bool:
        """Whether the next step can only be planned when this one is read."""
        return self.rows > len(self.decodes)


class Launcher:
    """Carries plans out on a runner, and knows which request has which slot."""

    def __init__(self, runner: Runner, requests: RequestsInProgress) -> None:
        """No slot is open."""
        self._runner = runner
        self._requests = requests
        self._slots: dict[str, int] = {}

    @property
    def open_slots(self) -> list[int]:
        """Slots that requests have, in order."""
        return sorted(self._slots.values())

    def launch(self, plan: StepPlan) -> LaunchedStep | None:
        """Let slots change hands, then hand the programs to the device; None without any."""
        started = time.perf_counter()
        for departure in plan.departed:
            self.close(departure.request_id)
        for admission in plan.admitted:
            self._open(admission)
        for placement in plan.placements:
            self._runner.place_page(placement.slot, placement.index, placement.page)
        chunks = [self._launch_chunk(chunk) for chunk in plan.chunks]
        rows = [row for decode in plan.decodes for row in self._rows(decode)]
        if not chunks and not rows:
            return None
        decoded = self._runner.decode(rows) if rows else None
        return LaunchedStep(
            chunks=chunks,
            decodes=[(self._requests[each.request_id], each.draft) for each in plan.decodes],
            sampled=None if decoded is None else decoded.sampled,
            decoded=decoded,
            prompt_tokens=sum(chunk.length for chunk in plan.chunks),
            rows=len(rows),
            started=started,
        )

    def close(self, request_id: str) -> None:
        """Close a request's slot, if it has one."""
        slot = self._slots.pop(request_id, None)
        if slot is not None:
            self._runner.close_slot(slot)

    def _open(self, admission: Admission) -> None:
        sequence = self._requests[admission.request_id]
        self._slots[admission.request_id] = admission.slot
        self._runner.open_slot(
            admission.slot,
            sequence.request.params,
            seed=sequence.seed,
            prompt=sequence.request.prompt_token_ids,
            generated=sequence.generated,
            stops=sequence.stop_ids,
            is_constrained=sequence.matcher is not None,
            avoids_ngrams=sequence.request.avoid_ngrams,
        )

    def _launch_chunk(self, chunk: PromptChunk) -> tuple[PromptChunk, Sequence, Logprobs]:
        sequence = self._requests[chunk.request_id]
        prompt = sequence.request.prompt_token_ids
        end = chunk.start + chunk.length
        tokens = [*prompt, *sequence.generated][chunk.start : end]
        targets = None
        # A request that was preempted after its prompt was scored is not scored again.
        if sequence.wants_prompt_logprobs and chunk.start + 1 < len(prompt):
            targets = prompt[chunk.start + 1 : end + 1]
            targets += (0,) * (chunk.length - len(targets))
        return chunk, sequence, self._runner.prefill(chunk.slot, chunk.start, tokens, targets)

    def _rows(self, decode: DecodeToken) -> list[DecodeRow]:
        sequence = self._requests[decode.request_id]
        prompt = sequence.request.prompt_token_ids
        generated = decode.position + 1 - len(prompt)
        token = ON_DEVICE
        if decode.is_known:
            token = sequence.generated[generated - 1] if generated else prompt[-1]
        return [
            DecodeRow(fed, decode.slot, decode.position + ahead, generated + ahead)
            for ahead, fed in enumerate((token, *decode.draft))
        ]
