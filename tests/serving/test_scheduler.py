"""Plans, step by step, and under random arrivals against a plain model of what must happen."""

import dataclasses
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
from serving.limits import SchedulerLimits
from serving.pages import PagePool
from serving.scheduler import Scheduler
from serving.step_plan import Departure, PromptChunk, StepPlan
from serving.throughput import Throughput

PAGE_SIZE = 4
LIMITS = SchedulerLimits(
    max_slots=2,
    token_budget=10,
    chunk_tokens=8,
    mixed_chunk_tokens=4,
    share_tokens=PAGE_SIZE,
    max_queued_requests=3,
    max_queued_tokens=100,
    ageing_s=10.0,
)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def scheduler(*, pages: int = 60, clock: Clock | None = None, **changes: int) -> Scheduler:
    limits = dataclasses.replace(LIMITS, **changes)
    return Scheduler(limits, PagePool(pages + 1, PAGE_SIZE), clock=clock or Clock())


def prompt(length: int, first: int = 0) -> tuple[int, ...]:
    return tuple(range(first, first + length))


def positions(plan: StepPlan) -> dict[str, int]:
    return {decode.request_id: decode.position for decode in plan.decodes}


def test_a_prompt_is_taken_in_by_chunks_and_its_last_token_decoded() -> None:
    books = scheduler(token_budget=10)
    books.add("a", prompt=prompt(20), max_tokens=3)
    first, second, third, fourth, fifth, sixth = (books.plan() for _ in range(6))
    assert first.chunks == (PromptChunk(request_id="a", slot=0, start=0, length=8),)
    assert second.chunks == (PromptChunk(request_id="a", slot=0, start=8, length=8),)
    assert third.chunks == (PromptChunk(request_id="a", slot=0, start=16, length=3),)
    assert [positions(plan) for plan in (third, fourth, fifth)] == [{"a": 19}, {"a": 20}, {"a": 21}]
    # The last token that is sampled is never fed.
    assert not sixth.tokens
    assert (first.tokens, third.tokens) == ({"a": 8}, {"a": 4})
    # The first token is the prompt's; later ones are sampled by steps that are still under way.
    assert [plan.decodes[0].is_known for plan in (third, fourth)] == [True, False]


def test_chunks_beside_decodes_are_shorter() -> None:
    books = scheduler()
    books.add("a", prompt=prompt(1), max_tokens=9)
    books.plan()
    books.add("b", prompt=prompt(8, 50), max_tokens=1)
    assert books.plan().tokens == {"a": 1, "b": 4}
    assert books.plan().tokens == {"a": 1, "b": 4}


def test_the_budget_left_goes_to_the_same_prompt() -> None:
    books = scheduler(token_budget=18)
    books.add("a", prompt=prompt(30), max_tokens=1)
    assert [chunk.start for chunk in books.plan().chunks] == [0, 8]


def test_max_tokens_zero_is_never_decoded() -> None:
    books = scheduler()
    books.add("a", prompt=prompt(5), max_tokens=0)
    plan = books.plan()
    assert (plan.tokens, plan.decodes) == ({"a": 4}, ())


def test_pages_come_with_the_prompt_and_then_one_by_one() -> None:
    books = scheduler()
    books.add("a", prompt=prompt(6), max_tokens=9)
    placed = [[entry.index for entry in books.plan().placements] for _ in range(4)]
    assert placed == [[0, 1], [], [], [2]]


def test_priority_then_arrival_then_ageing() -> None:
    clock = Clock()
    books = scheduler(max_slots=1, clock=clock)
    for request_id, priority, now_s in (("a", 1, 0.0), ("b", 0, 1.0), ("c", 0, 2.0), ("d", 0, 11)):
        clock.now_s = now_s
        books.add(request_id, prompt=prompt(1), max_tokens=1, priority=priority)
    order = []
    for _ in range(4):
        (decode,) = books.plan().decodes
        order.append(decode.request_id)
        books.remove(decode.request_id)
    assert order == ["b", "c", "a", "d"]


