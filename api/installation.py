"""Start-up check: are the packages that we import the ones that we shipped?

Talipot's import names are short (`model`, `safety`, …), and PyPI has a package that also installs
`safety`. Mixed code would fail in strange places, so a clear error comes first.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from api.errors import StartupError

PACKAGES = ("api", "serving", "model", "safety", "memorization")
_ADVICE = "Install Talipot in an environment of its own."


def version() -> str:
    """The installed version of Talipot."""
    try:
        return importlib.metadata.version("talipot")
    except importlib.metadata.PackageNotFoundError:
        return "unknown (run from a source tree that is not installed)"


def check_packages(packages: Sequence[str] = PACKAGES) -> None:
    """Check that every package comes from the folder of this installation and is unchanged.

    Raises:
        StartupError: A package is missing, comes from another folder, or was overwritten by
            another distribution after Talipot's installation.
    """
    home = Path(__file__).resolve().parent.parent
    recorded = _recorded_hashes()
    for package in packages:
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise StartupError(f"package {package!r} is not installed. {_ADVICE}")
        origin = Path(spec.origin).resolve()
        expected = home / package / "__init__.py"
        if origin != expected:
            raise StartupError(
                f"package {package!r} is imported from {origin}, expected {expected}: "
                f"another distribution installs the same name. {_ADVICE}"
            )
        digest = recorded.get(f"{package}/__init__.py")
        if digest is not None and digest != _sha256(origin):
            raise StartupError(
                f"package {package!r}: {origin} is not the file that Talipot installed: "
                f"another distribution has overwritten it. {_ADVICE}"
            )


def _recorded_hashes() -> dict[str, str]:
    """Path to urlsafe base64 sha256, as pip recorded them; empty for a development install."""
    try:
        files = importlib.metadata.files("talipot") or ()
    except importlib.metadata.PackageNotFoundError:
        return {}
    return {
        file.as_posix(): file.hash.value
        for file in files
        if file.hash is not None and file.hash.mode == "sha256"
    }


def _sha256(path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")
