import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from serving.errors import InvariantError, OverloadedError
from serving.scheduler import DecodeToken, PromptChunk, Scheduler
from serving.throughput import Throughput


def scheduler(**changes: int) -> Scheduler:
    settings = {
        "max_slots": 2,
        "token_budget": 10,
        "chunk_tokens": 4,
        "max_queued_requests": 3,
        "max_queued_tokens": 100,
    }
    return Scheduler(**{**settings, **changes})


def test_a_prompt_is_taken_in_by_chunks_and_its_last_token_decoded() -> None:
    books = scheduler(token_budget=6)
    books.add("a", prompt_tokens=11, max_tokens=2)
    first, second, third, fourth = (books.plan() for _ in range(4))
    assert first.chunks == (PromptChunk(request_id="a", slot=0, start=0, length=4),)
    assert second.chunks == (PromptChunk(request_id="a", slot=0, start=4, length=4),)
    assert third.chunks == (PromptChunk(request_id="a", slot=0, start=8, length=2),)
    assert third.decodes == (DecodeToken(request_id="a", slot=0, position=10),)
    assert fourth.decodes == (DecodeToken(request_id="a", slot=0, position=11),)
    assert (first.tokens, third.tokens, fourth.tokens) == ({"a": 4}, {"a": 3}, {"a": 1})
    assert not first.decodes
    assert not fourth.chunks


def test_chunks_run_alongside_decodes() -> None:
    books = scheduler(token_budget=6)
    books.add("a", prompt_tokens=1, max_tokens=9)
    books.plan()
    books.add("b", prompt_tokens=6, max_tokens=1)
    assert books.plan().tokens == {"a": 1, "b": 4}
    assert books.plan().tokens == {"a": 1, "b": 2}


def test_the_budget_left_goes_to_the_same_prompt() -> None:
    books = scheduler(token_budget=12)
    books.add("a", prompt_tokens=30, max_tokens=1)
    assert [chunk.start for chunk in books.plan().chunks] == [0, 4, 8]


def test_max_tokens_zero_is_never_decoded() -> None:
    books = scheduler()
    books.add("a", prompt_tokens=5, max_tokens=0)
    plan = books.plan()
    assert (plan.tokens, plan.decodes) == ({"a": 4}, ())


def test_priority_then_arrival() -> None:
    books = scheduler(max_slots=1)
    for request_id, priority in (("a", 1), ("b", 0), ("c", 0)):
        books.add(request_id, prompt_tokens=1, max_tokens=1, priority=priority)
    order = []
    for _ in range(3):
        (decode,) = books.plan().decodes
        order.append(decode.request_id)
        books.remove(decode.request_id)
    assert order == ["b", "c", "a"]


def test_a_freed_slot_is_reused_in_the_next_step() -> None:
    books = scheduler()
    for request_id in "abc":
        books.add(request_id, prompt_tokens=1, max_tokens=9)
    books.plan()
    books.remove("a")
    assert {decode.request_id: decode.slot for decode in books.plan().decodes} == {"b": 1, "c": 0}


def test_requests_beyond_the_queue_are_refused() -> None:
    books = scheduler()
    for number in range(5):  # 2 slots and 3 in the queue
        books.add(str(number), prompt_tokens=1, max_tokens=1)
    with pytest.raises(OverloadedError, match=r"at most 3 may \(max_queued_requests\)") as caught:
        books.add("x", prompt_tokens=1, max_tokens=1)
    assert caught.value.retry_after_s >= 1
    books.remove("4")
    books.add("x", prompt_tokens=1, max_tokens=1)


def test_tokens_beyond_the_queue_are_refused() -> None:
    books = scheduler()
    for number in range(2):
        books.add(str(number), prompt_tokens=90, max_tokens=10)
    books.plan()
    books.add("2", prompt_tokens=40, max_tokens=40)
    with pytest.raises(OverloadedError, match="80 tokens wait already and this request has 21"):
        books.add("x", prompt_tokens=1, max_tokens=20)
    books.add("3", prompt_tokens=1, max_tokens=19)


def test_an_id_is_scheduled_once_and_needs_work() -> None:
    books = scheduler()
    books.add("a", prompt_tokens=1, max_tokens=1)
    with pytest.raises(ValueError, match="already"):
        books.add("a", prompt_tokens=1, max_tokens=1)
    with pytest.raises(ValueError, match="nothing to compute"):
        books.add("b", prompt_tokens=1, max_tokens=0)
    with pytest.raises(KeyError):
        books.remove("b")
    with pytest.raises(ValueError, match="token_budget"):
        scheduler(token_budget=5)


