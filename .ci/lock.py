"""Write the lock files: exact versions of all that serving, the tests and accelerators need.

Asks pip to resolve pyproject.toml's ranges without installing anything: first for the tests, then
for serving within the tests' versions, so that both locks agree; then for each kind of accelerator
within both, and keeps what it needs beside serve.txt.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / ".ci" / "lock"
HEADER = "# Written by `make lock`; exact versions of all that is needed, without index or host.\n"
# The release that has a CPU build at hand; a later one would bring gigabytes of CUDA packages.
TORCH = "torch==2.13.0"
# The build backend, so that the project itself installs without an environment for building.
BACKEND = "setuptools>=77"
# Extras of pyproject.toml; an image of docker/ installs the lock of one after serve.txt.
ACCELERATORS = ("cuda13", "cuda12", "tpu")


def resolve(*requirements: str) -> list[str]:
    """Lines `name==version` of `requirements` and all that they need, the project left out."""
    command = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"),
        *("--dry-run", "--ignore-installed", "--report", "-", *requirements),
    ]
    run = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE)
    found = [package["metadata"] for package in json.loads(run.stdout)["install"]]
    return sorted(
        # Platform builds carry a local version (1.2+cpu) that another machine need not have.
        f"{metadata['name'].lower().replace('_', '-')}=={metadata['version'].split('+')[0]}"
        for metadata in found
        if metadata["name"] != "talipot"
    )


def write(name: str, lines: list[str]) -> None:
    """Write a lock file."""
    (LOCKS / f"{name}.txt").write_text(HEADER + "\n".join(lines) + "\n")
    print(f"{name}.txt: {len(lines)} packages")


def main() -> None:
    """Write test.txt, serve.txt and a lock for each kind of accelerator."""
    test = resolve(".[test]", TORCH, BACKEND)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("\n".join(test))
        constraints.flush()
        serve = resolve(".", BACKEND, "--constraint", constraints.name)
        accelerators = {
            name: resolve(f".[{name}]", "--constraint", constraints.name) for name in ACCELERATORS
        }
    write("test", test)
    write("serve", serve)
    for name, lines in accelerators.items():
        write(name, [line for line in lines if line not in serve])


if __name__ == "__main__":
    main()
