"""One pool of pages, or one for each chip that has pages of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from serving.pages import PagePool
from serving.scheduled import ScheduledRequest


class PagePools:
    """Pools of equal size; slot s is on chip s modulo their number."""

    def __init__(self, pools: Sequence[PagePool]) -> None:
        """A pool for each chip, at least one."""
        self._pools = tuple(pools)
        self.page_size = pools[0].page_size

    def __len__(self) -> int:
        """Chips that have pages of their own."""
        return len(self._pools)

    def __iter__(self) -> Iterator[PagePool]:
        """The pools, by chip."""
        return iter(self._pools)

    def of(self, request: ScheduledRequest) -> PagePool:
        """The pool of a request that has a slot."""
        return self._pools[self.chip_of(request.slot)]

    def chip_of(self, slot: int) -> int:
        """Where a slot and its pages are."""
        return slot % len(self._pools)

    @property
    def capacity(self) -> int:
        """Pages that can be held."""
        return self._sum(lambda pool: pool.capacity)

    @property
    def available(self) -> int:
        """Pages that can be given out, on whatever chip."""
        return self._sum(lambda pool: pool.available)

    @property
    def held(self) -> int:
        """Pages that somebody holds."""
        return self._sum(lambda pool: pool.held)

    @property
    def findable(self) -> int:
        """Pages that are registered."""
        return self._sum(lambda pool: pool.findable)

    def check(self, running: Iterable[ScheduledRequest]) -> None:
        """Balance the books against the pages of the requests that have slots.

        Raises:
            InvariantError: As `PagePool.check`.
        """
        held: list[list[list[int]]] = [[] for _ in self._pools]
        for request in running:
            held[self.chip_of(request.slot)].append(request.pages)
        for pool, pages in zip(self._pools, held, strict=True):
            pool.check(pages)

    def _sum(self, count: Callable[[PagePool], int]) -> int:
        return sum(count(pool) for pool in self._pools)
