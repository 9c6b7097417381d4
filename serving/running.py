"""Requests that run: who holds which slot, and which pages their slots' tables name."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from serving.page_pools import PagePools
from serving.scheduled import ScheduledRequest
from serving.step_plan import Departure, PagePlacement


class RunningRequests:
    """Slots and pages change hands here; entries of page tables are noted for the next plan."""

    def __init__(self, max_slots: int, pools: PagePools) -> None:
        """All slots and pages free."""
        self.pools = pools
        self._max_slots = max_slots
        self._requests: dict[str, ScheduledRequest] = {}
        # A heap for each chip: low slots first.
        self._free_slots = [list(range(chip, max_slots, len(pools))) for chip in range(len(pools))]
        self._placements: list[PagePlacement] = []

    def __len__(self) -> int:
        """Requests that hold a slot."""
        return len(self._requests)

    def __contains__(self, request_id: object) -> bool:
        """Whether a request holds a slot."""
        return request_id in self._requests

    def __iter__(self) -> Iterator[ScheduledRequest]:
        """Those that hold a slot."""
        return iter(self._requests.values())

    @property
    def free_slots(self) -> int:
        """Slots that nobody holds."""
        return sum(len(slots) for slots in self._free_slots)

    @property
    def open_chips(self) -> list[int]:
        """Chips that have a free slot."""
        return [chip for chip, slots in enumerate(self._free_slots) if slots]

    def on_chip(self, chip: int) -> int:
        """How many hold a slot of a chip."""
        return sum(1 for request in self if self.pools.chip_of(request.slot) == chip)

    def in_order(self) -> list[ScheduledRequest]:
        """Those that hold a slot; the first goes before the others."""
        return sorted(self, key=lambda request: request.order)

    def enter(
        self, request: ScheduledRequest, cached: list[int], wanted: int, chip: int = 0
    ) -> None:
        """Give a request a slot of a chip, the pages that were found for it, and `wanted` more.

        `cached` are held already; slot and pages must be there.
        """
        request.slot = heapq.heappop(self._free_slots[chip])
        request.prefill_end = len(request.tokens) - 1
        request.computed = len(cached) * self.pools.page_size
        request.registered = len(cached)
        self._requests[request.request_id] = request
        self._place(request, cached)
        self.grow(request, wanted)

    def grow(self, request: ScheduledRequest, pages: int) -> None:
        """Give a request more pages; they must be available."""
        self._place(request, self.pools.of(request).allocate(pages))

    def leave(self, request: ScheduledRequest, *, may_share: bool) -> Departure:
        """Take slot and pages from a request; what it `may_share` stays findable."""
        departure = Departure(request_id=request.request_id, slot=request.slot)
        pool = self.pools.of(request)
        if may_share:
            request.register(pool, request.computed)
        pool.release(request.pages)
        request.pages = []
        request.computed = request.registered = request.prefill_end = 0
        del self._requests[request.request_id]
        heapq.heappush(self._free_slots[self.pools.chip_of(request.slot)], request.slot)
        request.slot = -1
        return departure

    def take_placements(self) -> tuple[PagePlacement, ...]:
        """The entries of page tables that are new since the last call."""
        placements, self._placements = self._placements, []
        return tuple(placements)

    def faults(self) -> list[str]:
        """Which of its books do not balance."""
        used = [request.slot for request in self]
        free = [slot for slots in self._free_slots for slot in slots]
        held = [len(request.pages) * self.pools.page_size for request in self]
        checks = (
            ("slots", sorted(used + free) == list(range(self._max_slots))),
            (
                "computed tokens and pages",
                all(each.computed <= tokens for each, tokens in zip(self, held, strict=True)),
            ),
        )
        return [name for name, holds in checks if not holds]

    def _place(self, request: ScheduledRequest, pages: list[int]) -> None:
        first = len(request.pages)
        request.pages.extend(pages)
        self._placements.extend(
            PagePlacement(request.slot, first + index, page) for index, page in enumerate(pages)
        )
