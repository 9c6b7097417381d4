"""Host arrays that a CPU device can take over without a copy."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

HostArray: TypeAlias = np.ndarray[Any, np.dtype[Any]]

# XLA's CPU devices use a host buffer in place when it is aligned to this, and copy it otherwise.
_ALIGNMENT_BYTES = 64


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> HostArray:
    """An uninitialised array in memory aligned for XLA."""
    num_bytes = math.prod(shape) * dtype.itemsize
    memory = np.empty(num_bytes + _ALIGNMENT_BYTES, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT_BYTES
    return memory[start : start + num_bytes].view(dtype).reshape(shape)


def aligned_copy(array: HostArray, dtype: np.dtype[Any]) -> HostArray:
    """A contiguous, aligned copy as `dtype`; the array itself where it is all that already."""
    is_ready = array.flags.c_contiguous and array.dtype == dtype
    if is_ready and array.ctypes.data % _ALIGNMENT_BYTES == 0:
        return array
    copy = aligned_empty(array.shape, dtype)
    copy[...] = array
    return copy
