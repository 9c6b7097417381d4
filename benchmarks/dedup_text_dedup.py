"""Near-duplicate removal by text-dedup's MinHash, in a Python that has it.

PYTHON benchmarks/dedup_text_dedup.py CORPUS_FOLDER WORK NGRAMS BANDS ROWS

Prints a JSON object: seconds, and the ids of the documents that it removed.
"""

import json
import sys
import time
from pathlib import Path

from datasets import load_from_disk
from text_dedup.minhash import main as minhash


def main(corpus: Path, work: Path, ngrams: int, bands: int, rows: int) -> None:
    files = sorted(corpus.glob("*.jsonl"))
    out = work / "kept"
    work.mkdir(parents=True)
    options = {
        "path": "json",
        "data_files": files[0],
        "split": "train",
        "cache_dir": work / "cache",
        "output": out,
        "column": "text",
        "ngram": ngrams,
        "num_perm": bands * rows,
        "b": bands,
        "r": rows,
        "min_length": 0,
        # Its fastest.
        "hash_func": "xxh3",
        "hash_bits": 32,
        "num_proc": 1,
    }
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    began = time.perf_counter()
    minhash(arguments, standalone_mode=False)
    seconds = time.perf_counter() - began
    kept = set(load_from_disk(str(out))["id"])
    lines = files[0].read_text(encoding="utf-8").splitlines()
    removed = [name for line in lines if (name := json.loads(line)["id"]) not in kept]
    print(json.dumps({"seconds": seconds, "removed": removed}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
