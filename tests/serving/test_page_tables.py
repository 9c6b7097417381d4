"""Page tables as programs get them: rows lie on their slots' chips, and come back in order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.page_tables import PageTables, RowsByChip


def tables(chips: int, slots: int = 9) -> PageTables:
    """Slot s holds page 10·s + i + 1 at entry i."""
    made = PageTables(slots + 1, 3, chips)
    for slot in range(slots):
        for index in range(3):
            made.place(slot, index, 10 * slot + index + 1)
    return made


def test_one_chip_has_the_tables_as_they_are_and_scratch_behind() -> None:
    made = tables(1)
    assert made.for_prefill(2, 2).tolist() == [21, 22]
    assert made.rows_needed([0, 8]) == 2
    assert made.for_decode([8, 0], 4, 2).tolist() == [[81, 82], [1, 2], [0, 0], [0, 0]]


def test_a_prompts_table_is_on_its_slots_chip_alone() -> None:
    assert tables(4).for_prefill(6, 2).tolist() == [[0, 0], [0, 0], [61, 62], [0, 0]]


@given(slots=st.lists(st.integers(0, 8), min_size=1, max_size=12), chips=st.sampled_from([2, 4, 8]))
def test_every_row_is_on_its_slots_chip_and_finds_its_way_back(
    slots: list[int], chips: int
) -> None:
    made = tables(chips)
    rows = made.rows_needed(slots)
    assert rows % chips == 0
    by_chip = made.for_decode(slots, rows, 3)
    assert isinstance(by_chip, RowsByChip)
    assert by_chip.rows[by_chip.places].tolist() == list(range(rows))
    for row, slot in enumerate(slots):
        place = by_chip.places[row]
        assert place // (rows // chips) == slot % chips
        assert by_chip.tables[place].tolist() == made.of_slot(slot, 3).tolist()
    padding = by_chip.tables[by_chip.places[len(slots) :]]
    assert not np.any(padding)


def test_a_chip_takes_no_more_rows_than_it_has() -> None:
    with pytest.raises(ValueError, match="a chip has room for 1 rows"):
        tables(4).for_decode([1, 5], 4, 3)


def test_a_cleared_slot_holds_scratch() -> None:
    made = tables(1)
    made.clear(0)
    assert made.of_slot(0, 3).tolist() == [0, 0, 0]
