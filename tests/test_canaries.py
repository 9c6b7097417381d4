"""The check that every session starts with does find what is wrong."""

from typing import Any

import numpy as np
import pytest

from model import kernels
from tests import canaries


def test_every_way_to_serve_is_tried():
    expected = {"float32", "int8 cache"}
    if kernels.is_available():
        expected |= {"int8 weights", "int8 weights and cache"}
    assert {way.name for way in canaries.ways()} == expected


@pytest.mark.parametrize("factor", [1.5, float("nan")])
def test_wrong_numbers_are_named(monkeypatch: pytest.MonkeyPatch, factor: float):
    plain = canaries.ways()[0]
    opened = canaries.open_way

    def open_broken(way: canaries.Way, params: Any):
        logits = opened(way, params)

        def broken(tokens: np.ndarray, chunk: int) -> np.ndarray:
            return logits(tokens, chunk) * (factor if chunk == 32 else 1.0)

        return broken

    monkeypatch.setattr(canaries, "open_way", open_broken)
    monkeypatch.setattr(canaries, "ways", lambda: [plain])
    wrong = canaries.check_numerics()
    assert len(wrong) == 1
    assert wrong[0].startswith("float32, chunks of 32: off by ")
