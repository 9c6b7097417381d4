"""Prints, as JSON, what the model computes on a mesh: run by `test_partition` in its own process.

The number of CPU devices is fixed when JAX starts, so the tests' own process cannot have eight.
"""

from __future__ import annotations

import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from model.config import PaLMConfig
from model.palm import forward, forward_step, init_cache
from model.parameters import flatten, unflatten
from model.partition import DATA_AXIS, make_mesh, parameter_shardings
from tests.model import numpy_palm

EVEN = {"vocab_size": 64, "d_model": 16, "num_heads": 8, "head_dim": 4, "d_ff": 32}
# Heads and vocabulary that no mesh here divides, beside a feed-forward layer that is cut.
ODD = EVEN | {"vocab_size": 53, "num_heads": 7}


def _config(shape: dict[str, int], num_layers: int) -> PaLMConfig:
    return PaLMConfig(**shape, num_layers=num_layers)


def _run(config: PaLMConfig, model_axis: int) -> dict[str, Any]:
    """Compare a mesh of all devices, `model_axis` of them along the model, with one device."""
    mesh = make_mesh(model_axis=model_axis)
    weights = numpy_palm.random_weights(config, seed=6)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, config.vocab_size, (8, 10), dtype=np.int32)
    sharded = unflatten(
        {
            name: jax.device_put(leaf, parameter_shardings(config, mesh)[name])
            for name, leaf in flatten(weights).items()
        }
    )
    by_row = jax.device_put(tokens, NamedSharding(mesh, PartitionSpec(DATA_AXIS)))
    compiled = jax.jit(forward, static_argnums=0).lower(config, sharded, by_row).compile()
    expected = jax.jit(forward, static_argnums=0)(config, weights, tokens)
    cache = init_cache(config, 17, 8)
    start = jnp.zeros(8, jnp.int32)
    pages = 1 + jnp.arange(16, dtype=jnp.int32).reshape(8, 2)
    step = jax.jit(forward_step, static_argnums=0)
    hidden, _ = step(config, sharded, by_row, start, cache, pages)
    expected_hidden, _ = step(config, weights, tokens, start, cache, pages)
    up = sharded["layers"]["0"]["mlp"]["up"]
    return {
        "logits_difference": _difference(compiled(sharded, by_row), expected),
        "step_difference": _difference(hidden, expected_hidden),
        "all_reduces": _count(compiled.as_text(), "all-reduce"),
        "reduced_arrays": _count_reduced_arrays(compiled.as_text()),
        "other_collectives": sum(
            _count(compiled.as_text(), name)
            for name in ("all-gather", "all-to-all", "reduce-scatter", "collective-permute")
        ),
        "up_shard_shape": up.addressable_shards[0].data.shape,
    }


def _difference(found: jax.Array, expected: jax.Array) -> float:
    return float(np.abs(np.asarray(found) - np.asarray(expected)).max())


def _count(hlo: str, operation: str) -> int:
    return len(re.findall(rf" {operation}(?:-start)?\(", hlo))


def _count_reduced_arrays(hlo: str) -> int:
    """Arrays in all all-reduces: one operation may carry several, each with its own bytes."""
    results = re.findall(r"= (\(.*?\)|\S+) all-reduce(?:-start)?\(", hlo)
    return sum(result.count("f32[") for result in results)


def main() -> None:
    """Print `{case: figures}`."""
    cases = {f"even-{axis}": _run(_config(EVEN, 2), axis) for axis in (2, 4, 8)}
    cases["deeper-8"] = _run(_config(EVEN, 3), 8)
    cases["odd-4"] = _run(_config(ODD, 1), 4)
    print(json.dumps(cases))


if __name__ == "__main__":
    main()
