"""Where a model lies: the models that come with the package, and folders."""

from __future__ import annotations

from pathlib import Path

import model
from model.checkpoint.native import CONFIG_FILE
from model.errors import CheckpointError


def embedded_names() -> list[str]:
    """The models that come with this installation."""
    return sorted(path.parent.name for path in _embedded_root().glob(f"*/{CONFIG_FILE}"))


def embedded_path(name: str) -> Path:
    """The folder of a model that comes with the package.

    Raises:
        CheckpointError: There is none of that name.
    """
    if name not in embedded_names():
        raise CheckpointError(
            f"no embedded model {name!r} in {_embedded_root()}; there: {embedded_names()}"
        )
    return _embedded_root() / name


def resolve_model(name_or_path: str | Path) -> Path:
    """The folder of a model given by an embedded model's name or by path.

    A name goes before a folder of the same name in the current directory; write `./name` for that.

    Raises:
        CheckpointError: It is neither; the message lists what was tried.
    """
    if name_or_path in embedded_names():
        return _embedded_root() / name_or_path
    folder = Path(name_or_path).expanduser()
    if (folder / CONFIG_FILE).is_file():
        return folder
    if not folder.exists():
        problem = "does not exist"
    else:
        problem = f"has no {CONFIG_FILE}" if folder.is_dir() else "is a file, not a folder"
    raise CheckpointError(
        f"no model {str(name_or_path)!r}: tried the embedded models {embedded_names()} and the "
        f"folder {folder.absolute()}, which {problem}"
    )


def _embedded_root() -> Path:
    return Path(model.__file__).parent / "embedded"
