"""What commands over a corpus show while they read it, and how they fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from api.errors import MissingExtraError, SideError
from memorization.errors import MemorizationError


@contextmanager
def memorization_errors() -> Iterator[None]:
    """Show memorization's errors as ours, and name the extra that a missing package is in."""
    try:
        yield
    except MemorizationError as error:
        raise SideError(str(error), code=error.code) from error
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in ("api", "model", "memorization"):
            raise
        raise MissingExtraError(
            f"this command needs the package {error.name!r}; "
            "install it with: pip install 'talipot[memorization]'"
        ) from error


@contextmanager
def corpus_progress() -> Iterator[tuple[Callable[[int], None], Callable[[str], None]]]:
    """What to tell of characters that were read, and of the phase that begins."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TextColumn("{task.completed:,.0f} characters"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("reading", total=None)
        yield (
            lambda characters: progress.advance(task, characters),
            lambda phase: progress.update(task, description=phase),
        )
