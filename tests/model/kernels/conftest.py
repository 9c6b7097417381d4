"""Skips these tests, and says why, where the kernels were not built."""

import pytest

from model import kernels


@pytest.fixture(autouse=True)
def _available() -> None:
    if not kernels.is_available():
        pytest.skip(f"no CPU kernels: {kernels.status().reason}")


@pytest.fixture(params=kernels.ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    """Each level of instructions; those that the CPU lacks are answered by the next lower one."""
    return request.param
