"""`talipot plan`: its options, what people see, and its messages."""

import io
import json

import pytest
from rich.console import Console

from api.config import PlanConfig
from api.plan import make_plan, render
from api.quantities import parse_quantity
from model.errors import ConfigError
from tests.api.test_cli import talipot


def shown(config: PlanConfig) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render(make_plan(config)))
    return console.export_text()


def test_people_see_the_choice_the_times_and_every_candidate():
    text = shown(PlanConfig())
    for words in (
        "2d/batch on mesh 4x4x4",
        "28.88 ms a token",
        "80% of peak",
        "Communication",
        "Memory a chip",
        "chosen",
        "1d/heads",
        "gather-xyz/batch",
    ):
        assert words in text


def test_padding_is_shown_where_there_is_any():
    assert "32 heads to 35" in shown(PlanConfig(model="palm-62b", chips=7))
    assert "Padding" not in shown(PlanConfig())


def test_a_prefill_is_predicted_in_seconds():
    assert "s a prefill" in shown(PlanConfig(phase="prefill", batch=1))


def test_a_given_figure_takes_the_place_of_the_data_sheets():
    sheet = PlanConfig(
        chip="h100", hbm="32GB", bandwidth="1200GB/s", peak_flops="275T", interconnect="270GB/s"
    ).data_sheet()
    assert (sheet.hbm_bytes, sheet.hbm_bandwidth) == (32e9, 1200e9)
    assert (sheet.peak_flops, sheet.interconnect_bandwidth) == (275e12, 270e9)
    assert sheet.name == "h100 (changed)"
    assert PlanConfig().data_sheet().hbm_bytes == 32 * 2**30


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("32GB", "B", 32e9),
        ("32 GiB", "B", 32 * 2**30),
        ("1.2T", "B/s", 1.2e12),
        ("1200GB/s", "B/s", 1200e9),
        ("275TFLOP/s", "FLOP/s", 275e12),
        ("2.75e14", "FLOP/s", 2.75e14),
        (" 512k ", "B", 512e3),
    ],
)
def test_quantities_are_read(text, unit, value):
    assert parse_quantity("hbm", text, unit) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "unit"), [("", "B"), ("GB", "B"), ("3 apples", "B"), ("32GB/s", "B"), ("32GB", "B/s"),
                       ("-1GB", "B"), ("1iB", "B"), ("nan", "B")],
)  # fmt: skip
def test_what_is_no_quantity_is_refused_with_an_example(text, unit):
    with pytest.raises(ConfigError, match=r"hbm=.* must be a quantity such as "):
        parse_quantity("hbm", text, unit)


@pytest.mark.parametrize("text", ["0GB", "1e300", "1e999"])
def test_a_quantity_has_limits(text):
    with pytest.raises(ConfigError, match=rf"hbm='{text}' must be above 0 and at most 1e\+21 B"):
        parse_quantity("hbm", text, "B")


@pytest.mark.parametrize(
    ("field", "value"),
    [("chips", 0), ("chips", 65537), ("batch", 0), ("context", 0), ("context", (1 << 24) + 1)],
)
def test_settings_are_checked(field, value):
    with pytest.raises(ConfigError, match=f"{field}={value} must be from 1 to"):
        PlanConfig(**{field: value})


def test_an_unknown_chip_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"chip='abacus' must be one of \('tpu-v4', "):
        PlanConfig(chip="abacus")


def test_the_command_prints_json_for_programs():
    found = talipot("plan", "palm-540b", "--mesh", "4,4,4", "--json")
    assert json.loads(found.stdout)["chosen"] == "2d/batch"


def test_the_command_fails_where_nothing_fits_and_still_shows_why():
    found = talipot("plan", "palm-540b", "--chips", "8")
    assert found.returncode == 1
    assert "invalid_config" in found.stderr
    assert "no layout fits palm-540b on chips=8" in found.stderr
    assert "gather-xy/batch" in found.stdout
