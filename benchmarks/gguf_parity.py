"""Does llama.cpp compute the same as we do from the GGUF file that we export?

Exports a model, then runs the same prompts here and in llama.cpp: token ids, logits of every
position, and a greedy continuation. llama.cpp is not part of the test suite, because it is compiled
from source; give any Python that has it:

    python -m venv llama && llama/bin/pip install llama-cpp-python
    python benchmarks/gguf_parity.py talipot-tiny --llama-python llama/bin/python

Exits with 1 when a token differs or a logit differs by more than the limit.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

TEXTS = (
    "It was the best of times, it was the worst of times",
    "Once upon a time there was a  king,\n\n\twho had 1203 horses; \u201cquite so,\u201d said he.",
    "caf\u00e9 na\u00efve \u4e2d\u6587 \U0001f334 <eod> <0x41> --------    !",
    "def f(x):\n    return x ** 2\n",
)
NEW_TOKENS = 64
MAX_LOGIT_DIFFERENCE = 1e-3


def run_llama(gguf: Path, out: Path) -> None:
    """The other side: runs in the Python that has llama.cpp; writes ids, logits, continuation."""
    import ctypes

    import llama_cpp

    model = llama_cpp.Llama(
        str(gguf), n_ctx=512, logits_all=True, verbose=False, n_threads=2, type_k=0, type_v=0
    )
    arrays: dict[str, Any] = {}
    for index, text in enumerate(TEXTS):
        ids = model.tokenize(text.encode(), add_bos=False, special=False)
        model.reset()
        model.eval(ids)
        arrays[f"ids{index}"] = np.array(ids, np.int32)
        arrays[f"logits{index}"] = np.array(model.scores[: len(ids)], np.float32)
        new: list[int] = []
        for _ in range(NEW_TOKENS):
            new.append(int(np.argmax(model.scores[model.n_tokens - 1])))
            model.eval(new[-1:])
        arrays[f"greedy{index}"] = np.array(new, np.int32)
    version = ctypes.string_at(llama_cpp.llama_print_system_info()).decode()
    arrays["version"] = np.array(f"llama-cpp-python {llama_cpp.__version__}: {version}")
    np.savez(out, **arrays)


def greedy(pretrained: Any, ids: list[int]) -> list[int]:
    """Our continuation, by whole forward passes over a padded row: one compilation."""
    row = np.zeros((1, len(ids) + NEW_TOKENS), np.int32)
    row[0, : len(ids)] = ids
    for position in range(len(ids), row.shape[1]):
        row[0, position] = int(np.argmax(np.asarray(pretrained.logits(row))[0, position - 1]))
    return [int(token) for token in row[0, len(ids) :]]


def main() -> int:
    """Compare, print a table, and say by the exit code whether all agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="an embedded model's name or a checkpoint folder")
    parser.add_argument("--llama-python", default=sys.executable, help="Python with llama_cpp")
    args = parser.parse_args()

    import jax

    from model.checkpoint import export_gguf, load_pretrained, resolve_model

    jax.config.update("jax_platforms", "cpu")
    pretrained = load_pretrained(resolve_model(args.model), dtype="float32")
    tokenizer = pretrained.tokenizer
    if tokenizer is None:
        parser.error(f"{args.model} has no tokenizer")
    with tempfile.TemporaryDirectory() as folder:
        gguf, out = Path(folder) / "model.gguf", Path(folder) / "llama.npz"
        started = time.perf_counter()
        export_gguf(pretrained, gguf)
        print(f"exported {gguf.stat().st_size:,} bytes in {time.perf_counter() - started:.2f} s")
        command = [args.llama_python, __file__, "--llama", str(gguf), str(out)]
        subprocess.run(command, check=True)
        theirs = np.load(out)
        print(theirs["version"])
        rows = []
        for index, text in enumerate(TEXTS):
            ids = tokenizer.encode(text)
            same_ids = ids == theirs[f"ids{index}"].tolist()
            ours = np.asarray(pretrained.logits(theirs[f"ids{index}"][None]))[0]
            logits = theirs[f"logits{index}"]
            same_greedy = greedy(pretrained, ids) == theirs[f"greedy{index}"].tolist()
            difference = float(np.max(np.abs(ours - logits)))
            top = float(np.mean(ours.argmax(-1) == logits.argmax(-1)))
            rows.append((same_ids, difference, top, same_greedy))
            print(
                json.dumps(text[:28]).ljust(34),
                f"tokens {len(ids):3d} same={same_ids}",
                f"max|dlogit|={difference:.2e} (|logit|<={np.abs(ours).max():.1f})",
                f"same top-1={top:.0%}",
                f"greedy {NEW_TOKENS} same={same_greedy}",
                sep="  ",
            )
    good = all(same and greedy_ok and d <= MAX_LOGIT_DIFFERENCE for same, d, _, greedy_ok in rows)
    return 0 if good else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["--llama"]:
        run_llama(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(main())
