"""All blocks in one call, against the definition written plainly in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import kernels
from model.config import PaLMConfig
from model.fused import FusedParams, fuse, fused_step
from model.kv_cache import KVCache, init_cache
from model.palm import forward_step
from tests.model import numpy_palm

ROWS, LENGTH, PAGE_SIZE = 3, 12, 4
WIDTH = LENGTH // PAGE_SIZE

SHAPES = {
    "palm": {},
    "gqa, q/k norm, half pairs": {"num_kv_heads": 2, "qk_norm": True, "rope_style": "half"},
    "plain gelu, biased norm": {"gated": False, "activation": "gelu", "norm_bias": True},
    "no whole vectors": {"d_model": 52, "head_dim": 22, "d_ff": 90, "rope_style": "half"},
}


@pytest.fixture(scope="module", params=list(SHAPES))
def config(request: pytest.FixtureRequest) -> PaLMConfig:
    shape = {"d_model": 64, "head_dim": 16, "d_ff": 96, **SHAPES[request.param]}
    return PaLMConfig(vocab_size=150, num_layers=2, num_heads=4, max_seq_len=64, **shape)


def inputs(config: PaLMConfig, dtype: str = "float32") -> tuple[jax.Array, jax.Array, KVCache]:
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (ROWS, LENGTH))
    pages = 1 + np.arange(ROWS * WIDTH, dtype=np.int32).reshape(ROWS, WIDTH)
    return (
        jnp.asarray(tokens, jnp.int32),
        jnp.asarray(pages),
        init_cache(config, 1 + pages.size, PAGE_SIZE, jnp.dtype(dtype)),
    )


def step_at(config: PaLMConfig, params: FusedParams, isa: str, *arguments: jax.Array | KVCache):
    """`fused_step` at a level of instructions."""
    with pytest.MonkeyPatch.context() as patch:
        run = kernels.run_blocks
        patch.setattr(kernels, "run_blocks", lambda *a, **k: run(*a, **k, isa=isa))
        return fused_step(config, params, *arguments)


# Relative to the largest value. An int8 cache rounds what is nearly halfway either way.
@pytest.mark.parametrize(
    ("form", "cache_dtype", "limit"),
    [
        ("bfloat16", "float32", 0.03),
        ("bfloat16", "bfloat16", 0.03),
        ("bfloat16", "int8", 0.03),
        ("float32", "float32", 1e-5),
        ("float32", "bfloat16", 0.01),
        ("float32", "int8", 0.01),
    ],
)
def test_every_level_gives_nearly_the_plain_steps_numbers(
    config, form, cache_dtype: str, limit: float, isa: str
):
    weights = numpy_palm.random_weights(config, seed=4)
    # Weights that bfloat16 has, so that products alone are rounded.
    weights = jax.tree.map(lambda w: jnp.asarray(w, jnp.bfloat16).astype(jnp.float32), weights)
    tokens, pages, cache = inputs(config, cache_dtype)
    start = jnp.zeros(ROWS, jnp.int32)
    expected, expected_cache = forward_step(config, weights, tokens, start, cache, pages)
    params = fuse(config, weights, form)
    found, found_cache = step_at(config, params, isa, tokens, start, cache, pages)
    np.testing.assert_allclose(found, expected, atol=limit * float(jnp.max(jnp.abs(expected))))
    for mine, theirs in zip(found_cache, expected_cache, strict=True):
        assert [part.dtype for part in mine] == [part.dtype for part in theirs]


def test_int8_products_give_the_same_bits_at_every_level_where_attention_does(config):
    # One token alone attends to itself: its weight is 1 at every level.
    params = fuse(config, numpy_palm.random_weights(config, seed=4), "int8")
    tokens, pages, cache = inputs(config)
    start = jnp.zeros(ROWS, jnp.int32)
    results = [
        np.asarray(step_at(config, params, isa, tokens[:, :1], start, cache, pages)[0])
        for isa in kernels.ISAS
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@pytest.mark.parametrize("form", ["int8", "bfloat16", "float32"])
@pytest.mark.parametrize("cache_dtype", ["float32", "int8"])
def test_a_rows_bits_are_its_own(config, form, cache_dtype: str, isa: str):
    params = fuse(config, numpy_palm.random_weights(config, seed=4), form)
    tokens, pages, cache = inputs(config, cache_dtype)
    start = jnp.zeros(ROWS, jnp.int32)
    whole, whole_cache = step_at(config, params, isa, tokens, start, cache, pages)
    row = slice(1, 2)
    alone, alone_cache = step_at(config, params, isa, tokens[row], start[row], cache, pages[row])
    np.testing.assert_array_equal(alone[0], whole[1])
    cut = cache
    for begin, end in ((0, 4), (4, 5), (5, 12)):
        part, cut = step_at(
            config, params, isa, tokens[row, begin:end], start[row] + begin, cut, pages[row]
        )
        np.testing.assert_array_equal(part[0], whole[1, begin:end])
    for caches in (alone_cache, cut):
        for mine, theirs in zip(jax.tree.leaves(caches), jax.tree.leaves(whole_cache), strict=True):
            np.testing.assert_array_equal(mine[pages[1]], theirs[pages[1]])


def test_donated_pools_are_written_in_place(config):
    params = fuse(config, numpy_palm.random_weights(config, seed=4), "int8")
    tokens, pages, cache = inputs(config)
    places = [pool.unsafe_buffer_pointer() for pool in jax.tree.leaves(cache)]
    step = jax.jit(fused_step, static_argnums=0, donate_argnums=4)
    _, updated = step(config, params, tokens, jnp.zeros(ROWS, jnp.int32), cache, pages)
    assert [pool.unsafe_buffer_pointer() for pool in jax.tree.leaves(updated)] == places


@pytest.mark.parametrize("reach", [1.0, 6.0, 100.0])
@pytest.mark.parametrize("activation", ["gelu", "silu"])
# Relative to the largest value: what the second product keeps of its input.
@pytest.mark.parametrize(("form", "limit"), [("bfloat16", 2**-7), ("float32", 1e-6)])
def test_activations_are_right_over_their_range(
    form, limit: float, activation: str, reach: float, isa: str
):
    width = 128
    config = PaLMConfig(
        vocab_size=1, num_layers=1, d_model=width, num_heads=1, head_dim=2, d_ff=width,
        max_seq_len=4, gated=False, activation=activation,
    )  # fmt: skip
    weights = numpy_palm.random_weights(config, seed=0)
    # The norm gives 1 and -1 in turn, and the first product whatever is on its diagonal.
    sign = np.where(np.arange(width) % 2, -1, 1).astype(np.float32)
    weights["embedding"] = sign[None]
    block = weights["layers"]["0"]
    block["attention"] = jax.tree.map(np.zeros_like, block["attention"])
    block["norm"]["scale"] = np.ones(width, np.float32)
    values = jnp.asarray(np.linspace(-reach, reach, width), jnp.bfloat16).astype(jnp.float32)
    block["mlp"]["up"] = np.diag(sign * np.asarray(values))
    block["mlp"]["down"] = 1024 * np.eye(width, dtype=np.float32)
    arguments = (
        jnp.zeros((1, 1), jnp.int32),
        jnp.zeros(1, jnp.int32),
        init_cache(config, 2, 4),
        jnp.ones((1, 1), jnp.int32),
    )
    found, _ = step_at(config, fuse(config, weights, form), isa, *arguments)
    expected, _ = forward_step(config, weights, *arguments)
    np.testing.assert_allclose(found, expected, atol=limit * float(jnp.max(jnp.abs(expected))))


def test_blocks_without_pools_are_refused():
    with pytest.raises(ValueError, match="0 blocks must be at least 1"):
        kernels.run_blocks(
            jnp.zeros((1, 1, 4)), [], [], (jnp.ones(4), None), jnp.zeros((1, 2, 2)),
            jnp.zeros((1, 1), jnp.int32), jnp.zeros(1, jnp.int32),
            form=kernels.BlockForm(
                num_heads=1, d_ff=4, is_gated=True, is_gelu=False, has_half_pairs=False,
                norm_eps=1e-5,
            ),
        )  # fmt: skip
