"""The paper's volume formulas as limits of ours, and how costs move with what they depend on."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import PaLMConfig
from model.errors import ConfigError
from model.layout_rules import Layout, all_layouts
from serving.chip import CHIPS, Calibration
from serving.cost_model import step_cost
from serving.layout import MeshShape, choose_mesh, exclusion
from serving.step_sizes import communicated_activations, held_parameters, hops_a_layer
from serving.workload import Workload

PALM = PaLMConfig.preset("palm-540b")
# Two matrices and next to no attention: what the paper's formulas are for.
PLAIN = PaLMConfig(
    vocab_size=64, num_layers=1, d_model=8192, d_ff=32768, num_heads=16, head_dim=2, gated=False
)
CUBE = MeshShape(x=4, y=4, z=4)
TPU = CHIPS["tpu-v4"]


def layout_named(name: str) -> Layout:
    feed_forward, attention = name.split("/")
    return Layout(feed_forward=feed_forward, attention=attention)


def decode(batch: int = 64, context: int = 2048, weights: str = "int8") -> Workload:
    return Workload(phase="decode", batch=batch, context=context, weights=weights)


def cost(name: str, workload: Workload, mesh: MeshShape = CUBE, config: PaLMConfig = PALM):
    return step_cost(config, layout_named(name), mesh, workload, TPU, Calibration())


@pytest.mark.parametrize("chips", [16, 64, 256])
def test_1d_communicates_the_same_on_any_number_of_chips(chips):
    mesh, tokens = choose_mesh(PLAIN, chips), 1024
    found = communicated_activations(PLAIN, layout_named("1d/heads"), mesh, tokens)
    assert found == 2 * tokens * PLAIN.d_model  # 2·BL·E, section 3.2.1


@pytest.mark.parametrize("chips", [16, 64, 256])
def test_2d_communicates_with_the_root_of_the_chips(chips):
    mesh, tokens = choose_mesh(PLAIN, chips), 1024
    found = communicated_activations(PLAIN, layout_named("2d/heads"), mesh, tokens)
    # 8·BL·E / sqrt(n), section 3.2.2
    assert found == pytest.approx(8 * tokens * PLAIN.d_model / math.sqrt(chips), rel=0.01)


def test_gathering_communicates_weights_and_fewer_activations():
    # Section 3.2.3: 4·E·sqrt(BL·F) / sqrt(n) at the best number of chips to gather over, which is
    # sqrt(BL·n/F): tokens chosen so that this is X·Y = 16.
    tokens = 16**2 * PLAIN.d_ff // 64
    layout = layout_named("gather-xy/heads")
    stored = 2 * PLAIN.d_model * PLAIN.d_ff / 64
    found = communicated_activations(PLAIN, layout, CUBE, tokens) + 16 * stored
    formula = 4 * PLAIN.d_model * math.sqrt(tokens * PLAIN.d_ff / 64)
    assert found == pytest.approx(formula, rel=0.01)


def test_gathered_weights_are_counted_as_they_are_stored():
    prefill = Workload(phase="prefill", batch=512, context=2048, weights="bf16")
    half = dataclasses.replace(prefill, weights="int8")
    wide, narrow = (cost("gather-xyz/batch", work) for work in (prefill, half))
    assert wide.communicated_bytes == pytest.approx(2 * narrow.communicated_bytes)
    # Gathered over all chips, only weights move: all but the part that a chip has.
    assert wide.communicated_bytes == pytest.approx(2 * PALM.num_parameters * 63 / 64, rel=0.002)


def test_hops_follow_the_axes():
    assert hops_a_layer(layout_named("1d/heads"), CUBE) == 18
    assert hops_a_layer(layout_named("2d/heads"), CUBE) == 18
    assert hops_a_layer(layout_named("2d/batch"), CUBE) == 30
    assert hops_a_layer(layout_named("gather-xyz/batch"), CUBE) == 9


def test_attention_by_batch_divides_keys_and_values_by_the_chips():
    by_heads, by_batch = cost("2d/heads", decode()), cost("2d/batch", decode())
    assert by_heads.kv_bytes == 64 * by_batch.kv_bytes
    assert by_heads.kv_bytes == 64 * 2048 * PALM.kv_bytes_per_token(2)
    assert by_batch.memory_s < by_heads.memory_s


@pytest.mark.parametrize(("name", "published"), [("2d/batch", 10_700), ("2d/heads", 165)])
def test_the_longest_context_is_the_papers(name, published):
    # Table 1: batch 512, with 30 % of the memory for keys and values.
    kv_bytes = cost(name, decode(batch=512, context=1, weights="bf16")).kv_bytes
    assert 0.3 * TPU.hbm_bytes / kv_bytes == pytest.approx(published, rel=0.02)


def test_1d_pads_heads_that_the_chips_do_not_divide():
    assert cost("1d/heads", decode()).padded_heads == 64
    assert cost("2d/heads", decode()).padded_heads == 48
    assert cost("1d/heads", decode()).compute_s > cost("2d/heads", decode()).compute_s


def test_one_chip_communicates_nothing():
    one = MeshShape(x=1, y=1, z=1)
    tiny = PaLMConfig.preset("talipot-tiny")
    found = cost("1d/heads", decode(), one, tiny)
    assert found.communication_s == 0
    assert found.weight_bytes == tiny.num_parameters


@settings(max_examples=40)
@given(
    st.sampled_from(all_layouts()),
    st.sampled_from([2, 3, 6, 8, 12, 16, 64, 96]),
    st.sampled_from([1, 6, 8, 64, 512]),
    st.sampled_from(["prefill", "decode"]),
)
def test_costs_are_positive_and_grow_with_the_work(layout, chips, batch, phase):
    config = PaLMConfig.preset("palm-8b")
    mesh = choose_mesh(config, chips)
    if exclusion(layout, mesh, batch) is not None:
        return
    work = Workload(phase=phase, batch=batch, context=512, weights="bf16")
    longer = dataclasses.replace(work, context=1024)
    less, more = (
        step_cost(config, layout, mesh, one, TPU, Calibration()) for one in (work, longer)
    )
    for field in ("compute_s", "memory_s", "kv_bytes", "activation_bytes"):
        assert 0 < getattr(less, field) < getattr(more, field)
    assert 0 <= less.transfer_s <= more.transfer_s
    assert less.weight_bytes == more.weight_bytes
    # No chip holds less than its share of the weights.
    assert config.num_parameters / chips <= less.weight_bytes / 2


def test_unsplit_parameters_are_all_on_every_chip():
    whole = dict.fromkeys(("vocab", "heads", "ff", "model", "kv_heads", "head_dim"), ())
    assert held_parameters(PLAIN, whole, CUBE) == PLAIN.num_parameters


def test_data_sheets_and_calibrations_are_checked():
    with pytest.raises(ConfigError, match="hbm_bytes=0 must be above 0 and finite"):
        dataclasses.replace(TPU, hbm_bytes=0)
    with pytest.raises(ConfigError, match=r"compute_efficiency=1.1 must be above 0 and at most 1"):
        Calibration(compute_efficiency=1.1)
    with pytest.raises(ConfigError, match=r"hop_latency_us=-1 must be from 0 to 1000000"):
        Calibration(hop_latency_us=-1)


@pytest.mark.parametrize(
    ("field", "value", "limit"),
    [
        ("batch", 0, "at least 1"),
        ("context", 0, "at least 1"),
        ("phase", "train", "one of ('prefill', 'decode')"),
        ("weights", "int4", "one of ('int8', 'bf16')"),
    ],
)
def test_workloads_are_checked(field, value, limit):
    with pytest.raises(ConfigError) as caught:
        dataclasses.replace(decode(), **{field: value})
    assert f"{field}={value!r} must be {limit}" in str(caught.value)
