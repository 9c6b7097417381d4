"""The evaluation data that lies beside the project and is never part of it."""

from __future__ import annotations

from pathlib import Path

from tests.required import require

ROOT = Path(__file__).resolve().parent.parent


def shared_file(name: str) -> Path:
    """A file of the folder `shared` beside the checkout; without it see `require`."""
    path = ROOT.parent / "shared" / name
    require(path.exists(), f"{path} does not exist: this test reads evaluation data from there")
    return path
