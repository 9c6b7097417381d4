"""What tests need and a machine may lack: without it they are skipped, but fail where CI is set.

A check that silently does not run is none.
"""

from __future__ import annotations

import os

import pytest


def require(is_there: bool, otherwise: str) -> None:
    """Let the test go on if what it needs is there; `otherwise` says what is not."""
    if is_there:
        return
    if os.environ.get("CI"):
        pytest.fail(otherwise)
    pytest.skip(otherwise)
