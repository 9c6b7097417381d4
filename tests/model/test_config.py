"""The configuration: published sizes without memory, and a message for every bad value."""

import dataclasses
import json
import math
import tracemalloc

import jax
import numpy as np
import pytest

from model.config import PaLMConfig, preset_names
from model.errors import ConfigError
from model.palm import abstract_parameters, declare_parameters

SHAPE = {
    "vocab_size": 64,
    "num_layers": 2,
    "d_model": 16,
    "num_heads": 4,
    "head_dim": 8,
    "d_ff": 32,
}
COUNTS = (*SHAPE, "num_kv_heads", "max_seq_len")
SWITCHES = ("norm_bias", "separate_mlp_norm", "gated", "qk_norm", "tied_embeddings")
NUMBERS = ("norm_eps", "rope_theta", "logit_scale")
CHOICES = ("activation", "rope_style")
PAPER_BILLIONS = {"palm-8b": "8.63", "palm-62b": "62.50", "palm-540b": "540.35"}


def test_the_tables_here_name_every_field():
    named = {"name", *COUNTS, *SWITCHES, *NUMBERS, *CHOICES}
    assert named == {field.name for field in dataclasses.fields(PaLMConfig)}


@pytest.mark.parametrize(("name", "billions"), PAPER_BILLIONS.items())
def test_presets_have_the_papers_parameter_counts(name, billions):
    # The paper's figures are those of the matrices. Every norm has a scale besides, which moves
    # the second decimal of the largest model alone: 540.354 without them, 540.356 with them.
    config = PaLMConfig.preset(name)
    norm_scales = (config.num_layers + 1) * config.d_model
    matrices = config.num_parameters - norm_scales
    assert f"{matrices / 1e9:.2f}" == billions
    assert norm_scales / matrices < 2e-5


def test_all_parameters_of_the_presets_to_the_last_one():
    counts = {name: PaLMConfig.preset(name).num_parameters for name in PAPER_BILLIONS}
    assert counts == {
        "palm-8b": 8_632_012_800,
        "palm-62b": 62_495_662_080,
        "palm-540b": 540_356_474_880,
    }


def test_counting_540b_allocates_no_array_and_little_memory():
    # A shape nobody asked for before, so that no cache answers.
    config = dataclasses.replace(PaLMConfig.preset("palm-540b"), name="uncached")
    arrays = len(jax.live_arrays())
    tracemalloc.start()
    try:
        assert config.num_parameters > 540e9
        assert len(declare_parameters(config)) == 2 + 118 * 8
        abstract_parameters(config)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(jax.live_arrays()) == arrays
    assert peak_bytes < 32 * 2**20


def test_the_paper_presets_have_the_papers_shape():
    for name in PAPER_BILLIONS:
        config = PaLMConfig.preset(name)
        assert config.head_dim == 256
        assert config.d_ff == 4 * config.d_model
        assert config.num_kv_heads == 1
        assert config.vocab_size == 256_000
        assert config.tied_embeddings
        assert config.gated
        assert not config.norm_bias
        assert config.resolved_logit_scale == pytest.approx(config.d_model**-0.5)


def test_every_preset_is_named_after_itself():
    for name in preset_names():
        assert PaLMConfig.preset(name).name == name


@pytest.mark.parametrize("name", ["palm-9b", "", None, 8, ["palm-8b"], {}])
def test_an_unknown_preset_is_named_with_the_known_ones(name):
    with pytest.raises(ConfigError) as caught:
        PaLMConfig.preset(name)
    assert f"preset={name!r}" in str(caught.value)
    assert "palm-540b" in str(caught.value)


def _bad_values():
    for field in COUNTS:
        for value in (0, -1, "8", True, 1.5, 8.0, math.nan, None, [8], np.float32(8)):
            yield field, value, "must be an integer of at least 1"
    for field in SWITCHES:
        for value in (0, 1, "true", None, 1.0, [], np.array([True, False])):
            yield field, value, "must be true or false"
    for field in NUMBERS:
        for value in (0, 0.0, -1e-5, math.nan, math.inf, -math.inf, "1e-5", True, [1.0], {}, 1j):
            yield field, value, "must be a positive float32"
        # Outside what float32 holds: would become 0 or infinity in the arithmetic.
        for value in (1e-60, 1e60, 10**400):
            yield field, value, "from 1.18e-38 to 3.4e+38"
    yield "norm_eps", None, "must be a positive float32"
    yield "rope_theta", None, "must be a positive float32"
    for value in ("relu", "SILU", "", None, 1, ["silu"], {"silu"}, np.array(["silu", "gelu"])):
        yield "activation", value, "must be one of ('silu', 'gelu')"
    for value in ("neox", "", None, 1, ["half"]):
        yield "rope_style", value, "must be one of ('interleaved', 'half')"
    for value in ("", None, 7, b"palm", ["palm"]):
        yield "name", value, "must be a string of at least one character"


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [pytest.param(*case, id=f"{case[0]}-{index}") for index, case in enumerate(_bad_values())],
)
def test_a_bad_value_is_named_with_its_field_and_limit(field, value, limit):
    with pytest.raises(ConfigError) as caught:
        PaLMConfig(**{**SHAPE, field: value})
    message = str(caught.value)
    assert message.startswith(f"{field}={value!r} ")
    assert limit in message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head_dim": 7}, "head_dim=7 must be even"),
        ({"num_kv_heads": 3}, "num_kv_heads=3 must divide num_heads=4"),
        ({"num_kv_heads": 8}, "num_kv_heads=8 must divide num_heads=4"),
    ],
)
def test_values_that_do_not_fit_together_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        PaLMConfig(**(SHAPE | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_theta": 10_000, "logit_scale": 1},
        {"norm_eps": 1e-12, "rope_theta": 8_000_000.0},
        {"head_dim": 2, "num_heads": 1, "d_model": 1, "num_layers": 1, "d_ff": 1, "vocab_size": 1},
        {"num_kv_heads": 4},
    ],
)
def test_values_at_the_limits_are_accepted(changes):
    config = PaLMConfig(**(SHAPE | changes))
    assert {field: getattr(config, field) for field in changes} == changes


