"""What a batch has still to do: requests never sent, those to send again, those under way."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Iterator

from api.grpc.talipot.v1 import generation_pb2 as pb


@dataclasses.dataclass(slots=True)
class Attempt:
    """A request, and how often the server has put it off."""

    item: pb.GenerateBatchRequest
    refusals: int = 0


class Work:
    """Gives out requests; each is in exactly one place until it is finished.

    Times are seconds on any clock that the caller keeps to.
    """

    def __init__(self, items: Iterator[pb.GenerateBatchRequest]) -> None:
        """`items` is read one by one, as requests are taken."""
        self._fresh = items
        self._again: list[tuple[float, int, Attempt]] = []
        self._numbers = itertools.count()  # of two for the same time the first put back comes first
        self._under_way: dict[str, Attempt] = {}

    @property
    def under_way(self) -> int:
        """Requests taken and neither finished nor put back."""
        return len(self._under_way)

    def take(self, now_s: float) -> Attempt | float | None:
        """A request to send; or the time when there will be one; or None if all were taken."""
        if self._again and self._again[0][0] <= now_s:
            return self._start(heapq.heappop(self._again)[-1])
        item = next(self._fresh, None)
        if item is not None:
            return self._start(Attempt(item))
        return self._again[0][0] if self._again else None

    def find(self, name: str) -> Attempt | None:
        """The request under way with that id."""
        return self._under_way.get(name)

    def finish(self, name: str) -> None:
        """It has its answer."""
        del self._under_way[name]

    def put_back(self, name: str, ready_s: float) -> None:
        """It is to be sent again, from `ready_s` on."""
        heapq.heappush(self._again, (ready_s, next(self._numbers), self._under_way.pop(name)))

    def put_all_back(self, ready_s: float) -> None:
        """The connection is gone, and nothing under way will be answered."""
        for name in list(self._under_way):
            self.put_back(name, ready_s)

    def _start(self, attempt: Attempt) -> Attempt:
        self._under_way[attempt.item.id] = attempt
        return attempt
