import itertools

from hypothesis import given
from hypothesis import strategies as st

from serving.stop_strings import Match, StopMatcher

# Few letters, so that stop strings overlap themselves and each other.
TEXT = st.text(alphabet="abc", max_size=40)
STOPS = st.lists(st.text(alphabet="abc", min_size=1, max_size=6), max_size=4)


def truncate(text: str, stops: list[str]) -> tuple[str, str | None]:
    """What streaming must give, from the whole text: cut where a stop string is first complete."""
    ends = [
        (text.index(stop) + len(stop), text.index(stop), stop) for stop in stops if stop in text
    ]
    if not ends:
        return text, None
    _, start, stop = min(ends)
    return text[:start], stop


@given(TEXT, STOPS, st.lists(st.integers(0, 40), max_size=8))
def test_streaming_equals_truncating_the_whole_text(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    matcher = StopMatcher(stops)
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    released = ""
    found = None
    for start, end in itertools.pairwise(bounds):
        new, match = matcher.push(text[start:end])
        released += new
        assert text.startswith(released)
        if match is not None:
            found = match.stop
            break
        rest = text[len(released) : end]
        # Nothing is withheld longer than it must be.
        assert rest == "" or any(stop.startswith(rest) for stop in stops)
    else:
        released += matcher.flush()
    assert (released, found) == truncate(text, stops)


def test_a_stop_string_over_several_pushes() -> None:
    matcher = StopMatcher(["\n\nQ:"])
    assert matcher.push("Yes.\n") == ("Yes.", None)
    assert matcher.push("\n") == ("", None)
    assert matcher.push("A") == ("\n\nA", None)
    assert matcher.push("\n\nQ: no") == ("", Match("\n\nQ:"))


def test_flush_gives_back_what_was_withheld() -> None:
    matcher = StopMatcher(["END"])
    assert matcher.push("the EN") == ("the ", None)
    assert matcher.flush() == "EN"
    assert matcher.flush() == ""


def test_the_longest_of_those_that_end_together() -> None:
    assert StopMatcher(["b", "ab"]).push("xab") == ("x", Match("ab"))
    assert StopMatcher(["abcd", "bc"]).push("xabcd") == ("xa", Match("bc"))


def test_no_stop_strings_withhold_nothing() -> None:
    matcher = StopMatcher([])
    assert matcher.push("anything") == ("anything", None)
    assert matcher.flush() == ""


def test_long_repetitive_stop_strings_stay_cheap() -> None:
    stops = ["a" * length + "b" for length in range(960, 1024)]
    matcher = StopMatcher(stops)
    released, match = matcher.push("a" * 3000)
    assert match is None
    assert len(released) == 3000 - 1023
