"""Kernels for decoding on CPUs: matrix products with packed weights, and attention over pages.

They are compiled from `src/` when Talipot is installed, if a C++ compiler is there. Where there is
none, `is_available()` is False, `status()` says why, and callers use XLA's own operations. They do
so too where only the portable instructions are left (other than x86-64 with AVX2), as those are
there for tests and to be correct everywhere:

    if kernels.status().is_fast:
        packed = kernels.pack_int8(weights)  # once, as the weights are loaded
        y = kernels.int8_matmul(x, packed, scale)  # under jit, for any number of rows
    else:
        y = x @ (weights.astype(jnp.float32) * scale)

A decode step over pages, with the pools donated to the jitted function around it:

    key_pages, value_pages = kernels.write_pages(
        key_pages, value_pages, keys, values, table, start
    )
    mixed = kernels.paged_attention(query, key_pages, value_pages, table, start)

- They are calls of XLA's foreign function interface for the CPU backend: they run in its threads,
  and programs with them are kept in the compilation cache like others. They cannot be
  differentiated, and XLA does not split them over devices.
- **A row's result does not depend on its neighbours**: it has the same bits whatever the other
  rows, their number, the table's width and the number of threads are.
- Which instructions are used (plain, AVX2, AVX-512, or AVX-512 with VNNI and BF16) is found out
  when a call runs. `TALIPOT_KERNELS` and the argument `isa` lower it; `TALIPOT_KERNELS=off` makes
  the kernels unavailable. Levels differ in the last bits, except `int8_matmul`'s, which agree.
- Pages of 16 positions or more keep memory streaming; 64 is a little faster than 16.
"""

from model.kernels.blocks import BlockForm, BlockWeights, rotary_turns, run_blocks
from model.kernels.matmul import (
    PANEL_COLUMNS,
    bf16_matmul,
    f32_matmul,
    int8_matmul,
    pack_bf16,
    pack_f32,
    pack_int8,
)
from model.kernels.native import ISAS, KernelStatus, is_available, status
from model.kernels.paged import POOL_SCALE_BYTES, paged_attention, write_pages

__all__ = [
    "ISAS",
    "PANEL_COLUMNS",
    "POOL_SCALE_BYTES",
    "BlockForm",
    "BlockWeights",
    "KernelStatus",
    "bf16_matmul",
    "f32_matmul",
    "int8_matmul",
    "is_available",
    "pack_bf16",
    "pack_f32",
    "pack_int8",
    "paged_attention",
    "rotary_turns",
    "run_blocks",
    "status",
    "write_pages",
]
