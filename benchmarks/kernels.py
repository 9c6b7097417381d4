"""The CPU kernels against XLA and against the machine, at the shapes of a 50 M parameter PaLM.

python -m benchmarks.kernels [products] [attention]

Times are the best of many calls, so that other work on the machine matters little. Weights are
taken in turn from more than the caches hold, as a decode step takes them.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import cycle

import jax
import jax.numpy as jnp
import numpy as np

from model import kernels
from model.attention import attend
from model.kernels.native import ISAS, library

# d_model 512, 8 heads of 64, one key/value head, d_ff 2048, vocabulary 8192.
SHAPES = {
    "queries, keys, values, gate, up": (512, 4736),
    "out, down": (2560, 512),
    "head": (512, 8192),
}
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# How many weights a kernel takes at a time, by which `src/probe.cpp` finds it.
GROUPS = {"int8": 4, "bf16": 2, "f32": 1}
HEADS, HEAD_DIM, PAGE_SIZE = 8, 64, 16

_COLD_BYTES = 96 << 20
_BUDGET_S = 0.5

Program = Callable[..., object]


def best_s(program: Program, arguments: Iterator[tuple[object, ...]]) -> float:
    """The shortest call in half a second of calls, after a first one."""
    jax.block_until_ready(program(*next(arguments)))
    best = float("inf")
    end = time.perf_counter() + _BUDGET_S
    while time.perf_counter() < end:
        chosen = next(arguments)
        start = time.perf_counter()
        jax.block_until_ready(program(*chosen))
        best = min(best, time.perf_counter() - start)
    return best


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Call work(0) … work(count - 1) in as many threads."""
    threads = [threading.Thread(target=work, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def print_machine(threads: int) -> None:
    """What memory and arithmetic reach at best."""
    loaded = library()
    loaded.talipot_probe_products.restype = ctypes.c_int64
    loaded.talipot_probe_read.argtypes = [ctypes.c_void_p, ctypes.c_int64]
    part = _COLD_BYTES // 2 // 64 * 64
    memory = np.ones((threads, part), np.uint8)

    def read(index: int) -> None:
        loaded.talipot_probe_read(memory[index].ctypes.data, part)

    level = ISAS.index(kernels.status().isa or ISAS[0])

    def multiply(group: int) -> Callable[[int], object]:
        return lambda _: loaded.talipot_probe_products(group, level, ctypes.c_int64(2000))

    print(f"kernels: {kernels.status().isa}")
    for count in sorted({1, threads}):

        def seconds(work: Callable[[int], object], count: int = count) -> float:
            return best_s(lambda: in_threads(count, work), cycle([()]))

        bandwidth = count * part / seconds(read) / 1e9
        line = f"{count} thread{'s' * (count > 1)}: memory {bandwidth:.0f} GB/s"
        for name, group in GROUPS.items():
            products = count * loaded.talipot_probe_products(group, level, ctypes.c_int64(1)) * 2000
            line += f", {name} {2 * products / seconds(multiply(group)) / 1e9:.0f} G/s"
        print(line)


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to multiply: weights as it wants them, and the product of x and those."""

    name: str
    weight_bytes: int
    weights: jax.Array
    product: Callable[[jax.Array, jax.Array], jax.Array]


def ways(inner: int, columns: int) -> list[Way]:
    """XLA's and ours, for the same weights."""
    random = np.random.default_rng(0)
    int8 = jnp.asarray(random.integers(-127, 128, (inner, columns)).astype(np.int8))
    f32 = int8.astype(jnp.float32) / 127
    bf16 = f32.astype(jnp.bfloat16)
    scale = jnp.full((columns,), 1 / 127)
    return [
        Way("XLA f32", 4, f32, lambda x, w: x @ w),
        Way("XLA bf16", 2, bf16, _xla_bf16),
        Way("f32", 4, kernels.pack_f32(f32), lambda x, w: kernels.f32_matmul(x, w, columns)),
        Way("bf16", 2, kernels.pack_bf16(bf16), lambda x, w: kernels.bf16_matmul(x, w, columns)),
        Way("int8", 1, kernels.pack_int8(int8), lambda x, w: kernels.int8_matmul(x, w, scale)),
    ]


def print_products() -> None:
    """A row for each shape and M; G is 10^9 operations a second, GB/s what the weights came at."""
    random = np.random.default_rng(0)
    for name, (inner, columns) in SHAPES.items():
        compared = ways(inner, columns)
        print(f"\n{name}: [M, {inner}] x [{inner}, {columns}], us, G, GB/s")
        print("    M" + "".join(f" | {way.name:>20}" for way in compared))
        for rows in ROWS:
            x = jnp.asarray(random.normal(size=(rows, inner)).astype(np.float32))
            line = f"{rows:5}"
            for way in compared:
                weight_bytes = way.weight_bytes * inner * columns
                seconds = _product_s(x, way, _COLD_BYTES // weight_bytes + 1)
                rate = 2 * rows * inner * columns / seconds / 1e9
                line += f" | {seconds * 1e6:7.0f} {rate:6.0f} {weight_bytes / seconds / 1e9:5.1f}"
            print(line, flush=True)


def _xla_bf16(x: jax.Array, weights: jax.Array) -> jax.Array:
    return jnp.dot(x.astype(jnp.bfloat16), weights, preferred_element_type=jnp.float32)


def _product_s(x: jax.Array, way: Way, copies: int) -> float:
    # A few products to a program: what a call costs in Python is shared, and a program is short
    # enough to find the machine free.
    calls = 4 if x.shape[0] <= 32 else 1
    weights = [way.weights.copy() for _ in range(-(-copies // calls) * calls)]
    groups = [weights[first : first + calls] for first in range(0, len(weights), calls)]
    program = jax.jit(lambda x, group: [way.product(x, part) for part in group])
    return best_s(program, cycle([(x, group) for group in groups])) / calls


def print_attention() -> None:
    """A row for each batch and context: decoding one token a row."""
    print(f"\ndecode attention, {HEADS} heads of {HEAD_DIM}, 1 key/value head, us")
    print("    B      S | gather + XLA f32 | pages f32  GB/s | pages bf16  GB/s")
    for batch in (1, 8, 32, 128):
        for context in (256, 1024, 2048):
            width = context // PAGE_SIZE
            random = np.random.default_rng(0)
            pages = random.permutation(batch * width).reshape(batch, width).astype(np.int32)
            pool = jnp.ones((batch * width, PAGE_SIZE, 1, HEAD_DIM))
            query = jnp.ones((batch, 1, HEADS, HEAD_DIM))
            start = jnp.full((batch,), context - 1, jnp.int32)
            placed = (jnp.asarray(pages), start)
            peer = best_s(jax.jit(_gather_and_attend), cycle([(query, pool, pool + 1, *placed)]))
            line = f"{batch:5} {context:6} | {peer * 1e6:16.0f}"
            for dtype in (jnp.float32, jnp.bfloat16):
                pools = (pool.astype(dtype), (pool + 1).astype(dtype))
                program = jax.jit(kernels.paged_attention)
                seconds = best_s(program, cycle([(query, *pools, *placed)]))
                line += f" | {seconds * 1e6:9.0f} {2 * pools[0].nbytes / seconds / 1e9:5.1f}"
            print(line, flush=True)


def _gather_and_attend(
    query: jax.Array, keys: jax.Array, values: jax.Array, table: jax.Array, start: jax.Array
) -> jax.Array:
    batch = query.shape[0]
    gathered_keys = keys[table].reshape(batch, -1, *keys.shape[2:])
    gathered_values = values[table].reshape(batch, -1, *values.shape[2:])
    positions = jnp.arange(gathered_keys.shape[1], dtype=jnp.int32)
    mask = positions[None, None] <= start[:, None, None]
    return attend(query, gathered_keys, gathered_values, mask)


def main(parts: list[str]) -> None:
    """Print the machine's limits, then the tables asked for; both if none is."""
    if not kernels.is_available():
        sys.exit(f"no CPU kernels: {kernels.status().reason}")
    print_machine(len(os.sched_getaffinity(0)))
    if not parts or "products" in parts:
        print_products()
    if not parts or "attention" in parts:
        print_attention()


if __name__ == "__main__":
    main(sys.argv[1:])
