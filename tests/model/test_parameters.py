"""One declaration a parameter: every form of it agrees, and a mismatch is named."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from model.errors import CheckpointError
from model.palm import (
    PaLM,
    abstract_parameters,
    declare_parameters,
    forward,
    init_parameters,
)
from model.parameters import bind, flatten, unflatten
from model.partition import make_mesh, parameter_shardings

VARIANTS = {
    "palm": {},
    "mha": {"num_kv_heads": 4},
    "gqa": {"num_kv_heads": 2, "qk_norm": True},
    "falcon-7b": {"norm_bias": True, "gated": False, "activation": "gelu", "rope_style": "half"},
    "falcon-40b": {"norm_bias": True, "separate_mlp_norm": True, "num_kv_heads": 2, "gated": False},
    "untied": {"tied_embeddings": False},
}


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def config(request, tiny_config):
    return dataclasses.replace(tiny_config, **request.param)


def test_every_form_has_the_declared_shapes(config):
    declared = {name: spec.shape for name, spec in declare_parameters(config).items()}
    abstract = flatten(abstract_parameters(config))
    fresh = flatten(init_parameters(config, jax.random.key(0)))
    shardings = parameter_shardings(config, make_mesh(jax.devices()[:1]))
    module = nnx.to_flat_state(jax.eval_shape(lambda: nnx.state(PaLM(config, nnx.Rngs(0)))))
    assert {name: leaf.shape for name, leaf in abstract.items()} == declared
    assert {name: leaf.shape for name, leaf in fresh.items()} == declared
    assert {".".join(map(str, path)): leaf.shape for path, leaf in module} == declared
    assert {
        name: shardings[name].shard_shape(leaf.shape) for name, leaf in abstract.items()
    } == declared
    assert sum(map(math.prod, declared.values())) == config.num_parameters
    for spec in declare_parameters(config).values():
        assert len(spec.axes) == len(spec.shape)


def test_the_names_and_shapes_are_those_of_the_tensor_files(tiny_config):
    config = dataclasses.replace(
        tiny_config,
        num_layers=1,
        num_kv_heads=2,
        norm_bias=True,
        separate_mlp_norm=True,
        qk_norm=True,
        tied_embeddings=False,
    )
    assert {name: spec.shape for name, spec in declare_parameters(config).items()} == {
        "embedding": (53, 16),
        "head": (53, 16),
        "final_norm.scale": (16,),
        "final_norm.bias": (16,),
        "layers.0.norm.scale": (16,),
        "layers.0.norm.bias": (16,),
        "layers.0.mlp_norm.scale": (16,),
        "layers.0.mlp_norm.bias": (16,),
        "layers.0.attention.query": (16, 4, 6),
        "layers.0.attention.key": (16, 2, 6),
        "layers.0.attention.value": (16, 2, 6),
        "layers.0.attention.out": (4, 6, 16),
        "layers.0.attention.query_norm": (4, 6),
        "layers.0.attention.key_norm": (2, 6),
        "layers.0.mlp.up": (16, 24),
        "layers.0.mlp.gate": (16, 24),
        "layers.0.mlp.down": (24, 16),
    }


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_form_has_the_requested_dtype(tiny_config, dtype):
    for params in (
        abstract_parameters(tiny_config, dtype),
        init_parameters(tiny_config, jax.random.key(0), dtype),
    ):
        assert {leaf.dtype for leaf in flatten(params).values()} == {jnp.dtype(dtype)}


def test_fresh_weights_have_the_papers_distributions(tiny_config):
    # Kernels N(0, 1/sqrt(n_in)), embedding N(0, 1), norms 1 (PaLM, section 5). The bound is five
    # standard errors of the estimates: sigma/sqrt(n) of the mean, sigma/sqrt(2n) of the deviation.
    config = dataclasses.replace(
        tiny_config, vocab_size=2048, d_model=128, head_dim=32, d_ff=512, tied_embeddings=False
    )
    expected = {
        "embedding": 1.0,
        "head": 128**-0.5,
        "query": 128**-0.5,
        "key": 128**-0.5,
        "value": 128**-0.5,
        "out": (4 * 32) ** -0.5,
        "up": 128**-0.5,
        "gate": 128**-0.5,
        "down": 512**-0.5,
    }
    for name, leaf in flatten(init_parameters(config, jax.random.key(3))).items():
        values = np.asarray(leaf, np.float64)
        if "norm" in name:
            assert (values == 1).all(), name
            continue
        sigma = expected[name.split(".")[-1]]
        assert abs(values.mean()) < 5 * sigma / math.sqrt(values.size), name
        assert abs(values.std() - sigma) < 5 * sigma / math.sqrt(2 * values.size), name


def test_fresh_biases_are_zero(tiny_config):
    params = init_parameters(dataclasses.replace(tiny_config, norm_bias=True), jax.random.key(0))
    biases = [leaf for name, leaf in flatten(params).items() if name.endswith("bias")]
    assert len(biases) == tiny_config.num_layers + 1
    assert not any(np.asarray(bias).any() for bias in biases)


def test_one_key_gives_the_same_weights_and_another_gives_others(tiny_config):
    first, same, other = (
        flatten(init_parameters(tiny_config, jax.random.key(seed))) for seed in (5, 5, 6)
    )
    for name, leaf in first.items():
        np.testing.assert_array_equal(leaf, same[name])
        assert "norm" in name or (np.asarray(leaf) != np.asarray(other[name])).all()


def test_no_two_kernels_are_drawn_alike(tiny_config):
    params = flatten(init_parameters(tiny_config, jax.random.key(0)))
    firsts = [float(leaf.reshape(-1)[0]) for name, leaf in params.items() if "norm" not in name]
    deviations = [
        first / spec.init.stddev
        for first, spec in zip(
            firsts,
            (spec for name, spec in declare_parameters(tiny_config).items() if "norm" not in name),
            strict=True,
        )
    ]
    assert len(set(deviations)) == len(deviations)


def test_flatten_and_unflatten_are_inverse(config):
    params = abstract_parameters(config)
    assert unflatten(flatten(params)) == params
    assert set(flatten(params)) == set(declare_parameters(config))


def test_a_missing_parameter_is_named(tiny_config):
    params = init_parameters(tiny_config, jax.random.key(0))
    del params["layers"]["1"]["mlp"]["down"]
    with pytest.raises(CheckpointError) as caught:
        bind(tiny_config, params)
    assert "missing layers.1.mlp.down" in str(caught.value)
    assert "unexpected none" in str(caught.value)
    assert "'tiny-palm'" in str(caught.value)


def test_an_extra_parameter_is_named(tiny_config):
    params = init_parameters(tiny_config, jax.random.key(0))
    params["layers"]["0"]["attention"]["query_bias"] = jnp.zeros(4)
    with pytest.raises(
        CheckpointError, match=r"missing none, unexpected layers\.0\.attention\.query_bias"
    ):
        forward(tiny_config, params, jnp.zeros((1, 2), jnp.int32))


def test_a_head_that_a_tied_model_would_ignore_is_refused(tiny_config):
    untied = dataclasses.replace(tiny_config, tied_embeddings=False)
    with pytest.raises(CheckpointError, match="unexpected head"):
        bind(tiny_config, init_parameters(untied, jax.random.key(0)))


def test_of_many_missing_parameters_the_first_are_named(tiny_config):
    with pytest.raises(CheckpointError, match=r"embedding, final_norm\.scale, .* and 10 more"):
        bind(tiny_config, {})
