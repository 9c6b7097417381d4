"""What the embedded scorer spends its time on, in C++.

It is compiled from `src/` when Talipot is installed, if a C++ compiler is there. Where there is
none, `is_available()` is False, `status()` says why, and the scorer computes the same in numpy.

Calls leave Python's lock to other threads while they run.
"""

from safety.kernels.library import KernelStatus, is_available, status
from safety.kernels.network import NetworkKernel

__all__ = ["KernelStatus", "NetworkKernel", "is_available", "status"]