def test_a_freed_slot_is_reused_in_the_next_step() -> None:
    books = scheduler()
    for request_id in "abc":
        books.add(request_id, prompt=prompt(1), max_tokens=9)
    books.plan()
    books.remove("a")
    assert {decode.request_id: decode.slot for decode in books.plan().decodes} == {"b": 1, "c": 0}


def test_a_shared_prefix_is_computed_once() -> None:
    books = scheduler(token_budget=40, chunk_tokens=32, mixed_chunk_tokens=32)
    books.add("a", prompt=prompt(21), max_tokens=2)
    assert books.plan().tokens["a"] == 21
    books.add("b", prompt=(*prompt(17), 99, 98), max_tokens=2)
    plan = books.plan()
    (admission,) = plan.admitted
    assert (admission.request_id, admission.cached_tokens) == ("b", 16)
    assert plan.chunks == (PromptChunk(request_id="b", slot=1, start=16, length=2),)
    assert (books.prompt_tokens_total, books.cached_tokens_total) == (20 + 18, 16)
    # Found again after both are gone, and whole: but one token is left to sample from.
    books.remove("a")
    books.remove("b")
    books.add("c", prompt=prompt(20), max_tokens=2)
    assert books.plan().admitted[0].cached_tokens == 16


def test_what_was_generated_is_found_too() -> None:
    books = scheduler()
    books.add("a", prompt=prompt(3), max_tokens=8)
    for token in range(3, 9):
        books.plan()
        books.add_token("a", token)
    books.remove("a")
    books.add("b", prompt=prompt(12), max_tokens=1)
    assert books.plan().admitted[0].cached_tokens == 8


def test_prefixes_can_be_held_to_whole_chunks() -> None:
    books = scheduler(token_budget=40, share_tokens=8, mixed_chunk_tokens=8)
    books.add("a", prompt=prompt(23), max_tokens=1)
    books.plan()
    books.remove("a")
    books.add("b", prompt=prompt(23), max_tokens=1)
    assert books.plan().admitted[0].cached_tokens == 16


def test_a_request_that_may_not_skip_computes_everything() -> None:
    books = scheduler(token_budget=40)
    for request_id in "ab":
        books.add(request_id, prompt=prompt(20), max_tokens=1, may_skip=False)
        assert books.plan().tokens[request_id] >= 8
        books.remove(request_id)
    assert books.cached_tokens_total == 0


def test_the_last_in_order_makes_room_and_comes_back() -> None:
    books = scheduler(pages=4)
    books.add("a", prompt=prompt(4), max_tokens=9)
    books.add("b", prompt=prompt(4, 50), max_tokens=9)
    generated = {"a": 4, "b": 54}

    def step() -> StepPlan:
        plan = books.plan()
        for decode in plan.decodes:
            books.add_token(decode.request_id, generated[decode.request_id])
            generated[decode.request_id] += 1
        return plan

    plans = [step() for _ in range(6)]
    assert positions(plans[4]) == {"a": 7, "b": 7}
    # Position 8 opens each request's third page, and there are four.
    assert plans[5].departed == (Departure(request_id="b", slot=1),)
    assert positions(plans[5]) == {"a": 8}
    assert (books.num_waiting, books.preemptions_total) == (1, 1)
    books.remove("a")
    back = step()
    # One of its pages went to the other; the one before it is found, not computed again.
    assert back.admitted[0].cached_tokens == 4
    assert back.chunks == (PromptChunk(request_id="b", slot=0, start=4, length=4),)
    assert (positions(back), back.decodes[0].is_known) == ({"b": 8}, True)


def test_a_request_whose_last_step_is_planned_makes_place_for_the_next() -> None:
    books = scheduler(max_slots=1)
    books.add("a", prompt=prompt(1), max_tokens=2)
    books.add("b", prompt=prompt(1), max_tokens=1)
    assert [positions(books.plan()) for _ in range(2)] == [{"a": 0}, {"a": 1}]
    # The host does not know a's last token yet.
    plan = books.plan()
    assert plan.departed == (Departure(request_id="a", slot=0),)
    assert positions(plan) == {"b": 0}
    books.add_token("a", 5)
    books.remove("a")
    books.check()


