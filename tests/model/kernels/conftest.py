"""What all tests of the kernels share."""

import pytest

from model import kernels
from tests.required import require


@pytest.fixture(autouse=True)
def _available() -> None:
    require(kernels.is_available(), f"no CPU kernels: {kernels.status().reason}")


@pytest.fixture(params=kernels.ISAS)
def isa(request: pytest.FixtureRequest) -> str:
    """Each level of instructions; those that the CPU lacks are answered by the next lower one."""
    return request.param
