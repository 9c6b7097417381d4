import dataclasses
from pathlib import Path
from typing import Literal

import pytest
import typer
from typer.testing import CliRunner

from api.config import (
    BatchConfig,
    ExportConfig,
    GenerateConfig,
    InfoConfig,
    PlanConfig,
    ServeConfig,
    TrainConfig,
)
from api.options import attribute_docs, from_options, settings_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    """Inner settings.

    Attributes:
        size: How big
            it is.
        buckets: Sizes.
        hidden: Not an option.
    """

    size: int = 3
    buckets: tuple[int, ...] = (1, 2)
    hidden: int = 7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    """Outer settings.

    Attributes:
        path: Where.
        color: Which.
        words: Some.
        is_on: Whether.
        inner: The rest.
    """

    path: Path = dataclasses.field(metadata={"argument": True})
    color: Literal["red", "blue"] = "red"
    words: tuple[str, ...] = ()
    is_on: bool = True
    inner: Inner = dataclasses.field(
        default_factory=lambda: Inner(size=5),
        metadata={"panel": "Inner", "only": ("size", "buckets")},
    )


def run(arguments: list[str], env: dict[str, str] | None = None) -> Outer:
    seen: list[Outer] = []
    app = typer.Typer()
    app.command()(from_options(Outer)(seen.append))
    result = CliRunner().invoke(app, arguments, env=env)
    if result.exit_code:
        raise SystemExit(result.output)
    return seen[0]


def test_defaults_come_from_the_dataclass():
    assert run(["/a"]) == Outer(path=Path("/a"))


def test_options_set_fields_of_every_kind():
    config = run(
        [
            *("/a", "--color", "blue", "--words", "x", "--words", "y", "--no-is-on"),
            *("--size", "9", "--buckets", "4,8"),
        ]
    )
    assert config == Outer(
        path=Path("/a"),
        color="blue",
        words=("x", "y"),
        is_on=False,
        inner=Inner(size=9, buckets=(4, 8)),
    )


def test_environment_sets_fields_and_options_win():
    env = {"TALIPOT_SIZE": "11", "TALIPOT_COLOR": "blue", "TALIPOT_IS_ON": "false"}
    config = run(["/a", "--color", "red"], env)
    assert (config.inner.size, config.color, config.is_on) == (11, "red", False)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["/a", "--size", "many"], "--size"),
        (["/a", "--color", "green"], "green"),
        (["/a", "--buckets", "1,x"], "1,x"),
        (["/a", "--hidden", "1"], "--hidden"),
        ([], "path"),
    ],
)
def test_bad_values_are_refused_by_name(arguments, named):
    with pytest.raises(SystemExit) as stopped:
        run(arguments)
    assert named in str(stopped.value)


def test_help_is_the_docstring_line_of_each_field():
    assert attribute_docs(Inner)["size"] == "How big it is."


def test_a_name_that_appears_twice_is_refused():
    @dataclasses.dataclass(frozen=True)
    class Twice:
        """Twice.

        Attributes:
            size: One.
            inner: Two.
        """

        size: int = 1
        inner: Inner = dataclasses.field(default_factory=Inner)

    with pytest.raises(TypeError, match="size"):
        settings_of(Twice)


@pytest.mark.parametrize(
    "config",
    [
        ServeConfig,
        GenerateConfig,
        BatchConfig,
        TrainConfig,
        ExportConfig,
        InfoConfig,
        PlanConfig,
    ],
)
def test_every_setting_of_every_command_has_help(config):
    assert [setting.name for setting in settings_of(config) if not setting.help] == []
