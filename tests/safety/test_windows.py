import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from safety.scorers.windows import highest, windows


@given(st.lists(st.text("ab \ud800é", max_size=200), max_size=5), st.integers(8, 60))
def test_windows_cover_every_text_in_order(texts: list[str], size: int):
    pieces, owners = windows(texts, size)
    assert sorted(owners.tolist()) == owners.tolist()
    assert set(owners.tolist()) == set(range(len(texts)))
    assert all(len(piece) <= size for piece in pieces)
    for index, text in enumerate(texts):
        sound = text.replace("\ud800", "\ufffd")
        of_text = [piece for piece, owner in zip(pieces, owners, strict=True) if owner == index]
        at = 0
        for piece in of_text:
            found = sound.rfind(piece, 0, at + len(piece))
            assert found >= 0
            at = max(at, found + len(piece))
        assert at == len(sound)


def test_a_text_gets_the_highest_of_its_windows():
    scores = np.array([[0.1, 0.9], [0.5, 0.2], [0.3, 0.3]], np.float32)
    np.testing.assert_array_equal(
        highest(scores, np.array([0, 0, 1]), 3),
        np.array([[0.5, 0.9], [0.3, 0.3], [0, 0]], np.float32),
    )
