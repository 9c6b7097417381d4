import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.errors import InvalidJsonError
from api.strict_json import parse_json

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
)


@given(JSON_VALUES)
def test_strict_json_reads_what_json_writes(value):
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"", "empty"),
        (b"{", "line 1 column 2"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": Infinity}', "Infinity"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e999}', "1e999"),
        (b'{"a": "\xff"}', "offset 7"),
        ('{"a": 1}'.encode("utf-16"), "UTF-8"),
        (b"[" * 100_000, "nested"),
        (b"1" * 5000, "5000 digits"),
    ],
)
def test_anything_else_is_refused_and_says_where(body, named):
    with pytest.raises(InvalidJsonError, match=named):
        parse_json(body)


@given(st.binary(max_size=64))
def test_any_bytes_give_a_value_or_a_typed_error(body):
    with contextlib.suppress(InvalidJsonError):
        parse_json(body)
