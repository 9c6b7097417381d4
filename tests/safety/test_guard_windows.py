import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety.windows import Window, Windows

ALPHABET = "ab .!?…\n\"')。 é"


def cut(text, token_ends, max_tokens, sizes=None):
    """The windows of a text whose tokens arrive so many at a time, each with its text."""
    windows = Windows(max_tokens)
    found = []
    position = 0
    for size in sizes or [len(token_ends) or 1]:
        ends = token_ends[position : position + size]
        position += size
        known = text[: max(ends, default=0)]
        found += windows.push(known, ends, is_last=False)
        assert windows.decided == (found[-1].end if found else 0)
    return found + windows.push(text, token_ends[position:], is_last=True)


@st.composite
def tokenized(draw):
    pieces = draw(st.lists(st.text(ALPHABET, max_size=4), max_size=60))
    ends, length = [], 0
    for piece in pieces:
        length += len(piece)
        ends.append(length)
    return "".join(pieces), ends


@given(tokenized(), st.integers(1, 9), st.lists(st.integers(1, 5), max_size=60))
def test_windows_do_not_depend_on_the_pieces_in_which_a_text_arrives(text, max_tokens, sizes):
    whole, ends = text
    at_once = cut(whole, ends, max_tokens)
    assert cut(whole, ends, max_tokens, [1] * len(ends)) == at_once
    assert cut(whole, ends, max_tokens, sizes) == at_once


@given(tokenized(), st.integers(1, 9))
def test_windows_cover_the_text_and_hold_no_more_tokens_than_they_may(text, max_tokens):
    whole, ends = text
    windows = cut(whole, ends, max_tokens)
    assert "".join(whole[window.start : window.end] for window in windows) == whole
    for window in windows:
        assert window.context <= window.start < window.end
        inside = [end for end in ends if window.start < end < window.end]
        assert len(inside) < max_tokens


@given(tokenized(), st.integers(1, 9))
def test_what_is_held_back_is_less_than_a_window(text, max_tokens):
    whole, ends = text
    windows = Windows(max_tokens)
    for index in range(len(ends)):
        windows.push(whole[: ends[index]], ends[index : index + 1], is_last=False)
        held = [end for end in ends[: index + 1] if end > windows.decided]
        assert len(held) < max_tokens or held[max_tokens - 1] > ends[index]


@given(tokenized(), st.integers(1, 9))
def test_windows_close_when_they_are_due_and_never_before(text, max_tokens):
    whole, ends = text
    eager, patient = Windows(max_tokens), Windows(max_tokens)
    seen = pushed = 0  # tokens
    for index in range(len(ends)):
        known = whole[: ends[index]]
        start = ends[pushed - 1] if pushed else 0
        due = patient.is_due(known[start:], index + 1 - pushed)
        closed = eager.push(known, ends[seen : index + 1], is_last=False)
        seen = index + 1
        assert due or not closed
        if due:
            assert patient.push(known, ends[pushed:seen], is_last=False) == closed
            pushed = seen


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("One. Two! Three", ["One.", " Two!", " Three"]),
        ('He said "no." Then 3.14 left.', ['He said "no."', " Then 3.14 left."]),
        ("你好。再见\uff01", ["你好。", "再见\uff01"]),
        ("A TITLE\n\nText", ["A TITLE\n\n", "Text"]),
        ("", []),
    ],
)
def test_sentences_end_windows(text, pieces):
    windows = cut(text, list(range(1, len(text) + 1)), 100)
    assert [text[window.start : window.end] for window in windows] == pieces


def test_a_window_is_scored_with_the_beginning_of_its_sentence():
    text = "Short. " + "word " * 9
    ends = list(range(1, len(text) + 1))
    windows = cut(text, ends, 20)
    assert windows[:3] == [Window(0, 0, 6), Window(6, 6, 26), Window(6, 26, 46)]