def test_requests_beyond_the_queue_are_refused() -> None:
    books = scheduler()
    for number in range(5):  # 2 slots and 3 in the queue
        books.add(str(number), prompt=prompt(1), max_tokens=1)
    with pytest.raises(OverloadedError, match=r"at most 3 may \(max_queued_requests\)") as caught:
        books.add("x", prompt=prompt(1), max_tokens=1)
    assert caught.value.retry_after_s >= 1
    books.remove("4")
    books.add("x", prompt=prompt(1), max_tokens=1)


def test_tokens_beyond_the_queue_are_refused() -> None:
    books = scheduler()
    for number in range(2):
        books.add(str(number), prompt=prompt(90), max_tokens=10)
    books.plan()
    books.add("2", prompt=prompt(40), max_tokens=40)
    with pytest.raises(OverloadedError, match="80 tokens wait already and this request has 21"):
        books.add("x", prompt=prompt(1), max_tokens=20)
    books.add("3", prompt=prompt(1), max_tokens=19)


def test_an_id_is_scheduled_once_and_needs_work() -> None:
    books = scheduler()
    books.add("a", prompt=prompt(1), max_tokens=1)
    with pytest.raises(ValueError, match="already"):
        books.add("a", prompt=prompt(1), max_tokens=1)
    with pytest.raises(ValueError, match="nothing to compute"):
        books.add("b", prompt=prompt(1), max_tokens=0)
    with pytest.raises(KeyError):
        books.remove("b")
    with pytest.raises(ValueError, match="token_budget"):
        scheduler(token_budget=9)


def test_check_finds_a_lost_slot_and_a_lost_page() -> None:
    books = scheduler()
    books.add("a", prompt=prompt(1), max_tokens=1)
    books.plan()
    books._requests["a"].pages.clear()
    with pytest.raises(InvariantError, match="computed tokens and pages do not balance"):
        books.check()
    books._running._requests.clear()
    with pytest.raises(InvariantError, match="slots do not balance"):
        books.check()


def on_two_chips(**changes: int) -> Scheduler:
    limits = dataclasses.replace(LIMITS, token_budget=40, max_queued_requests=9, **changes)
    return Scheduler(limits, *(PagePool(9, PAGE_SIZE) for _ in range(2)), clock=Clock())


def test_requests_go_where_there_is_most_room_or_most_of_them() -> None:
    books = on_two_chips(max_slots=4)
    for name in "ab":
        books.add(name, prompt=prompt(9, 100 if name == "a" else 200), max_tokens=4)
    assert [each.slot % 2 for each in books.plan().admitted] == [0, 1]
    # It begins as "b" does.
    books.add("c", prompt=(*prompt(8, 200), 7), max_tokens=4)
    (found,) = books.plan().admitted
    assert (found.slot % 2, found.cached_tokens) == (1, 8)
    books.check()


