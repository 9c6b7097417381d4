"""When to guess tokens ahead, for whom and how many.

A draft's tokens are fed in the same step as the request's newest token, each a row of its own at
its own position, and every row samples its successor with that position's random numbers. The
draft holds as far as each token equals what the row before it sampled, and the first that differs
is replaced by what was sampled. That is speculative sampling (Leviathan et al. 2023, arXiv
2211.17192) with a proposal that is certain of itself: accept x with probability p(x), otherwise
draw from p without x, which is what drawing once from p and comparing does. As a row's result does
not depend on its neighbours, the tokens are those that would have come one by one, bit for bit.

Speculation pays where a step of more rows costs less than the steps it saves. Both sides are
measured: what steps cost (`serving.step_times`) and how often guesses hold
(`serving.prompt_lookup`, which watches even while nothing is drafted).
"""

from __future__ import annotations

import dataclasses
import heapq
import sys
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Rows

from serving.prompt_lookup import PromptLookup
from serving.sampling_state import is_adjusted
from serving.sequence import Sequence
from serving.step_plan import DecodeToken
from serving.step_times import Stepping, StepTimes

# Tokens a second must rise by this factor: estimates err, and switching costs a bubble.
_LEAST_GAIN = 1.2
# Steps for which the answer that drafts do not pay holds: finding out takes Python a while, too.
_STEPS_BETWEEN_QUESTIONS = 16
# Guesses that hold more rarely are not worth looking at.
_LEAST_ACCEPTANCE = 0.3
_OVERALL_WEIGHT = 1 / 512
# A request whose guesses fail for so many tokens is left alone for a while, then longer: watching
# a token takes Python 2 microseconds, of the 100 in which an engine with many streams makes one.
_WATCHED_TOKENS = 24
_SHORTEST_NAP, _LONGEST_NAP = 48, 192
_NEVER = sys.maxsize


def can_speculate(sequence: Sequence) -> bool:
    """Whether a request's tokens can be sampled ahead of each other and still be the same.

    Penalties count every token before the next is sampled, a grammar has to know it, and so does
    the hash of the n-grams to avoid, so such requests go one by one.
    """
    request = sequence.request
    is_checked = sequence.matcher is not None or request.avoid_ngrams
    return not is_checked and not is_adjusted(request.params)


@dataclasses.dataclass(slots=True)
class _Watch:
    """A request's lookup, and when it looks.

    Attributes:
        lookup: Of its tokens.
        seen: Generated tokens that the lookup has.
        awake_since: Generated tokens at which it began to look.
        wake_at: Generated tokens from which on it looks.
        nap: For how many tokens it stops looking next time.
    """

    lookup: PromptLookup
    seen: int
    awake_since: int
    wake_at: int
    nap: int = _SHORTEST_NAP


class Speculator:
    """Knows every running request's lookup, and chooses drafts.

    Attributes:
        times: What steps take; None switches speculation off.
        acceptance: Running share of all requests' guesses that held; new requests start with it.
        drafted_total: Tokens that were drafted.
        accepted_total: Those of them that held.
    """

    def __init__(self, times: StepTimes | None, draft_tokens: int) -> None:
        """Draft at most `draft_tokens` for a request and step."""
        self.times = times
        self.acceptance = 0.0
        self.drafted_total = self.accepted_total = 0
        self._draft_tokens = draft_tokens
        self._watches: dict[str, _Watch] = {}
        self._promising: set[str] = set()
        self._unasked_steps = 0

    def observe(self, sequence: Sequence, token: int) -> None:
        """Learn a request's next token, before the request itself does."""
        if self.times is None:
            return
        request_id = sequence.request.request_id
        watch = self._watches.get(request_id)
        if watch is None:
            watch = self._watches[request_id] = self._open(sequence)
        count = len(sequence.generated)
        if count < watch.wake_at:
            return
        lookup = watch.lookup
        if watch.seen < count:
            lookup.skip(sequence.generated[watch.seen :])
            watch.awake_since = count
        held = lookup.push(token)
        watch.seen = count + 1
        if held is not None:
            self.acceptance += _OVERALL_WEIGHT * (held - self.acceptance)
        if lookup.acceptance >= _LEAST_ACCEPTANCE:
            watch.awake_since, watch.nap = count, _SHORTEST_NAP
        elif count - watch.awake_since >= _WATCHED_TOKENS:
            watch.wake_at = count + watch.nap
            watch.nap = min(2 * watch.nap, _LONGEST_NAP)
        if lookup.has_guess and lookup.acceptance >= _LEAST_ACCEPTANCE:
            self._promising.add(request_id)
        else:
            self._promising.discard(request_id)

    def forget(self, request_id: str) -> None:
        """A request has ended."""
        self._watches.pop(request_id, None)
        self._promising.discard(request_id)

    def pays(self, running: Iterable[str]) -> bool:
        """Whether drafts for the requests that decode would pay, as far as one can tell.

        Asked before the newest tokens are read, on which the drafts will depend.
        """
        if not self._promising:
            return False
        if self._unasked_steps:
            self._unasked_steps -= 1
            return False
        if self._share_out([*running]):
            return True
        self._unasked_steps = _STEPS_BETWEEN_QUESTIONS
        return False

    def choose(self, decodes: Rows[DecodeToken]) -> Mapping[str, tuple[int, ...]]:
        """Drafts for the requests of a step; none where they would not pay.

        Every token that a request has must have been observed.
        """
        if not self._promising:
            return {}
        lengths = self._share_out([decode.request_id for decode in decodes])
        return {name: self._watches[name].lookup.draft(length) for name, length in lengths.items()}

    def record(self, rows: int, stepping: Stepping, seconds: float) -> None:
        """Learn what a decode step of so many rows took."""
        if self.times is not None:
            self.times.record(rows, stepping, seconds)

    def _share_out(self, running: Rows[str]) -> dict[str, int]:
        """Draft tokens by request, such that most tokens a second come of it.

        Compiled steps come in few sizes; each that is large enough is filled with the likeliest
        guesses, and the best is compared with a plain step.
        """
        if self.times is None or not running:
            return {}
        rows = len(running)
        best = rows / self.times.seconds(rows, "pipelined") * _LEAST_GAIN
        chosen: dict[str, int] = {}
        lengths: dict[str, int] = {}
        expected = float(rows)
        candidates = []
        for request_id in running:
            if request_id in self._promising:
                acceptance = self._watches[request_id].lookup.acceptance
                candidates.append((-acceptance, request_id, acceptance))
        heapq.heapify(candidates)
        for size in self.times.rows:
            while candidates and rows < size:
                negative, request_id, acceptance = heapq.heappop(candidates)
                lengths[request_id] = lengths.get(request_id, 0) + 1
                expected -= negative
                rows += 1
                if lengths[request_id] < self._draft_tokens:
                    # A draft's next token holds only if all before it do.
                    heapq.heappush(candidates, (negative * acceptance, request_id, acceptance))
            if rows > size or not lengths:
                continue
            rate = expected / self.times.seconds(rows, "synchronous")
            if rate > best:
                best, chosen = rate, dict(lengths)
        return chosen

    def _open(self, sequence: Sequence) -> _Watch:
        count = len(sequence.generated)
        if not can_speculate(sequence):
            return _Watch(PromptLookup((), 0.0), count, count, wake_at=_NEVER)
        tokens = [*sequence.request.prompt_token_ids, *sequence.generated]
        return _Watch(PromptLookup(tokens, self.acceptance), count, count, wake_at=count)
