"""Optional dependencies: what to install where one is missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from api.errors import MissingExtraError
from api.installation import PACKAGES


@contextlib.contextmanager
def extra(name: str) -> Iterator[None]:
    """Turn a missing optional dependency into an error that says what to install.

    Raises:
        MissingExtraError: A package of the extra `name` is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in PACKAGES:
            raise
        raise MissingExtraError(
            f"this command needs the package {error.name!r}; "
            f"install it with: pip install 'talipot[{name}]'"
        ) from error
