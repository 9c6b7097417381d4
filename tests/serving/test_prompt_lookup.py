"""Guesses from earlier text, against a search of the whole text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serving.prompt_lookup import PromptLookup


def latest_follower(tokens: list[int]) -> int | None:
    """Where the token stands that followed the latest earlier 3-gram, else 2-gram, like the end."""
    for length in (3, 2):
        for start in range(len(tokens) - length - 1, -1, -1):
            if len(tokens) >= length and tokens[start : start + length] == tokens[-length:]:
                return start + length
    return None


@given(st.lists(st.integers(0, 2), max_size=12), st.lists(st.integers(0, 2), max_size=40))
def test_the_source_is_the_latest_place_until_it_fails(prompt: list[int], said: list[int]) -> None:
    lookup = PromptLookup(prompt, 0.0)
    tokens = list(prompt)
    source = latest_follower(tokens)
    for token in said:
        expected = None if source is None else tokens[source]
        assert lookup.has_guess == (source is not None)
        if source is not None:
            draft = lookup.draft(3)
            known = tokens[source : source + 3]
            assert draft[: len(known)] == tuple(known)
            assert len(draft) == 3
        assert lookup.push(token) == (None if expected is None else expected == token)
        tokens.append(token)
        if source is not None and expected == token:
            source += 1
        else:
            source = latest_follower(tokens)


def test_a_loop_is_drafted_beyond_its_end() -> None:
    lookup = PromptLookup([7, 8, 9, 7, 8, 9, 7], 0.0)
    assert lookup.draft(8) == (8, 9, 7, 8, 9, 7, 8, 9)


def test_acceptance_follows_what_held_and_nothing_else() -> None:
    lookup = PromptLookup([1, 2, 3], 0.5)
    assert lookup.push(4) is None
    assert lookup.acceptance == 0.5
    for token in (1, 2):
        lookup.push(token)
    assert lookup.draft(2) == (3, 4)
    assert lookup.push(3) is True
    assert lookup.acceptance > 0.5
    assert lookup.push(9) is False
    assert lookup.acceptance < 0.55
    assert lookup.draft(2) == ()
