"""Partition rules, and the model on a mesh of eight devices against one device."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

from model.config import PaLMConfig
from model.errors import ConfigError
from model.palm import declare_parameters
from model.partition import (
    DATA_AXIS,
    LOGICAL_RULES,
    MODEL_AXIS,
    make_mesh,
    parameter_shardings,
    partition_spec,
)

ROOT = Path(__file__).parents[2]
MAX_DIFFERENCE = 1e-4


def test_every_logical_axis_has_a_rule(tiny_config):
    config = dataclasses.replace(tiny_config, qk_norm=True, tied_embeddings=False)
    used = {axis for spec in declare_parameters(config).values() for axis in spec.axes}
    assert used == set(LOGICAL_RULES)


def test_kernels_are_split_along_heads_ff_and_vocab_alone():
    assert partition_spec(("model", "heads", "head_dim")) == PartitionSpec(None, MODEL_AXIS, None)
    assert partition_spec(("heads", "head_dim", "model")) == PartitionSpec(MODEL_AXIS, None, None)
    assert partition_spec(("model", "kv_heads", "head_dim")) == PartitionSpec(None, None, None)
    assert partition_spec(("model", "ff")) == PartitionSpec(None, MODEL_AXIS)
    assert partition_spec(("ff", "model")) == PartitionSpec(MODEL_AXIS, None)
    assert partition_spec(("vocab", "model")) == PartitionSpec(MODEL_AXIS, None)
    assert partition_spec(("model",)) == PartitionSpec(None)


@pytest.mark.parametrize("axes", [("heads", "ff"), ("ff", "model", "ff"), ("vocab", "heads")])
def test_two_logical_axes_on_one_mesh_axis_are_refused(axes):
    with pytest.raises(ConfigError, match="fall on one mesh axis twice") as caught:
        partition_spec(axes)
    assert str(axes) in str(caught.value)


def test_rules_of_another_layout_are_held_to_the_same():
    rules = {**LOGICAL_RULES, "model": DATA_AXIS}
    assert partition_spec(("model", "ff"), rules) == PartitionSpec(DATA_AXIS, MODEL_AXIS)
    with pytest.raises(ConfigError, match="twice"):
        partition_spec(("model", "ff"), {**rules, "model": MODEL_AXIS})


def test_an_axis_without_a_rule_is_named_with_the_known_ones():
    with pytest.raises(ConfigError, match=r"\['width'\] have no rule; known: .*'vocab'"):
        partition_spec(("model", "width"))


def test_a_mesh_takes_all_devices_by_default():
    mesh = make_mesh()
    assert dict(mesh.shape) == {DATA_AXIS: len(jax.devices()), MODEL_AXIS: 1}


@pytest.mark.parametrize("model_axis", [0, -1, 2, 3])
def test_a_mesh_that_the_devices_do_not_fill_is_refused(model_axis):
    with pytest.raises(ConfigError, match=rf"model_axis={model_axis} must divide the 1 devices"):
        make_mesh(jax.devices()[:1], model_axis=model_axis)


def test_the_largest_model_is_split_evenly_over_a_pod_without_memory():
    config = PaLMConfig.preset("palm-540b")
    shardings = parameter_shardings(config, AbstractMesh((1, 16), (DATA_AXIS, MODEL_AXIS)))
    arrays = len(jax.live_arrays())
    held = sum(
        spec.size // (16 if any(shardings[name].spec) else 1)
        for name, spec in declare_parameters(config).items()
    )
    # All but the shared key/value head and the norms is cut in 16.
    assert config.num_parameters / 16 < held < config.num_parameters / 16 * 1.04
    assert len(jax.live_arrays()) == arrays


def test_an_axis_that_the_mesh_does_not_divide_is_kept_whole(tiny_config):
    mesh = AbstractMesh((1, 8), (DATA_AXIS, MODEL_AXIS))
    specs = {name: split.spec for name, split in parameter_shardings(tiny_config, mesh).items()}
    # 53 ids and 4 heads stay whole; 24 of the feed-forward layer are cut in 8.
    assert specs["embedding"] == PartitionSpec(None, None)
    assert specs["layers.0.attention.query"] == PartitionSpec(None, None, None)
    assert specs["layers.0.mlp.up"] == PartitionSpec(None, MODEL_AXIS)


@pytest.fixture(scope="module")
def on_eight_devices():
    """What `sharded_forward` found, by case."""
    finished = subprocess.run(
        [sys.executable, "-m", "tests.model.sharded_forward"],
        cwd=ROOT,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)


@pytest.mark.parametrize("case", ["even-2", "even-4", "even-8", "deeper-8", "odd-4"])
def test_a_mesh_computes_what_one_device_computes(on_eight_devices, case):
    assert on_eight_devices[case]["logits_difference"] <= MAX_DIFFERENCE
    assert on_eight_devices[case]["step_difference"] <= MAX_DIFFERENCE


@pytest.mark.parametrize("model_axis", [2, 4, 8])
def test_each_device_holds_its_part_of_a_kernel(on_eight_devices, model_axis):
    found = on_eight_devices[f"even-{model_axis}"]["up_shard_shape"]
    assert found == [16, 32 // model_axis]


@pytest.mark.parametrize(("case", "layers"), [("even-2", 2), ("even-8", 2), ("deeper-8", 3)])
def test_a_layer_communicates_once(on_eight_devices, case, layers):
    # One all-reduce a parallel block (Pope et al. 2022, section 3.2) and one for the embedding.
    found = on_eight_devices[case]
    assert found["all_reduces"] == layers + 1
    assert found["other_collectives"] == 0
    # XLA combines the sums of attention and feed-forward layer into one operation of two arrays.
    assert found["reduced_arrays"] <= 2 * layers + 1
