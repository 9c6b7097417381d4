"""How figures are written in reports."""

import pytest

from api.audit.rendering.numbers import cell_text, value_text
from safety.audits.report import Estimate


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.123456, "percent", "12.3 %"),
        (-0.0456, "points", "\N{MINUS SIGN}4.6"),
        (0.0456, "points", "+4.6"),
        (-0.0001, "points", "0.0"),
        (-0.0002, "fraction", "0.000"),
        (-1.25, "fraction", "\N{MINUS SIGN}1.250"),
        (12345.67, "number", "12,345.7"),
        (0.0004, "p", "< 0.001"),
        (float("nan"), "percent", "\N{EN DASH}"),
    ],
)
def test_values(value, unit, text):
    assert value_text(value, unit) == text


def test_an_interval_is_in_the_unit_of_its_value():
    found = Estimate(0.2, -0.00001, 0.4, 10)
    assert cell_text(found, "percent") == ("20.0 %", "0.0 to 40.0")
    assert cell_text(found, "points") == ("+20.0", "0.0 to +40.0")
    assert cell_text(Estimate(0.2, n=10), "fraction") == ("0.200", "")
