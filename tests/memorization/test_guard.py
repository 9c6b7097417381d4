import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memorization.guard import MemorizationGuard, recited_tokens
from memorization.index import Span
from memorization.policy import MAX_SPAN_TOKENS, MIN_SPAN_TOKENS, MemorizationPolicy
from memorization.tracing import Tracer
from tests.memorization.exact_index import ExactIndex

TOKENS = st.lists(st.integers(0, 3), max_size=80)


def watch(index, tokens, sizes, **policy):
    """Feed tokens of three characters each; (tokens that left, was it blocked, report)."""

    async def run():
        tracer = Tracer(index, timeout_s=5)
        guard = MemorizationGuard(MemorizationPolicy(**policy), tracer)
        text, position, left = "", 0, 0
        pieces = [*sizes, len(tokens)]
        try:
            while True:
                size = pieces.pop(0) if pieces else len(tokens)
                piece = tokens[position : position + size]
                new = "".join(f"{token:03d}" for token in piece)
                ends = [(token, len(text) + 3 * (number + 1)) for number, token in enumerate(piece)]
                position += len(piece)
                is_last = position == len(tokens)
                verdict = await guard.inspect(text, new, ends, is_last=is_last)
                text += new
                assert left <= verdict.release_upto <= len(text)
                left = verdict.release_upto
                if verdict.action == "block" or is_last:
                    return left // 3, verdict.action == "block", guard.report()
        finally:
            tracer.close()

    return asyncio.run(run())


@given(TOKENS, TOKENS, st.lists(st.integers(1, 9), max_size=80))
def test_no_run_of_training_tokens_leaves_however_the_text_arrives(document, tokens, sizes):
    index = ExactIndex([document])
    left, is_blocked, report = watch(index, tokens, sizes, action="block", min_tokens=8)
    assert not index.longest_matches(tokens[:left], min_tokens=8)
    assert is_blocked == bool(index.longest_matches(tokens, min_tokens=8))
    assert report["verdict"] == ("blocked" if is_blocked else "passed")
    if not is_blocked:
        assert left == len(tokens)
    assert (left, is_blocked) == watch(index, tokens, [], action="block", min_tokens=8)[:2]


@given(TOKENS, TOKENS)
def test_annotate_lets_all_through_and_names_what_was_recited(document, tokens):
    index = ExactIndex([document])
    left, is_blocked, report = watch(index, tokens, [], action="annotate", min_tokens=8)
    assert (left, is_blocked) == (len(tokens), False)
    spans = index.longest_matches(tokens, min_tokens=8)
    assert report["verdict"] == ("flagged" if spans else "passed")
    assert [span["start"] for span in report["spans"]] == [3 * span.start for span in spans]
    assert [span["end"] for span in report["spans"]] == [3 * span.end for span in spans]
    assert report["near_duplicates"] is None


def test_a_run_is_named_with_its_document():
    index = ExactIndex([[9] * 5, list(range(40))])
    tokens = [7, 7, *range(10, 30), 8]
    _, _, report = watch(index, tokens, [], action="annotate", min_tokens=16)
    assert report["recited_tokens"] == 20
    assert report["spans"] == [
        {
            "start": 6,
            "end": 66,
            "tokens": 20,
            "max_tokens": 20,
            "count": 1,
            "documents": [{"document": "d1", "title": "Book 1", "source": "test", "offset": 10}],
        }
    ]
    left, _, report = watch(index, tokens, [1] * 30, action="block", min_tokens=16)
    assert left < 2 + 16
    (reason,) = report["reasons"]
    assert "consecutive training tokens of 'Book 1' reach min_tokens=16" in reason


@pytest.mark.parametrize(("action", "verdict"), [("annotate", "untraced"), ("block", "blocked")])
def test_an_index_that_is_away_blocks_and_leaves_annotations_untraced(action, verdict):
    index = ExactIndex([[1] * 20])
    index.is_away = True
    left, is_blocked, report = watch(index, [2] * 30, [5] * 6, action=action, min_tokens=8)
    assert report["verdict"] == verdict
    assert report["reasons"] == ["the index failed: the store does not answer"]
    assert (left, is_blocked) == ((30, False) if action == "annotate" else (0, True))


def test_tokens_of_overlapping_runs_are_counted_once():
    spans = [
        Span(start=start, length=10, max_length=10, count=1, occurrences=()) for start in (0, 5)
    ]
    assert recited_tokens(spans) == 15


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"action": "erase"}, ["action='erase'", "avoid"]),
        ({"min_tokens": MIN_SPAN_TOKENS - 1}, [f"min_tokens={MIN_SPAN_TOKENS - 1}", "8"]),
        ({"min_tokens": MAX_SPAN_TOKENS + 1}, [f"min_tokens={MAX_SPAN_TOKENS + 1}", "1024"]),
    ],
)
def test_errors_name_field_value_and_limit(fields, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the words are checked below)
        MemorizationPolicy(**fields)
    assert all(word in str(caught.value) for word in words)
