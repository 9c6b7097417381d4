"""Finding the compiled kernels, and telling XLA about them.

The library is built by setup.py where there is a C++ compiler, and is plain C to Python: no symbol
of Python's is in it. Which instructions a call uses is decided when it runs, from what the CPU has.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import jax

from model.errors import KernelsUnavailableError

ISAS = ("portable", "avx2", "avx512", "avx512_dot")
"""Levels of CPU instructions, each with all that comes before it; `src/cpu.h` has the same."""

ISA_VARIABLE = "TALIPOT_KERNELS"
"""Environment variable: the highest level to use, or `off`. Unset is the best that the CPU has."""

_TARGETS = (
    "talipot_int8_matmul",
    "talipot_bf16_matmul",
    "talipot_f32_matmul",
    "talipot_paged_attention",
    "talipot_write_pages",
    "talipot_blocks",
)

_FOLDER = Path(__file__).parent


@dataclasses.dataclass(frozen=True, slots=True)
class KernelStatus:
    """Whether the kernels can be used.

    Attributes:
        isa: The level that calls use unless they ask for another; None if unavailable.
        reason: Why the kernels are unavailable, for people; None if they are available.
    """

    isa: str | None
    reason: str | None

    @property
    def is_available(self) -> bool:
        """Whether calls will work."""
        return self.isa is not None

    @property
    def is_fast(self) -> bool:
        """Whether they beat XLA, as far as it was measured: not with portable instructions."""
        return self.isa not in (None, ISAS[0])


@functools.cache
def status() -> KernelStatus:
    """Load and register the kernels, once for the process, and say what came of it.

    Raises:
        ValueError: TALIPOT_KERNELS names no level.
    """
    wanted = os.environ.get(ISA_VARIABLE) or ISAS[-1]
    if wanted == "off":
        return KernelStatus(None, f"{ISA_VARIABLE}=off")
    if wanted not in ISAS:
        raise ValueError(f"{ISA_VARIABLE}={wanted} is none of off, {', '.join(ISAS)}")
    try:
        best = ISAS.index(_load())
    # RuntimeError is XLA refusing a library that was built for another version of its interface.
    except (OSError, RuntimeError, KernelsUnavailableError) as error:
        return KernelStatus(None, str(error))
    return KernelStatus(ISAS[min(best, ISAS.index(wanted))], None)


def is_available() -> bool:
    """Whether the kernels are built, loaded and not turned off."""
    return status().is_available


def resolve_isa(isa: str | None) -> int:
    """The number by which the library knows a level; None is the level of `status()`.

    A level that the CPU lacks is answered by the best that it has.

    Raises:
        KernelsUnavailableError: There are no kernels here.
        ValueError: `isa` names no level.
    """
    found = status()
    if found.isa is None:
        raise KernelsUnavailableError(f"the CPU kernels are not available: {found.reason}")
    if isa is not None and isa not in ISAS:
        raise ValueError(f"isa={isa!r} is none of {', '.join(ISAS)}")
    return ISAS.index(found.isa if isa is None else isa)


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded library.

    Raises:
        KernelsUnavailableError: It was not built, or from other sources than those beside it.
        OSError: The system cannot load it.
    """
    candidates = [_FOLDER / f"_native{suffix}" for suffix in EXTENSION_SUFFIXES]
    path = next((path for path in candidates if path.exists()), None)
    if path is None:
        raise KernelsUnavailableError(
            "they were not built: install a C++17 compiler, then Talipot again"
        )
    loaded = ctypes.CDLL(str(path))
    loaded.talipot_sources.restype = ctypes.c_char_p
    expected = _sources_digest()
    if expected is not None and loaded.talipot_sources().decode() != expected:
        raise KernelsUnavailableError(
            f"{path.name} was built from other sources: install Talipot again"
        )
    return loaded


def _load() -> str:
    """Register every target with XLA; returns the best level of this CPU."""
    loaded = library()
    for target in _TARGETS:
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(loaded, target)), "cpu")
    return ISAS[loaded.talipot_best_isa()]


def _sources_digest() -> str | None:
    """As setup.py computes it; None where the package was installed without the sources."""
    folder = _FOLDER / "src"
    files = sorted([*folder.glob("*.cpp"), *folder.glob("*.h")])
    if not files:
        return None
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
