"""Prints a digest of what every kernel gives, and the status; run with another environment."""

import hashlib
import json

import jax.numpy as jnp
import numpy as np

from model import kernels
from tests.model.kernels.page_cases import page_case


def digest() -> str:
    """Of products and attentions large enough to be shared between threads."""
    random = np.random.default_rng(0)
    state = hashlib.sha256()
    for rows in (1, 8, 100):
        x = jnp.asarray(random.normal(size=(rows, 640)).astype(np.float32))
        weights = random.integers(-127, 128, (640, 1500))
        packed = kernels.pack_int8(jnp.asarray(weights.astype(np.int8)))
        state.update(np.asarray(kernels.int8_matmul(x, packed, jnp.ones(1500))))
        wide = jnp.asarray(weights.astype(np.float32)) / 100
        narrow = kernels.pack_bf16(wide.astype(jnp.bfloat16))
        state.update(np.asarray(kernels.bf16_matmul(x, narrow, 1500)))
        state.update(np.asarray(kernels.f32_matmul(x, kernels.pack_f32(wide), 1500)))
    for batch, length in ((1, 1), (2, 3), (40, 1), (1, 300)):
        case = page_case(
            batch, batch=batch, length=length, heads=8, head_dim=64, page_size=16, width=128
        )
        state.update(np.asarray(kernels.paged_attention(*case.arguments())))
    return state.hexdigest()


if __name__ == "__main__":
    status = kernels.status()
    found = {"isa": status.isa, "reason": status.reason}
    print(json.dumps({**found, "digest": digest() if status.is_available else None}))