def test_check_finds_a_lost_slot() -> None:
    books = scheduler()
    books.add("a", prompt_tokens=1, max_tokens=1)
    books.plan()
    books._running.clear()
    with pytest.raises(InvariantError, match="slots do not balance"):
        books.check()


def test_throughput() -> None:
    rate = Throughput()
    assert rate.seconds_for(10**9) == 1
    rate.record(1000, 2.0)
    assert rate.seconds_for(5000) == pytest.approx(10)
    assert rate.seconds_for(10**9) == 60
    for _ in range(50):
        rate.record(100, 1.0)
    assert rate.tokens_per_s == pytest.approx(100, rel=0.1)


class SchedulerMachine(RuleBasedStateMachine):
    """Random arrivals, steps, ends and aborts against a plain model of what must happen."""

    live = Bundle("live")

    @initialize(
        slots=st.integers(1, 4), chunk=st.integers(1, 6), spare=st.integers(0, 8),
    )  # fmt: skip
    def start(self, slots: int, chunk: int, spare: int) -> None:
        self.slots, self.chunk, self.budget = slots, chunk, chunk + slots + spare
        self.books = Scheduler(
            max_slots=slots,
            token_budget=self.budget,
            chunk_tokens=chunk,
            max_queued_requests=4,
            max_queued_tokens=60,
        )
        self.numbers = itertools.count()
        self.sizes: dict[str, tuple[int, int]] = {}
        self.done: dict[str, int] = {}  # tokens in the cache

    @rule(
        target=live,
        prompt=st.integers(1, 20),
        max_tokens=st.integers(0, 10),
        priority=st.integers(-1, 1),
    )
    def add(self, prompt: int, max_tokens: int, priority: int) -> object:
        if prompt + max_tokens < 2:
            return multiple()
        request_id = str(next(self.numbers))
        try:
            self.books.add(
                request_id, prompt_tokens=prompt, max_tokens=max_tokens, priority=priority
            )
        except OverloadedError:
            free = self.slots - self.books.num_running
            tokens = sum(sum(self.sizes[i]) for i in self.sizes if i not in self.done)
            assert self.books.num_waiting >= min(4 + free, free)
            assert self.books.num_waiting >= 4 + free or tokens + prompt + max_tokens > 60
            return multiple()
        self.sizes[request_id] = (prompt, max_tokens)
        return request_id

    @rule(request_id=consumes(live))
    def abort(self, request_id: str) -> None:
        if request_id in self.sizes:
            self.drop(request_id)

    @rule()
    def step(self) -> None:
        plan = self.books.plan()
        assert sum(plan.tokens.values()) <= self.budget
        assert len({decode.slot for decode in plan.decodes}) == len(plan.decodes)
        for chunk in plan.chunks:
            assert chunk.start == self.done.get(chunk.request_id, 0)
            prompt = self.sizes[chunk.request_id][0]
            # Boundaries depend on the request alone.
            assert chunk.start % self.chunk == 0
            assert chunk.length == min(self.chunk, prompt - 1 - chunk.start)
            self.done[chunk.request_id] = chunk.start + chunk.length
        for decode in plan.decodes:
            prompt, max_tokens = self.sizes[decode.request_id]
            assert max_tokens > 0
            assert decode.position == self.done.get(decode.request_id, 0) >= prompt - 1
            self.done[decode.request_id] = decode.position + 1
        if self.sizes:
            assert plan.tokens, "work is never stuck"
        assert self.books.num_running == min(self.slots, len(self.sizes))
        for request_id in list(plan.tokens):
            prompt, max_tokens = self.sizes[request_id]
            if self.done[request_id] == prompt - 1 + max_tokens:
                self.drop(request_id)

    def drop(self, request_id: str) -> None:
        self.books.remove(request_id)
        del self.sizes[request_id]
        self.done.pop(request_id, None)

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "books"):
            return
        self.books.check()
        assert all(request_id in self.books for request_id in self.sizes)
        assert self.books.num_waiting + self.books.num_running == len(self.sizes)
        assert self.books.computed_tokens == sum(self.done.values())

    def teardown(self) -> None:
        """Whatever happened, the rest runs to its end and every slot comes back."""
        if not hasattr(self, "books"):
            return
        for _ in range(1000):
            if not self.sizes:
                break
            self.step()
        assert not self.sizes
        self.books.check()
        assert (self.books.num_waiting, self.books.num_running) == (0, 0)


SchedulerMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)
TestSchedulerMachine = SchedulerMachine.TestCase
