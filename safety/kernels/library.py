"""Finding the compiled kernels, which are plain C to Python."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import hashlib
import logging
import os
from ctypes import c_int32, c_int64, c_void_p
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

ISAS = ("portable", "avx2", "avx512")
"""Levels of CPU instructions, each with all that comes before it; `src/cpu.h` has the same."""

ISA_VARIABLE = "TALIPOT_KERNELS"
"""Environment variable that the model's kernels have too; their highest level is known here."""

_WANTED = {**{name: name for name in ISAS}, "avx512_dot": "avx512"}

_FUNCTIONS: dict[str, tuple[type | None, list[type]]] = {
    "talipot_best_isa": (c_int32, []),
    "talipot_network_new": (c_void_p, [c_int64, c_int64, *[c_void_p] * 4]),
    "talipot_network_free": (None, [c_void_p]),
    "talipot_network_add_block": (None, [c_void_p, c_void_p, c_void_p, c_int64]),
    "talipot_network_clear": (None, [c_void_p]),
    "talipot_network_learn": (c_int64, [c_void_p, c_void_p, c_int32]),
    "talipot_network_score": (None, [c_void_p, c_void_p, c_void_p, c_int64, c_void_p, c_int32]),
}

_FOLDER = Path(__file__).parent
_LOGGER = logging.getLogger("talipot.safety")


class _UnavailableError(Exception):
    """There is no library that fits; the message says what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class KernelStatus:
    """Whether the kernels can be used.

    Attributes:
        isa: The level of instructions that they use; None if unavailable.
        reason: Why they are unavailable, for people; None if they are available.
    """

    isa: str | None
    reason: str | None

    @property
    def is_available(self) -> bool:
        """Whether calls will work."""
        return self.isa is not None


@functools.cache
def status() -> KernelStatus:
    """Load the kernels, once for the process, and say what came of it.

    Raises:
        ValueError: TALIPOT_KERNELS names no level.
    """
    wanted = os.environ.get(ISA_VARIABLE) or ISAS[-1]
    if wanted == "off":
        return KernelStatus(None, f"{ISA_VARIABLE}=off")
    if wanted not in _WANTED:
        raise ValueError(f"{ISA_VARIABLE}={wanted} is none of off, {', '.join(_WANTED)}")
    try:
        best = library().talipot_best_isa()
    except (OSError, _UnavailableError) as error:
        _LOGGER.warning("the embedded scorer is slow, without its kernels: %s", error)
        return KernelStatus(None, str(error))
    return KernelStatus(ISAS[min(best, ISAS.index(_WANTED[wanted]))], None)


def is_available() -> bool:
    """Whether the kernels are built, loaded and not turned off."""
    return status().is_available


def level() -> int:
    """The number by which the library knows the level of instructions to use."""
    return ISAS.index(status().isa or ISAS[0])


@functools.cache
def library() -> ctypes.CDLL:
    """The loaded library, its functions declared."""
    candidates = [_FOLDER / f"_native{suffix}" for suffix in EXTENSION_SUFFIXES]
    path = next((path for path in candidates if path.exists()), None)
    if path is None:
        raise _UnavailableError("they were not built: install a C++17 compiler, then Talipot again")
    loaded = ctypes.CDLL(str(path))
    loaded.talipot_sources.restype = ctypes.c_char_p
    expected = _sources_digest()
    if expected is not None and loaded.talipot_sources().decode() != expected:
        raise _UnavailableError(f"{path.name} was built from other sources: install Talipot again")
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


def _sources_digest() -> str | None:
    """As setup.py computes it; None where the package was installed without the sources."""
    folder = _FOLDER / "src"
    files = sorted([*folder.glob("*.cpp"), *folder.glob("*.h")])
    if not files:
        return None
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
