"""Generate the gRPC stubs from their proto; `--check` only says whether they are up to date.

The proto's path from the repository's root is its import path, so that the generated modules
import each other by the names under which they ship.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = "api/grpc/talipot/v1/generation.proto"
STUBS = ("generation_pb2.py", "generation_pb2.pyi", "generation_pb2_grpc.py")


def generate(root: Path) -> None:
    """Write the stubs below `root`, where the proto's path leads."""
    outputs = [f"--{kind}={root}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    status = protoc.main(["protoc", f"--proto_path={ROOT}", *outputs, PROTO])
    if status:
        raise SystemExit(f"protoc failed on {PROTO} with status {status}")


def outdated() -> list[str]:
    """Stubs that differ from what the proto gives now."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        made = (Path(folder) / PROTO).parent
        kept = (ROOT / PROTO).parent
        return [name for name in STUBS if _read(made / name) != _read(kept / name)]


def _read(path: Path) -> str | None:
    return path.read_text("utf-8") if path.exists() else None


def main() -> None:
    """Generate, or check."""
    if "--check" not in sys.argv[1:]:
        generate(ROOT)
    elif names := outdated():
        raise SystemExit(f"out of date: {', '.join(names)}; run: make proto")


if __name__ == "__main__":
    main()
