"""Which pages each slot has, on the host, and in the form in which programs want them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeAlias

import jax
import numpy as np
from numpy.typing import NDArray

from model.kv_cache import SCRATCH_PAGE

Ints: TypeAlias = NDArray[np.int32]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class RowsByChip:
    """A decode step's page tables where every chip has rows and pages of its own.

    Of B places, the first B / chips are the first chip's, and so on.

    Attributes:
        tables: int32[B, P], by place, in the numbers of the place's chip.
        rows: int32[B]; the step's row at each place.
        places: int32[B]; each row's place.
    """

    tables: jax.Array | Ints
    rows: jax.Array | Ints
    places: jax.Array | Ints


class PageTables:
    """A table for each slot and one for the scratch slot, which holds no page.

    With several chips, slot s and its pages are on chip s modulo their number.
    """

    def __init__(self, slots: int, pages_a_slot: int, chips: int) -> None:
        """Nobody holds a page; the last of `slots` is the scratch slot."""
        self._tables = np.full((slots, pages_a_slot), SCRATCH_PAGE, np.int32)
        self._chips = chips

    @property
    def pages_a_slot(self) -> int:
        """Entries of a table."""
        return int(self._tables.shape[1])

    def place(self, slot: int, index: int, page: int) -> None:
        """Enter a page."""
        self._tables[slot, index] = page

    def clear(self, slot: int) -> None:
        """Let a slot hold no page."""
        self._tables[slot] = SCRATCH_PAGE

    def of_slot(self, slot: int, pages: int) -> Ints:
        """int32[pages]: a copy of a table's beginning."""
        return self._tables[slot, :pages].copy()

    def for_prefill(self, slot: int, pages: int) -> Ints:
        """int32[pages]; with several chips int32[chips, pages], scratch but for the slot's chip."""
        if self._chips == 1:
            return self.of_slot(slot, pages)
        tables = np.full((self._chips, pages), SCRATCH_PAGE, np.int32)
        tables[slot % self._chips] = self._tables[slot, :pages]
        return tables

    def rows_needed(self, slots: Sequence[int]) -> int:
        """Rows of the smallest step that has room for these slots, each on its chip."""
        if self._chips == 1:
            return len(slots)
        return self._chips * int(np.bincount(np.asarray(slots) % self._chips).max())

    def for_decode(self, slots: Sequence[int], rows: int, pages: int) -> Ints | RowsByChip:
        """The tables of a step of `rows` rows, of which the first are those of `slots`.

        Returns:
            int32[rows, pages], or with several chips where each row and its table lie.

        Raises:
            ValueError: A chip has more of the slots than it has rows.
        """
        if self._chips == 1:
            scratch = len(self._tables) - 1
            padded = np.full(rows, scratch, np.int32)
            padded[: len(slots)] = slots
            return self._tables[padded, :pages]
        each = rows // self._chips
        free = [
            list(range((chip + 1) * each - 1, chip * each - 1, -1)) for chip in range(self._chips)
        ]
        places = np.empty(rows, np.int32)
        tables = np.full((rows, pages), SCRATCH_PAGE, np.int32)
        for row, slot in enumerate(slots):
            mine = free[slot % self._chips]
            if not mine:
                raise ValueError(f"a chip has room for {each} rows, and more of {list(slots)}")
            places[row] = mine.pop()
            tables[places[row]] = self._tables[slot, :pages]
        places[len(slots) :] = [place for rest in free for place in rest]
        at = np.empty(rows, np.int32)
        at[places] = np.arange(rows, dtype=np.int32)
        return RowsByChip(tables, at, places)
