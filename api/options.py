"""Command-line options and environment variables derived from frozen dataclasses.

A configuration dataclass is the only place where a field's name, type, default and help stand. The
help is the field's line in the docstring's `Attributes:` section. From each field come one option
(`--max-slots`) and one environment variable (`TALIPOT_MAX_SLOTS`). A field that is itself a
dataclass contributes its fields in place, under a help panel of its own.

A field's metadata may say `argument=True` (positional), `flag="-m"` (a shorter name of it),
`panel="Server"` (help panel; on a nested dataclass: of all its fields) and, on a nested
dataclass, `only=(...)` (which of its fields become options).
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any, TypeVar

import typer

ENV_PREFIX = "TALIPOT_"

Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One field of a configuration as the command line shows it.

    Attributes:
        path: Names of the nested dataclass fields that lead to it, itself last.
        annotation: The field's resolved type.
        default: Its default; `inspect.Parameter.empty` when it is required.
        help: One line for people.
        panel: Heading that it stands under in `--help`.
        is_argument: Whether it is positional.
        short_flag: Another, shorter name of the option, if any.
    """

    path: tuple[str, ...]
    annotation: Any
    default: Any
    help: str
    panel: str | None
    is_argument: bool
    short_flag: str | None

    @property
    def name(self) -> str:
        """The field's own name."""
        return self.path[-1]

    @property
    def env(self) -> str:
        """The environment variable that sets it."""
        return ENV_PREFIX + self.name.upper()

    def parameter(self) -> inspect.Parameter:
        """The typer parameter that sets it."""
        annotation, default = _command_line_type(self.annotation, self.default)
        described: dict[str, Any] = {
            "help": self.help,
            "envvar": self.env,
            "show_envvar": False,  # the rule stands once, in the command's own help
            "show_default": annotation is not bool,
            "rich_help_panel": self.panel,
        }
        if _is_tuple_of(int, self.annotation):
            described["metavar"] = "<int,int,...>"
        elif _is_tuple_of(str, self.annotation):
            described["metavar"] = "<str>"
        if self.is_argument:
            declared = typer.Argument(**described)
        else:
            declared = typer.Option(*self._flags(), **described)
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[annotation, declared],
        )

    def _flags(self) -> tuple[str, ...]:
        """`--name`, or for a switch that is on `--no-name` alone; then the shorter name."""
        flag = "--" + self.name.replace("_", "-")
        if self.annotation is bool and self.default is True:
            flag = f" /--no-{flag[2:]}"
        return (flag,) if self.short_flag is None else (flag, self.short_flag)


def settings_of(config: type[Any]) -> tuple[Setting, ...]:
    """Every setting of a configuration dataclass, nested ones in place.

    Raises:
        TypeError: Two fields share a name, so their options would too.
    """
    settings = tuple(_walk(config, None, (), None, None))
    names = [setting.name for setting in settings]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise TypeError(f"{config.__name__} declares the options {repeated} more than once")
    return settings


def from_options(config: type[Config]) -> Callable[[Callable[[Config], None]], Callable[..., None]]:
    """Turn a function of one configuration into a function that typer can make a command of."""
    settings = settings_of(config)

    def decorate(function: Callable[[Config], None]) -> Callable[..., None]:
        @functools.wraps(function)
        def command(**values: Any) -> None:
            function(build(config, values))

        parameters = [setting.parameter() for setting in settings]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters}
        return command

    return decorate


def build(config: type[Config], values: dict[str, Any]) -> Config:
    """The configuration that the option values describe; unnamed fields keep their defaults.

    Raises:
        TalipotError: A value is refused by the dataclass's own validation.
    """
    tree: dict[str, Any] = {}
    for setting in settings_of(config):
        if setting.name not in values:
            continue
        node = tree
        for parent in setting.path[:-1]:
            node = node.setdefault(parent, {})
        node[setting.name] = _field_value(setting.annotation, values[setting.name])
    return _construct(config, tree)


def _construct(config: type[Config], tree: dict[str, Any]) -> Config:
    hints = typing.get_type_hints(config)
    values = {
        name: _construct(hints[name], value) if _is_dataclass(hints[name]) else value
        for name, value in tree.items()
    }
    return config(**values)


def _walk(
    config: type[Any],
    instance: Any,
    parents: tuple[str, ...],
    panel: str | None,
    only: tuple[str, ...] | None,
) -> Iterator[Setting]:
    """Settings of a dataclass; `instance`, if given, holds the defaults instead of its fields."""
    hints = typing.get_type_hints(config)
    helps = attribute_docs(config)
    for field in dataclasses.fields(config):
        if only is not None and field.name not in only:
            continue
        path = (*parents, field.name)
        field_panel = field.metadata.get("panel", panel)
        default = _default(field) if instance is None else getattr(instance, field.name)
        if _is_dataclass(hints[field.name]):
            only_inside = field.metadata.get("only")
            yield from _walk(hints[field.name], default, path, field_panel, only_inside)
            continue
        yield Setting(
            path=path,
            annotation=hints[field.name],
            default=default,
            help=helps.get(field.name, ""),
            panel=field_panel,
            is_argument=field.metadata.get("argument", False),
            short_flag=field.metadata.get("flag"),
        )


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default


def attribute_docs(config: type[Any]) -> dict[str, str]:
    """Field name to its text in the `Attributes:` sections of a class and its bases."""
    docs: dict[str, str] = {}
    for base in reversed(config.__mro__):
        section = re.search(
            r"^Attributes:\n((?:[ ]{4}.*\n?|\n)+)", inspect.getdoc(base) or "", re.M
        )
        if section is None or base.__doc__ is None:
            continue
        for entry in re.finditer(
            r"^    (\w+)(?: \([^)]*\))?: (.+(?:\n     +\S.*)*)", section.group(1), re.M
        ):
            docs[entry.group(1)] = " ".join(entry.group(2).split())
    return docs


def _is_dataclass(annotation: Any) -> bool:
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def _is_tuple_of(item: type[Any], annotation: Any) -> bool:
    """Whether a field holds `tuple[item, ...]`, perhaps or None."""
    return any(
        typing.get_origin(part) is tuple and typing.get_args(part)[0] is item
        for part in (annotation, *typing.get_args(annotation))
    )


def _command_line_type(annotation: Any, default: Any) -> tuple[Any, Any]:
    """What typer is told: tuples of int become "1,2,3", tuples of str a repeatable option."""
    if _is_tuple_of(int, annotation):
        return (str | None), (None if default is None else ",".join(map(str, default)))
    if _is_tuple_of(str, annotation):
        return list[str], default if default is inspect.Parameter.empty else list(default)
    return annotation, default


def _field_value(annotation: Any, value: Any) -> Any:
    """The dataclass field's value from what typer parsed."""
    if _is_tuple_of(int, annotation) and isinstance(value, str):
        try:
            return tuple(int(part) for part in value.split(",") if part.strip())
        except ValueError:
            raise typer.BadParameter(f"{value!r} must be integers joined by commas") from None
    if _is_tuple_of(str, annotation):
        return tuple(value)
    return value
