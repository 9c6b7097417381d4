"""What indexing and searching spend their time on, in C++: shingles, MinHash, suffixes, words.

They are compiled from `src/` when Talipot is installed, if a C++ compiler is there. Where there is
none, `is_available()` is False, `status()` says why, and callers take their numpy forms, which give
the same bits: an index that either made is the other's.

All of them leave Python's lock to other threads while they run.
"""

from memorization.kernels.library import KernelStatus, is_available, status
from memorization.kernels.minhash import minhash
from memorization.kernels.shingles import shingle_hashes
from memorization.kernels.suffixes import SuffixSearch
from memorization.kernels.units import UnitTokens

__all__ = [
    "KernelStatus",
    "SuffixSearch",
    "UnitTokens",
    "is_available",
    "minhash",
    "shingle_hashes",
    "status",
]
