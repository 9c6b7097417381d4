"""What a run tells while it goes: a line for people, JSON lines for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp


def measure_matmul_flops(dtype: str = "float32", *, size: int = 1536, repeats: int = 8) -> float:
    """The best rate of this machine's devices together, FLOP/s: `dtype` products, float32 sums."""
    matrix = jnp.ones((size, size), dtype)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32))
    product(matrix, matrix).block_until_ready()
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        product(matrix, matrix).block_until_ready()
        best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best * jax.device_count()


class Progress:
    """Counts tokens, and reports every few steps.

    MFU is the paper's (appendix B): model FLOPs of the tokens trained, over peak FLOPs of the
    time taken.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        total_steps: int,
        peak_flops: float,
        report: Callable[[str], None],
    ) -> None:
        """Open the metrics file, appending to an earlier part of the run."""
        run_dir.mkdir(parents=True, exist_ok=True)
        self._path = run_dir / "metrics.jsonl"
        self._total_steps = total_steps
        self._peak_flops = peak_flops
        self._report = report
        self._began = time.perf_counter()
        self._tokens = 0
        self._flops = 0.0
        self._steps = 0

    def add(self, tokens: int, flops_per_token: float) -> None:
        """Count one finished step."""
        self._tokens += tokens
        self._flops += tokens * flops_per_token
        self._steps += 1

    def restart_clock(self) -> None:
        """Leave the time until now (a compilation, an evaluation) out of the next rates."""
        self._began, self._tokens, self._flops, self._steps = time.perf_counter(), 0, 0.0, 0

    def line(self, step: int, **values: float) -> None:
        """Report the steps since the last line."""
        seconds = time.perf_counter() - self._began
        rate = self._tokens / seconds
        mfu = self._flops / seconds / self._peak_flops
        left = int((self._total_steps - step) * seconds / max(1, self._steps))
        shown = " ".join(f"{name} {value:.4g}" for name, value in values.items())
        self._report(
            f"step {step}/{self._total_steps} {shown} | {rate:,.0f} tokens/s "
            f"MFU {mfu:.1%} ETA {left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
        )
        self.record(step=step, **values, tokens_per_s=rate, mfu=mfu)
        self.restart_clock()

    def record(self, **values: Any) -> None:
        """Append one JSON line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
