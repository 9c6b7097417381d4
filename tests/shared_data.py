"""The evaluation data that lies beside the project and is never part of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def shared_file(name: str) -> Path:
    """A file of the folder `shared` beside the checkout.

    Without it the test is skipped, but fails where CI is set: a check that silently does not run
    is none.
    """
    path = ROOT.parent / "shared" / name
    if not path.exists():
        message = f"{path} does not exist: this test reads evaluation data from there"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path
