"""Builds the CPU kernels where a C++ compiler is at hand; pyproject.toml has all else.

Without a compiler the installation goes on, and `model.kernels.status()`,
`memorization.kernels.status()` and `safety.kernels.status()` say what is missing.
"""

import hashlib
import importlib.util
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent


def ffi_headers() -> list[str]:
    """Where jaxlib keeps the headers of XLA's foreign function interface; not imported for it."""
    spec = importlib.util.find_spec("jaxlib")
    locations = [] if spec is None else spec.submodule_search_locations or []
    return [str(Path(location) / "include") for location in locations]


def kernels(package: str, *arguments: str) -> Extension:
    """A plain shared library: it needs no header of Python, and serves every version of it."""
    folder = Path(*package.split("."), "src")
    found = [*(ROOT / folder).glob("*.cpp"), *(ROOT / folder).glob("*.h")]
    # In an order that does not depend on the file system.
    files = [file.relative_to(ROOT) for file in sorted(found)]
    digest = hashlib.sha256(b"".join((ROOT / file).read_bytes() for file in files)).hexdigest()
    return Extension(
        f"{package}._native",
        sources=[str(file) for file in files if file.suffix == ".cpp"],
        depends=[str(file) for file in files if file.suffix == ".h"],
        include_dirs=[str(folder)],
        define_macros=[("TALIPOT_SOURCES", f'"{digest}"')],
        extra_compile_args=[
            "-std=c++17",
            # Python's own flags may say otherwise, and may name the builder's CPU.
            "-O2",
            "-g0",
            "-fvisibility=hidden",
            # Vectors wider than the baseline's are passed in inlined functions alone.
            "-Wno-psabi",
            *arguments,
        ],
        language="c++",
        optional=True,
    )


setup(
    ext_modules=[
        kernels(
            "model.kernels",
            # A product and a sum become one instruction where the source says so, and nowhere
            # else: the same row must not round differently in two loops.
            "-ffp-contract=off",
            # GCC's own headers of AVX-512 intrinsics set it off.
            "-Wno-maybe-uninitialized",
            "-Wno-uninitialized",
            *(f"-isystem{path}" for path in ffi_headers()),
        ),
        kernels("memorization.kernels"),
        # Loops over a row's floats are written plainly; a product and a sum may be one instruction.
        kernels("safety.kernels", "-O3", "-ffp-contract=fast"),
    ]
)