@pytest.mark.parametrize("field", NUMBERS)
def test_a_number_written_as_an_integer_becomes_a_float(field):
    value = getattr(PaLMConfig(**SHAPE, **{field: 10**10}), field)
    assert type(value) is float
    assert value == 1e10


def test_a_config_cannot_be_changed_and_can_be_a_key():
    config = PaLMConfig(**SHAPE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.d_model = 8  # type: ignore[misc]
    assert {config: 1}[PaLMConfig(**SHAPE)] == 1


def test_a_config_survives_json():
    config = PaLMConfig(
        **SHAPE,
        name="round trip",
        norm_bias=True,
        activation="gelu",
        gated=False,
        rope_style="half",
        qk_norm=True,
        tied_embeddings=False,
        logit_scale=0.25,
    )
    assert PaLMConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert PaLMConfig.from_dict(SHAPE) == PaLMConfig(**SHAPE)


@pytest.mark.parametrize("key", ["n_layers", "", 3, None, ("a",)])
def test_an_unknown_key_is_named(key):
    with pytest.raises(ConfigError) as caught:
        PaLMConfig.from_dict({**SHAPE, key: 1})
    assert f"unknown model config keys [{key!r}]" in str(caught.value)
    assert "num_layers" in str(caught.value)


def test_unknown_keys_of_several_types_are_all_named():
    with pytest.raises(ConfigError, match=r"unknown model config keys \['x', 3\]"):
        PaLMConfig.from_dict({**SHAPE, 3: 1, "x": 1})


@pytest.mark.parametrize("key", SHAPE)
def test_a_missing_key_is_named(key):
    values = {name: value for name, value in SHAPE.items() if name != key}
    with pytest.raises(ConfigError, match=rf"lacks the keys \['{key}'\]"):
        PaLMConfig.from_dict(values)


@pytest.mark.parametrize("values", [None, [], "vocab_size", 3])
def test_something_other_than_an_object_is_refused(values):
    with pytest.raises(ConfigError, match="must be an object"):
        PaLMConfig.from_dict(values)


def test_a_bad_value_in_a_dict_is_named():
    with pytest.raises(ConfigError, match="d_ff='32' must be an integer"):
        PaLMConfig.from_dict({**SHAPE, "d_ff": "32"})


@pytest.mark.parametrize("seq_len", [1, 2048])
def test_training_flops_follow_the_papers_formula(seq_len):
    # 6N + 12·L·H·Q·T with table 1's numbers written out (PaLM, appendix B).
    config = PaLMConfig.preset("palm-540b")
    expected = 6 * config.num_parameters + 12 * 118 * 48 * 256 * seq_len
    assert config.training_flops_per_token(seq_len) == expected


def test_training_flops_give_the_papers_utilisation():
    # 238.3K tokens/s on 6144 TPU v4 of 275 TFLOP/s: 46.2 % MFU, 45.7 % without attention.
    config = PaLMConfig.preset("palm-540b")
    peak_flops = 6144 * 275e12
    assert 238.3e3 * config.training_flops_per_token(2048) / peak_flops == pytest.approx(
        0.462, abs=5e-4
    )
    assert 238.3e3 * 6 * config.num_parameters / peak_flops == pytest.approx(0.457, abs=5e-4)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_matmul_parameters_are_the_kernels_and_the_output_table(gated, tied):
    config = PaLMConfig(**SHAPE, num_kv_heads=2, gated=gated, tied_embeddings=tied, norm_bias=True)
    specs = declare_parameters(config)
    kernels = sum(
        spec.size for name, spec in specs.items() if ".attention." in name or ".mlp." in name
    )
    assert config.num_matmul_parameters == kernels + 64 * 16


def test_forward_flops_count_two_a_weight_and_four_a_key_and_query_value():
    config = PaLMConfig(**SHAPE)
    without_keys = config.forward_flops_per_token(0)
    assert without_keys == 2 * config.num_matmul_parameters
    assert config.forward_flops_per_token(100) - without_keys == 4 * 2 * 4 * 8 * 100


@pytest.mark.parametrize(("kv_heads", "expected"), [(1, 2 * 2 * 8 * 4), (4, 2 * 2 * 4 * 8 * 4)])
def test_kv_bytes_count_keys_and_values_of_every_layer(kv_heads, expected):
    assert PaLMConfig(**SHAPE, num_kv_heads=kv_heads).kv_bytes_per_token(4) == expected


def test_palm_540b_keeps_118_kib_a_token_in_bfloat16():
    assert PaLMConfig.preset("palm-540b").kv_bytes_per_token(2) == 118 * 1024
