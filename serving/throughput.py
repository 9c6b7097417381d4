"""How fast the engine works through tokens, to tell refused clients when to come back."""

from __future__ import annotations

_SHORTEST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
_WINDOW_S = 10.0


class Throughput:
    """An average of tokens per second in which what happened `_WINDOW_S` ago has faded to 1/e."""

    def __init__(self) -> None:
        """Start without a measurement."""
        self._tokens = 0.0
        self._seconds = 0.0

    def record(self, tokens: int, seconds: float) -> None:
        """Count a step of `tokens` that took `seconds`."""
        keep = max(0.0, 1.0 - seconds / _WINDOW_S)
        self._tokens = self._tokens * keep + tokens
        self._seconds = self._seconds * keep + seconds

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second; 0 before the first measurement."""
        return self._tokens / self._seconds if self._seconds > 0 else 0.0

    def seconds_for(self, tokens: int) -> float:
        """Seconds in which `tokens` are probably done, between 1 and 60."""
        if self._tokens <= 0:
            return _SHORTEST_WAIT_S
        return min(_LONGEST_WAIT_S, max(_SHORTEST_WAIT_S, tokens / self.tokens_per_s))
