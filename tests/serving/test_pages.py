"""Pages: who holds which, what is found again, what is evicted, and that the books balance."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from serving.errors import InvariantError
from serving.pages import PagePool, next_digest

PAGE_SIZE = 2


def digests(*token_ids: int) -> list[bytes]:
    found = [b""]
    for start in range(0, len(token_ids), PAGE_SIZE):
        found.append(next_digest(found[-1], token_ids[start : start + PAGE_SIZE]))
    return found[1:]


def test_a_digest_says_every_token_before_it() -> None:
    one, other = digests(1, 2, 3, 4), digests(9, 2, 3, 4)
    assert one == digests(1, 2, 3, 4, 5, 6)[:2]
    assert not set(one) & set(other)
    # Token ids of several bytes do not run into each other.
    assert digests(1, 256) != digests(256, 1)


def test_pages_are_given_out_once_and_the_scratch_page_never() -> None:
    pool = PagePool(4, PAGE_SIZE)
    assert sorted(pool.allocate(3)) == [1, 2, 3]
    with pytest.raises(ValueError, match="1 pages wanted, 0 available"):
        pool.allocate(1)
    with pytest.raises(ValueError, match="num_pages=1"):
        PagePool(1, PAGE_SIZE)


def test_a_registered_page_is_found_until_its_place_is_needed() -> None:
    pool = PagePool(4, PAGE_SIZE)
    prefix = digests(1, 2, 3, 4)
    pages = pool.allocate(2)
    for page, digest in zip(pages, prefix, strict=True):
        pool.register(page, digest)
    pool.release(pages)
    assert (pool.available, pool.findable) == (3, 2)
    assert pool.find([*prefix, b"unknown", prefix[0]]) == pages
    # One page was never used; then the prefix loses its end first.
    pool.allocate(1)
    assert pool.find(prefix) == pages
    pool.allocate(1)
    assert pool.find(prefix) == pages[:1]


def test_a_held_page_is_never_evicted() -> None:
    pool = PagePool(3, PAGE_SIZE)
    (digest,) = digests(1, 2)
    (page,) = pool.allocate(1)
    pool.register(page, digest)
    pool.hold([page])
    pool.release([page])
    assert pool.available == 1
    pool.allocate(1)
    with pytest.raises(ValueError, match="available"):
        pool.allocate(1)
    assert pool.find([digest]) == [page]


def test_the_first_of_equal_pages_stays() -> None:
    pool = PagePool(3, PAGE_SIZE)
    (digest,) = digests(1, 2)
    first, second = pool.allocate(2)
    pool.register(first, digest)
    pool.register(second, digest)
    assert pool.find([digest]) == [first]
    pool.release([second])
    assert pool.available == 1


def test_check_finds_a_leak() -> None:
    pool = PagePool(3, PAGE_SIZE)
    pages = pool.allocate(1)
    pool.check([pages])
    with pytest.raises(InvariantError, match="holders do not balance"):
        pool.check([])


class PoolMachine(RuleBasedStateMachine):
    """Holders come, share, register and go; a plain model says what every page must hold."""

    @initialize(num_pages=st.integers(2, 12))
    def start(self, num_pages: int) -> None:
        self.pool = PagePool(num_pages, PAGE_SIZE)
        self.holders: list[tuple[list[bytes], list[int]]] = []
        self.content: dict[int, bytes] = {}  # what was last computed into a page

    @rule(tokens=st.lists(st.integers(0, 1), min_size=2, max_size=10))
    def arrive(self, tokens: list[int]) -> None:
        wanted = digests(*tokens[: len(tokens) // PAGE_SIZE * PAGE_SIZE])
        found = self.pool.find(wanted)
        for page, digest in zip(found, wanted, strict=False):
            assert self.content[page] == digest, "a found page holds other tokens"
        self.pool.hold(found)
        rest = wanted[len(found) :]
        if len(rest) > self.pool.available:
            self.pool.release(found)
            return
        new = self.pool.allocate(len(rest))
        assert 0 not in new
        held = {page for _, pages in self.holders for page in pages} | set(found)
        assert not held & set(new), "a page in use was given out again"
        for page, digest in zip(new, rest, strict=True):
            self.content[page] = digest
            self.pool.register(page, digest)
        self.holders.append((wanted, found + new))

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.holders:
            index = data.draw(st.integers(0, len(self.holders) - 1))
            self.pool.release(self.holders.pop(index)[1])

    @invariant()
    def the_books_balance(self) -> None:
        if hasattr(self, "pool"):
            self.pool.check(pages for _, pages in self.holders)
            held = {page for _, pages in self.holders for page in pages}
            assert self.pool.available == self.pool.capacity - len(held)


PoolMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=50)
TestPoolMachine = PoolMachine.TestCase