def test_nobody_gives_pages_up_for_a_request_on_another_chip() -> None:
    books = on_two_chips(max_slots=3)
    for index, name in enumerate("abc"):  # the first and the last on one chip
        books.add(name, prompt=prompt(9, 100 * index), max_tokens=16)
    slots = {each.request_id: each.slot for each in books.plan().admitted}
    assert slots == {"a": 0, "b": 1, "c": 2}
    departed: list[str] = []
    while not departed:
        plan = books.plan()
        departed = [each.request_id for each in plan.departed]
        for request_id in positions(plan):
            books.add_token(request_id, 1)
    assert departed == ["c"]
    assert "b" in positions(plan)
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
    """Random arrivals, steps, ends and aborts, with few pages, beside a model of the device."""

    live = Bundle("live")

    @initialize(
        slots=st.integers(1, 4),
        pages=st.integers(7, 16),
        mixed=st.sampled_from([4, 8]),
        chips=st.integers(1, 3),
    )
    def start(self, slots: int, pages: int, mixed: int, chips: int) -> None:
        self.limits = dataclasses.replace(
            LIMITS,
            max_slots=slots,
            token_budget=8 + slots,
            mixed_chunk_tokens=mixed,
            max_queued_requests=4,
            max_queued_tokens=90,
        )
        pools = (PagePool(pages + 1, PAGE_SIZE) for _ in range(chips))
        self.books = Scheduler(self.limits, *pools)
        self.chips = chips
        self.numbers = itertools.count()
        self.asked: dict[str, tuple[tuple[int, ...], int]] = {}
        self.tokens: dict[str, list[int]] = {}  # prompt and what is known to be generated
        # Sampled by the step before and not known yet, and how much of a draft did not hold.
        self.in_flight: dict[str, tuple[list[int], int]] = {}
        self.table: dict[tuple[int, int], tuple[int, int]] = {}  # (slot, index): (chip, page)
        # (chip, page) and offset: all tokens so far
        self.cache: dict[tuple[tuple[int, int], int], tuple[int, ...]] = {}
        self.slot_of: dict[str, int] = {}
        self.done: dict[str, int] = {}
        self.complete: set[str] = set()  # every step of theirs is planned

    @rule(
        target=live,
        tokens=st.lists(st.integers(0, 1), min_size=1, max_size=18).map(tuple),
        max_tokens=st.integers(0, 9),
        priority=st.integers(-1, 1),
        may_skip=st.booleans(),
    )
    def add(
        self, tokens: tuple[int, ...], max_tokens: int, priority: int, may_skip: bool
    ) -> object:
        if len(tokens) + max_tokens < 2:
            return multiple()
        request_id = str(next(self.numbers))
        try:
            self.books.add(
                request_id,
                prompt=tokens,
                max_tokens=max_tokens,
                priority=priority,
                may_skip=may_skip,
            )
        except OverloadedError:
            assert self.books.num_waiting >= self.limits.max_slots - self.books.num_running
            return multiple()
        self.asked[request_id] = (tokens, max_tokens)
        self.tokens[request_id] = list(tokens)
        return request_id

    @rule(request_id=consumes(live))
    def abort(self, request_id: str) -> None:
        if request_id in self.asked:
            self.drop(request_id)

    @rule(
        guesses=st.none()
        | st.lists(st.lists(st.integers(0, 1), max_size=6).map(tuple), min_size=4, max_size=4),
    )
    def step(self, guesses: list[tuple[int, ...]] | None = None) -> None:
        """Plan and carry a step out; with guesses, what the step before gave is known first."""
        had_draft = any(len(gained) + void > 1 for gained, void in self.in_flight.values())
        if guesses is not None or had_draft:
            self.deliver()
        plan = self.books.plan()
        if guesses is not None:
            named = zip([each.request_id for each in plan.decodes], guesses, strict=False)
            plan = self.books.add_drafts(plan, dict(named))
        assert sum(plan.tokens.values()) <= self.limits.token_budget
        assert len({decode.slot for decode in plan.decodes}) == len(plan.decodes)
        if plan.decodes and plan.chunks and set(self.done) & {d.request_id for d in plan.decodes}:
            assert max(chunk.length for chunk in plan.chunks) <= self.limits.chunk_tokens
        for departure in plan.departed:
            assert self.slot_of.pop(departure.request_id) == departure.slot
            done = self.done.pop(departure.request_id)
            asked, max_tokens = self.asked[departure.request_id]
            if done == len(asked) + max_tokens - 1:
                self.complete.add(departure.request_id)
        for admission in plan.admitted:
            assert admission.slot not in self.slot_of.values()
            self.slot_of[admission.request_id] = admission.slot
            self.done[admission.request_id] = admission.cached_tokens
        for placement in plan.placements:
            chip = placement.slot % self.chips
            self.table[placement.slot, placement.index] = (chip, placement.page)
        for admission in plan.admitted:
            known = self.tokens[admission.request_id]
            for position in range(admission.cached_tokens):
                assert self.read(admission.slot, position) == tuple(known[: position + 1])
        sampled: dict[str, tuple[list[int], int]] = {}
        for chunk in plan.chunks:
            assert chunk.start == self.done[chunk.request_id]
            assert chunk.start % PAGE_SIZE == 0
            known = self.tokens[chunk.request_id]
            for position in range(chunk.start, chunk.start + chunk.length):
                self.write(chunk.slot, position, known[: position + 1])
            self.done[chunk.request_id] = chunk.start + chunk.length
        for decode in plan.decodes:
            request_id = decode.request_id
            known = [*self.tokens[request_id]]
            assert decode.is_known == (decode.position < len(known))
            if not decode.is_known:
                known += self.in_flight[request_id][0]
            assert decode.position == self.done[request_id] == len(known) - 1
            assert guesses is not None or not decode.draft
            fed = [*known, *decode.draft]
            for position in range(decode.position, len(fed)):
                self.write(decode.slot, position, fed[: position + 1])
            for position in range(len(fed)):
                assert self.read(decode.slot, position) == tuple(fed[: position + 1])
            self.done[request_id] = len(fed)
            gained = [(sum(known) + len(known)) % 2]
            for guess in decode.draft:
                if guess != gained[-1]:
                    break
                known.append(guess)
                gained.append((sum(known) + len(known)) % 2)
            sampled[request_id] = (gained, len(decode.draft) + 1 - len(gained))
            asked, max_tokens = self.asked[request_id]
            assert len(fed) < len(asked) + max_tokens
        if any(decode.draft for decode in plan.decodes):
            # Nothing may be planned before this is known; aborts may come in between.
            assert not self.in_flight
        else:
            self.deliver()
        self.in_flight = sampled
        if self.asked.keys() - self.complete - {d.request_id for d in plan.departed}:
            assert plan.tokens, "work is never stuck"

    def deliver(self) -> None:
        """The host learns what the step before sampled, and some requests end by it."""
        for request_id, (gained, rejected) in self.in_flight.items():
            if rejected:
                self.books.reject(request_id, rejected)
                self.done[request_id] -= rejected
            for token in gained:
                self.tokens[request_id].append(token)
                self.books.add_token(request_id, token)
        self.in_flight = {}
        for request_id in list(self.asked):
            asked, max_tokens = self.asked[request_id]
            generated = len(self.tokens[request_id]) - len(asked)
            is_scored = max_tokens == 0 and request_id in self.complete
            if is_scored or (max_tokens and generated == max_tokens):
                self.drop(request_id)

    def read(self, slot: int, position: int) -> tuple[int, ...] | None:
        return self.cache.get((self.table[slot, position // PAGE_SIZE], position % PAGE_SIZE))

    def write(self, slot: int, position: int, tokens: list[int]) -> None:
        page = self.table[slot, position // PAGE_SIZE]
        self.cache[page, position % PAGE_SIZE] = tuple(tokens)

    def drop(self, request_id: str) -> None:
        self.books.remove(request_id)
        del self.asked[request_id]
        del self.tokens[request_id]
        self.complete.discard(request_id)
        for books in (self.in_flight, self.slot_of, self.done):
            books.pop(request_id, None)

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "books"):
            return
        self.books.check()
        assert all(request_id in self.books for request_id in self.asked)
        assert len(self.books) == len(self.asked)
        places = self.books.num_waiting + self.books.num_running
        assert places == len(self.asked.keys() - self.complete)
        assert self.books.computed_tokens == sum(self.done.values())

    def teardown(self) -> None:
        """Whatever happened, the rest runs to its end and every slot and page comes back."""
        if not hasattr(self, "books"):
            return
        for _ in range(2000):
            if not self.asked:
                break
            self.step()
        assert not self.asked
        self.books.check()
        assert (self.books.num_waiting, self.books.num_running) == (0, 0)
        assert self.books.pool.held == 0


SchedulerMachine.TestCase.settings = settings(max_examples=300, stateful_step_count=40)
TestSchedulerMachine = SchedulerMachine.TestCase
