"""How long decode steps take, by their rows: measured at warm-up, corrected while serving."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, TypeVar

from serving.buckets import round_up

_Step = TypeVar("_Step")

Stepping: TypeAlias = Literal["pipelined", "synchronous"]
"""Whether a step is launched before or after the one before it is read."""

_REPEATS = 9
_LONGEST_MEASUREMENT_S = 0.25
# Weight of the newest step in a correction, and the most that one step may say: a pause is none.
_NEWEST_WEIGHT = 0.1
_LARGEST_CORRECTION = 3.0
# A correction that no step confirms fades so fast; then what it ruled out is tried again.
_FORGOTTEN_A_STEP = 0.002


@dataclasses.dataclass(kw_only=True)
class StepTimes:
    """Seconds of a decode step.

    Attributes:
        pipelined: By rows, each compiled number of them; the step before is read meanwhile.
        synchronous: The same; each step is read before the next is launched.
    """

    pipelined: Mapping[int, float]
    synchronous: Mapping[int, float]
    _corrections: dict[Stepping, float] = dataclasses.field(default_factory=dict, init=False)

    @property
    def rows(self) -> tuple[int, ...]:
        """The compiled numbers of rows, rising."""
        return tuple(sorted(self.pipelined))

    def seconds(self, rows: int, stepping: Stepping) -> float:
        """What a step of so many rows probably takes."""
        # What only one way of stepping has shown (longer contexts, Python's part) holds for both.
        correction = self._corrections.get(stepping, next(iter(self._corrections.values()), 1.0))
        return self._measured(rows, stepping) * correction

    def record(self, rows: int, stepping: Stepping, seconds: float) -> None:
        """Learn what a step took, from the reading of the one before to its own."""
        found = min(seconds / self._measured(rows, stepping), _LARGEST_CORRECTION)
        old = self._corrections.get(stepping, found)
        self._corrections[stepping] = old + _NEWEST_WEIGHT * (found - old)
        for other, value in self._corrections.items():
            if other != stepping:
                known = self._corrections[stepping]
                self._corrections[other] = value + _FORGOTTEN_A_STEP * (known - value)

    def _measured(self, rows: int, stepping: Stepping) -> float:
        times = self.pipelined if stepping == "pipelined" else self.synchronous
        return times[round_up(rows, self.rows)]


def measure(launch: Callable[[], _Step], wait: Callable[[_Step], object]) -> tuple[float, float]:
    """Seconds of a step, pipelined and synchronous; the median of a few each."""
    wait(launch())
    synchronous: list[float] = []
    begun = time.perf_counter()
    while len(synchronous) < _REPEATS and time.perf_counter() - begun < _LONGEST_MEASUREMENT_S:
        started = time.perf_counter()
        wait(launch())
        synchronous.append(time.perf_counter() - started)
    pipelined: list[float] = []
    step = launch()
    last = begun = time.perf_counter()
    while len(pipelined) < _REPEATS and time.perf_counter() - begun < _LONGEST_MEASUREMENT_S:
        following = launch()
        wait(step)
        step, now = following, time.perf_counter()
        pipelined.append(now - last)
        last = now
    wait(step)
    return statistics.median(pipelined), statistics.median(synchronous)
