"""How people reach Talipot: the HTTP and gRPC doors and the command line.

The only place where the other packages are wired together.
"""

from __future__ import annotations

import os

# Read by NumPy's BLAS when it is loaded. Its threads spin while they wait, against those that the
# model computes with: a scorer beside a full engine is five times slower with two than with one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
