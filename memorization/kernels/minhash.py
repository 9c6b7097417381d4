"""The least value of each window under each permutation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from memorization.kernels.library import level, library


def minhash(
    hashes: NDArray[np.uint32],
    starts: NDArray[np.int64],
    members: int,
    multiply: NDArray[np.uint32],
    add: NDArray[np.uint32],
) -> NDArray[np.uint32]:
    """Signatures of windows, uint32[windows, num_perm].

    Args:
        hashes: A hash of each shingle of a text, uint32[shingles].
        starts: First shingle of each window, int64[windows].
        members: Shingles of each window; `starts + members` lie within `hashes`.
        multiply: Factor of each permutation of the 32-bit numbers, odd, uint32[num_perm].
        add: What is added to the product, uint32[num_perm].
    """
    hashes, multiply, add = (np.ascontiguousarray(a, np.uint32) for a in (hashes, multiply, add))
    starts = np.ascontiguousarray(starts, np.int64)
    if len(starts) and not (starts.min() >= 0 and starts.max() + members <= len(hashes)):
        raise ValueError(
            f"windows of {members} shingles from {starts.min()} to {starts.max()} exceed the "
            f"text's {len(hashes)}"
        )
    signatures = np.empty((len(starts), len(multiply)), np.uint32)
    library().talipot_minhash(
        *(hashes.ctypes.data, starts.ctypes.data, len(starts), members),
        *(multiply.ctypes.data, add.ctypes.data, len(multiply), signatures.ctypes.data),
        level(),
    )
    return signatures
