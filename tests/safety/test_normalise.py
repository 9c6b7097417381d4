import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from safety.scorers.embedded.words import WordReader, split_words
from safety.scorers.normalise import normalise, normalised


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Plain words", "plain words"),
        ("f\u200bu\u00adck", "fuck"),
        ("f\u0430gg\u043et", "faggot"),  # two Cyrillic letters
        ("\uff46\uff55\uff4c\uff4c \U0001d4f1\U0001d4ea\U0001d4fd\U0001d4ee", "full hate"),
        ("k1ll that b1tch", "kill that bitch"),
        ("$hit a$$ sh!t", "shit ass shit"),
        ("1st of 300, h20 at 10:45, $5", "1st of 300, h20 at 10:45, $5"),
        ("wow!great", "wow!great"),
        ("soooo stuuuupid", "soo stuupid"),
        ("F.U.C.K you", "fuck you"),
        ("na\u00efve caf\u00e9", "naive cafe"),
        ("x\ud800y", "x\ufffdy"),
        ("\u041f\u0440\u0438\u0432\u0435\u0442", "\u043f\u0440\u0438\u0432\u0435\u0442"),
    ],
)
def test_undoes_tricks_and_leaves_the_rest(text: str, expected: str):
    assert normalised(text) == expected


def test_a_span_maps_back_to_what_was_written():
    original = "oh f\u200bu\u200bck it"
    text = normalise(original)
    at = text.text.index("fuck")
    start, end = text.original_span(at, at + 4)
    assert original[start:end] == "f\u200bu\u200bck"


def test_a_span_outside_is_refused():
    with pytest.raises(ValueError, match="span 0:9"):
        normalise("abc").original_span(0, 9)


@given(st.text(st.characters(exclude_categories=()), max_size=80))
def test_any_text_maps_back_in_order(text: str):
    result = normalise(text)
    assert result.text == normalised(text)
    assert len(result.starts) == len(result.ends) == len(result.text)
    assert result.starts == sorted(result.starts)
    assert all(0 <= s < e <= len(text) for s, e in zip(result.starts, result.ends, strict=True))
    result.text.encode("utf-8")  # no surrogate is left


TRICKY = st.text(st.sampled_from("abF Z  .-_*/!$@014\n\t\u00a0\u200bé\u0430'\"?"), max_size=40)


@given(st.one_of(TRICKY, st.text(st.characters(exclude_categories=()), max_size=40)))
@example("f u c k")
@example('"f u c" k')
@example("a b\u00a0c d")
@example("$a b c, d")
def test_words_that_are_remembered_are_those_that_are_read(text: str):
    expected = split_words(normalised(text))
    read = WordReader()
    assert read(text) == expected
    assert read(text) == expected  # from memory
