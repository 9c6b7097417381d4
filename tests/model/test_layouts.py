"""Every layout on a mesh of eight devices: the same logits, and the collectives it promises."""

import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jax
import pytest
from jax.sharding import AbstractMesh

from model.activations import place, under_layout
from model.config import PaLMConfig
from model.errors import ConfigError
from model.kv_cache import attend_and_store
from model.layout_rules import (
    MESH_AXES,
    Layout,
    activation_rules,
    all_layouts,
    dividing,
    mesh_axes,
    used_weight_rules,
    weight_rules,
)
from model.own_pages import on_own_pages
from model.parameters import declare_parameters
from model.partition import layout_shardings, make_layout_mesh, partition_spec

ROOT = Path(__file__).parents[2]
MAX_DIFFERENCE = 1e-4
LAYOUTS = [layout.name for layout in all_layouts()]
# Every feed-forward layout, and both of attention, with sizes that the mesh does not divide.
PADDED = ("1d/heads", "2d/batch", "gather-x/batch", "gather-xy/heads", "gather-xyz/batch")
# What `layout_forward` runs: [B, T] tokens, D, N, H and F; mesh (2, 2, 2).
B, T, D, N, H, F = 8, 10, 16, 8, 4, 32
X, YZ = 2, 4


def layout_named(name: str) -> Layout:
    feed_forward, attention = name.split("/")
    return Layout(feed_forward=feed_forward, attention=attention)


@pytest.fixture(scope="module")
def on_eight_devices():
    """What `layout_forward` found, by case."""
    finished = subprocess.run(
        [sys.executable, "-m", "tests.model.layout_forward"],
        cwd=ROOT,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            # Fast code is not asked for: compiling is most of what this costs.
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8 "
            "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
        },
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.parametrize(
    "case",
    [
        *(f"even {name}" for name in LAYOUTS),
        *(f"odd {name}" for name in PADDED),
        "grouped 1d/heads",
        "grouped 2d/batch",
        "flat 2d/batch",
        "wide 2d/heads",
        "six 2d/batch",
        "four 2d/batch",
        "chunk 2d/batch",
        "chunk gather-x/heads",
    ],
)
def test_a_layout_computes_what_one_unpadded_device_computes(on_eight_devices, case):
    differences = on_eight_devices[case]["differences"]
    assert max(differences[key] for key in ("logits", "hidden", "cache")) <= MAX_DIFFERENCE
    # No token is chosen from a row that only fills the mesh.
    assert differences["highest_padding_logit"] <= -1e29


def collectives(found, name: str, phase: str) -> dict[str, int]:
    """Operations a layer, by kind."""
    layer = found[f"even {name}"]["a_layer"][phase]
    return {key: count for key, count in layer.items() if "[" not in key}


