"""A memory of the tokens of words."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from memorization.kernels.library import library

_CAPACITY = 1 << 15
_LONGEST_UNIT = 64  # bytes, as in src/units.cpp
_MAX_REMEMBERED = 1 << 20

EncodeUnits: TypeAlias = Callable[[bytes, NDArray[np.int64]], tuple[bytes, NDArray[np.int64]]]


class UnitTokens:
    """Tokens of texts, unit by unit; `memorization.encode` says what a unit is.

    Not for several threads at once.
    """

    def __init__(self, encode_units: EncodeUnits, encode_long: Callable[[str], bytes]) -> None:
        """Remember nothing yet.

        Args:
            encode_units: Gives units their stored tokens: from the units, one behind the other in
                UTF-8, and the bytes of each, int64[units], the tokens likewise. The units stand in
                one text in this order.
            encode_long: Gives those of a unit that is too long to come again.
        """
        self._encode_units = encode_units
        self._encode_long = encode_long
        self._units: int = library().talipot_units_new()
        weakref.finalize(self, library().talipot_units_free, self._units)
        self._numbers = np.empty(_CAPACITY, np.uint32)
        self._fresh = np.empty(_CAPACITY * _LONGEST_UNIT, np.uint8)
        self._fresh_sizes = np.empty(_CAPACITY, np.int64)

    def __call__(self, text: str) -> bytes:
        """Stored tokens of a text."""
        data = text.encode("utf-8", "surrogatepass")
        at, parts, ends = 0, [], np.zeros(2, np.int64)
        while at < len(data):
            parts.append(self._next(data, at, ends))
            at, long_end = ends.tolist()
            if long_end:
                parts.append(self._encode_long(data[at:long_end].decode("utf-8", "surrogatepass")))
                at = long_end
        return b"".join(parts)

    def _next(self, data: bytes, at: int, ends: NDArray[np.int64]) -> bytes:
        """Tokens of some of the units from `at` on; `ends` receives where they end."""
        known = library().talipot_units_size(self._units)
        if known >= _MAX_REMEMBERED:
            self._clear()
            known = 0
        count = library().talipot_units_split(
            *(self._units, data, len(data), at, _CAPACITY, self._numbers.ctypes.data),
            *(ends.ctypes.data, self._fresh.ctypes.data, self._fresh_sizes.ctypes.data),
        )
        self._learn(library().talipot_units_size(self._units) - known)
        numbers = self._numbers.ctypes.data
        size = library().talipot_units_tokens(self._units, numbers, count, None)
        tokens = np.empty(size, np.uint8)
        library().talipot_units_tokens(self._units, numbers, count, tokens.ctypes.data)
        return tokens.tobytes()

    def _learn(self, fresh: int) -> None:
        if not fresh:
            return
        sizes = self._fresh_sizes[:fresh]
        try:
            tokens, token_sizes = self._encode_units(self._fresh[: sizes.sum()].tobytes(), sizes)
        except BaseException:
            # Units without tokens must not stay.
            self._clear()
            raise
        token_sizes = np.ascontiguousarray(token_sizes, np.int64)
        library().talipot_units_learn(self._units, tokens, fresh, token_sizes.ctypes.data)

    def _clear(self) -> None:
        library().talipot_units_clear(self._units)
