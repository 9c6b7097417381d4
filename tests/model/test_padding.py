"""Padding to a mesh: the padded model's logits are the model's own, and no token is invented."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.config import PaLMConfig
from model.errors import ConfigError
from model.layout_rules import Layout
from model.padding import hide_padding, pad_config, pad_parameters
from model.palm import forward
from model.parameters import flatten
from tests.model import numpy_palm

TWO_D = Layout(feed_forward="2d", attention="batch")
ONE_D = Layout(feed_forward="1d", attention="heads")
MESH = {"x": 2, "y": 2, "z": 4}
ODD = PaLMConfig(vocab_size=53, num_layers=2, d_model=16, num_heads=6, head_dim=4, d_ff=21)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_kv_heads": 2},
        {"num_kv_heads": 3, "qk_norm": True},
        {"num_kv_heads": 6, "tied_embeddings": False, "gated": False, "activation": "gelu"},
        {"norm_bias": True, "separate_mlp_norm": True},
    ],
)
@pytest.mark.parametrize("layout", [ONE_D, TWO_D], ids=lambda layout: layout.name)
def test_the_padded_model_has_the_models_logits(layout, changes):
    config = dataclasses.replace(ODD, **changes)
    weights = numpy_palm.random_weights(config, seed=3)
    padded = pad_config(config, layout, MESH)
    tokens = np.arange(12, dtype=np.int32).reshape(2, 6) * 4
    logits = forward(padded, pad_parameters(config, weights, padded), tokens)
    expected = forward(config, weights, tokens)
    assert logits.shape[-1] == padded.vocab_size
    np.testing.assert_allclose(logits[..., :53], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("layout", "heads", "ff", "vocab"), [(ONE_D, 16, 32, 64), (TWO_D, 8, 24, 56)]
)
def test_sizes_are_rounded_up_to_the_devices_they_are_split_over(layout, heads, ff, vocab):
    padded = pad_config(ODD, layout, MESH)
    assert (padded.num_heads, padded.d_ff, padded.vocab_size) == (heads, ff, vocab)
    assert (padded.d_model, padded.head_dim, padded.num_layers) == (16, 4, 2)


def test_every_key_value_head_keeps_equally_many_query_heads():
    padded = pad_config(dataclasses.replace(ODD, num_kv_heads=3), TWO_D, MESH)
    assert padded.num_heads == 24


def test_palms_models_need_no_padding_on_64_chips_in_2d():
    for name in ("palm-8b", "palm-62b", "palm-540b"):
        config = PaLMConfig.preset(name)
        assert pad_config(config, TWO_D, {"x": 4, "y": 4, "z": 4}) == config


def test_a_width_that_cannot_be_padded_is_refused():
    with pytest.raises(ConfigError, match=r"d_model=16 must be a multiple of the 3 devices .*2d"):
        pad_config(ODD, TWO_D, {"x": 3, "y": 1, "z": 1})


def test_what_is_not_padded_is_not_copied():
    weights = jax.tree.map(jnp.asarray, numpy_palm.random_weights(ODD, seed=3))
    padded = flatten(pad_parameters(ODD, weights, pad_config(ODD, TWO_D, MESH)))
    assert padded["layers.0.norm.scale"] is weights["layers"]["0"]["norm"]["scale"]


def test_padding_is_hidden_from_whoever_chooses_a_token():
    logits = jnp.array([[-5.0, -3.0, 0.0, 0.0]])
    hidden = hide_padding(logits, 2)
    assert jnp.argmax(hidden) == 1
    np.testing.assert_allclose(jax.nn.softmax(hidden)[0, 2:], 0)
    assert jnp.isfinite(hidden).all()


def test_a_model_is_padded_only_to_one_that_holds_it():
    weights = numpy_palm.random_weights(ODD, seed=3)
    with pytest.raises(ConfigError, match="padded d_ff=20 must be at least the model's 21"):
        pad_parameters(ODD, weights, dataclasses.replace(ODD, d_ff=20))
    with pytest.raises(ConfigError, match="padded num_layers=3 must be the model's 2"):
        pad_parameters(ODD, weights, dataclasses.replace(ODD, num_layers=3))
