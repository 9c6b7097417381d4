"""Bits per byte of compressors on a held-out text, the sanity bar of a language model.

python -m benchmarks.compressors ../shared/corpus/books-heldout.jsonl.xz
"""

from __future__ import annotations

import lzma
import sys
from pathlib import Path

import pyppmd

from model.training.data import read_documents


def main(path: Path) -> None:
    """Print a row for each compressor; documents are joined into one stream, its best case."""
    text = "".join(text for _, text in read_documents(path)).encode()
    print(f"{path.name}: {len(text):,} bytes")
    strongest = lzma.PRESET_EXTREME | 9
    print(f"  xz -9e            {8 * len(lzma.compress(text, preset=strongest)) / len(text):.3f}")
    for order in (6, 8, 16):
        packed = pyppmd.compress(text, max_order=order, mem_size=1 << 30)
        print(f"  ppmd, order {order:<2}    {8 * len(packed) / len(text):.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