def arrays(found, name: str, phase: str, operation: str) -> Counter[tuple[int, ...]]:
    """Shapes a layer that one kind of operation results in, axes of size 1 left out."""
    shapes: Counter[tuple[int, ...]] = Counter()
    for key, count in found[f"even {name}"]["a_layer"][phase].items():
        matched = re.fullmatch(rf"{operation}\[([\d,]*)\]", key)
        if matched:
            shapes[tuple(int(s) for s in matched[1].split(",") if s not in ("", "1"))] += count
    return shapes


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_1d_reduces_once_a_layer(on_eight_devices, phase):
    # Pope et al. 2022, section 3.2.1: the parallel block's sum, and nothing else. XLA's CPU
    # backend sums attention and feed-forward layer as two arrays of that one operation.
    assert collectives(on_eight_devices, "1d/heads", phase) == {"all-reduce": 1}
    tokens = B * (T if phase == "prefill" else 1)
    assert arrays(on_eight_devices, "1d/heads", phase, "all-reduce") == {(tokens, D): 2}


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_attention_by_batch_is_two_all_to_alls_a_layer(on_eight_devices, phase):
    # Section 3.3: queries to their sequences' chips, and attention's output back.
    found = collectives(on_eight_devices, "1d/batch", phase)
    assert found == {"all-reduce": 1, "all-to-all": 2}
    moved = arrays(on_eight_devices, "1d/batch", phase, "all-to-all")
    # Each chip keeps or sends all it has once: B·T·N·H / 8 numbers, twice.
    sizes = sum(count * math.prod(shape) for shape, count in moved.items())
    assert sizes == 2 * B * (T if phase == "prefill" else 1) * N * H // 8


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_2d_reduces_over_x_and_over_yz(on_eight_devices, phase):
    # Section 3.2.2 in its all-reduce form: where the paper has a reduce-scatter and, after an
    # elementwise step, an all-gather, XLA's CPU backend has one all-reduce of the same array.
    tokens = B * (T if phase == "prefill" else 1)
    assert set(collectives(on_eight_devices, "2d/heads", phase)) == {"all-reduce"}
    reduced = arrays(on_eight_devices, "2d/heads", phase, "all-reduce")
    sums_over_x = Counter({(tokens, F // YZ): 2, (tokens, H): 2})  # up, gate; key, value
    sums_over_x[(tokens, N * H // YZ)] += 1  # query
    sums_over_yz = Counter({(tokens, D // X): 2})  # attention, feed-forward
    statistics = Counter({(B, T) if phase == "prefill" else (B,): 2})  # mean and variance
    assert reduced == sums_over_x + sums_over_yz + statistics


@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_2d_by_batch_sends_whole_heads(on_eight_devices, phase):
    found = collectives(on_eight_devices, "2d/batch", phase)
    assert found["all-to-all"] == 2
    # Back from attention, the sequences of the chips along x are gathered: heads stay split.
    gathered = arrays(on_eight_devices, "2d/batch", phase, "all-gather")
    assert gathered == {((B, T) if phase == "prefill" else (B,)) + (N // YZ, H): 1}


@pytest.mark.parametrize("attention", ["heads", "batch"])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
@pytest.mark.parametrize(("layout", "rest"), [("gather-x", 4), ("gather-xy", 2), ("gather-xyz", 1)])
def test_gathered_weights_leave_the_tokens_in_place(
    on_eight_devices, layout, rest, phase, attention
):
    name = f"{layout}/{attention}"
    gathered = arrays(on_eight_devices, name, phase, "all-gather")
    heads, ff = N // rest, F // rest
    kernels = Counter([(D, ff), (D, ff), (ff, D), (D, heads, H), (heads, H, D)])
    assert kernels - gathered == Counter()
    found = collectives(on_eight_devices, name, phase)
    # Section 3.2.3: gathered over all chips, the weights are all that is communicated.
    assert found.get("all-reduce", 0) == (0 if rest == 1 else 1)
    assert found.get("all-to-all", 0) == (2 if attention == "batch" and rest > 1 else 0)
    tokens = B * (T if phase == "prefill" else 1) * rest // 8
    reduced = arrays(on_eight_devices, name, phase, "all-reduce")
    assert reduced == ({} if rest == 1 else {tuple(s for s in (tokens, D) if s > 1): 2})
    assert "collective-permute" not in found


@pytest.mark.parametrize("layout", all_layouts(), ids=lambda layout: layout.name)
@pytest.mark.parametrize("rules", [weight_rules, used_weight_rules])
def test_no_layout_puts_two_axes_of_a_parameter_on_one_mesh_axis(layout, rules, tiny_config):
    for spec in declare_parameters(tiny_config).values():
        mesh_axes(spec.axes, rules(layout))


@pytest.mark.parametrize("layout", all_layouts(), ids=lambda layout: layout.name)
def test_no_layout_puts_two_axes_of_an_activation_on_one_mesh_axis(layout):
    for axes in (
        ("batch", "length", "model"),
        ("batch", "length", "ff"),
        ("batch", "length", "heads", "head_dim"),
        ("resharded_batch", "length", "heads", "head_dim"),
        ("attention_batch", "length", "attention_heads", "head_dim"),
    ):
        mesh_axes(axes, activation_rules(layout))


def test_two_axes_on_one_mesh_axis_are_refused():
    rules = activation_rules(layout_named("2d/batch"))
    with pytest.raises(ConfigError, match="fall on one mesh axis twice"):
        mesh_axes(("attention_batch", "length", "heads", "head_dim"), rules)
    with pytest.raises(ConfigError, match="fall on one mesh axis twice"):
        partition_spec(("ff", "vocab"), weight_rules(layout_named("2d/batch")))


@pytest.mark.parametrize(
    ("name", "up", "embedding", "query"),
    [
        ("1d/heads", (None, MESH_AXES), (MESH_AXES, None), (None, MESH_AXES, None)),
        ("2d/heads", ("x", ("y", "z")), (("y", "z"), "x"), ("x", ("y", "z"), None)),
    ],
)
def test_where_parameters_are_stored(name, up, embedding, query):
    mesh = AbstractMesh((4, 4, 4), MESH_AXES)
    found = layout_shardings(PaLMConfig.preset("palm-8b"), layout_named(name), mesh)

    def axes(of: str) -> list[set[str]]:
        return [_axis_set(over) for over in found[of].spec]

    assert axes("layers.0.mlp.up") == [_axis_set(over) for over in up]
    assert axes("embedding") == [_axis_set(over) for over in embedding]
    assert axes("layers.0.attention.query") == [_axis_set(over) for over in query]


def _axis_set(over: object) -> set[str]:
    if over is None:
        return set()
    return {over} if isinstance(over, str) else set(over)


def test_gathered_weights_are_stored_as_2d_stores_them():
    stored = weight_rules(layout_named("2d/heads"))
    for name in LAYOUTS:
        if name.startswith("gather"):
            assert weight_rules(layout_named(name)) == stored


def test_an_unknown_layout_is_refused():
    with pytest.raises(ConfigError, match=r"feed_forward='3d' must be one of .*'gather-xyz'"):
        Layout(feed_forward="3d", attention="heads")
    with pytest.raises(ConfigError, match=r"attention='rows' must be one of .*'batch'"):
        Layout(feed_forward="2d", attention="rows")


def test_a_size_is_split_over_the_leading_axes_that_divide_it():
    shape = {"x": 2, "y": 3, "z": 4}
    assert dividing(24, ("x", "y", "z"), shape) == ("x", "y", "z")
    assert dividing(6, ("x", "y", "z"), shape) == ("x", "y")
    assert dividing(3, ("x", "y", "z"), shape) == ()


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 2), (0, 1, 1), (1, 1, 1, 1)])
def test_a_mesh_that_the_devices_do_not_fill_is_refused(shape):
    with pytest.raises(ConfigError, match=r"must be 3 sizes .* whose product is the 1 devices"):
        make_layout_mesh(shape, jax.devices()[:1])


def test_pages_that_the_chips_cannot_share_out_are_refused():
    mesh = AbstractMesh((2, 2, 2), MESH_AXES)
    new, pool = jax.numpy.ones((4, 1, 1, 4)), jax.numpy.ones((7, 2, 1, 4))
    pages, start = jax.numpy.ones((4, 3), int), jax.numpy.ones(4, int)
    message = r"num_pages=7 must be a multiple of the 4 chips that layout 2d/batch .* batch of 4"
    with (
        under_layout(layout_named("2d/batch"), mesh),
        pytest.raises(ConfigError, match=message),
    ):
        on_own_pages(attend_and_store, (new, new, new), (pool, pool), pages, start)


def test_a_trace_under_one_layout_is_not_taken_for_another():
    mesh = make_layout_mesh((1, 1, 1), jax.devices()[:1])
    traces = []

    @jax.jit
    def traced(x: jax.Array) -> jax.Array:
        traces.append(None)
        return place(x, "batch", "ff")

    x = jax.numpy.ones((2, 2))
    traced(x)
    with under_layout(layout_named("1d/heads"), mesh):
        traced(x)
        traced(x)
    with under_layout(layout_named("2d/heads"), mesh):
        traced(x)
    traced(x)
    assert len(traces) == 3


def test_without_a_layout_nothing_is_constrained():
    text = jax.jit(lambda x: place(x, "batch", "ff")).lower(jax.numpy.ones((2, 2))).as_text()
    assert "sharding_constraint" not in text
