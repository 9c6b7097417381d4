"""Loading holds the weights once, and less than two more copies of the largest tensor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import model
from model.checkpoint import Pretrained, export_huggingface, save_pretrained
from model.config import PaLMConfig
from model.palm import init_parameters

MIB = 1 << 20

# Runs by itself, so that the peak is that of loading alone. The peak of the kernel's own counter
# (VmHWM) includes whatever libraries allocate, which tracing Python's allocations would miss.
MEASURE = """
import json, sys
import numpy as np
from model.checkpoint import load_pretrained
from model.parameters import flatten
from model.partition import make_mesh

def status(key):
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith(key + ":"))
    return int(line.split()[1]) * 1024

warm, folder, model_axis = sys.argv[1:]
mesh = make_mesh(model_axis=int(model_axis)) if int(model_axis) else None
sharded = flatten(load_pretrained(warm, dtype="float32", mesh=mesh).params)
whole = flatten(load_pretrained(warm, dtype="float32").params)
assert all(np.array_equal(array, whole[name]) for name, array in sharded.items())
before = status("VmRSS")
peak_before = status("VmHWM") - before
pretrained = load_pretrained(folder, dtype="float32", mesh=mesh)
arrays = list(flatten(pretrained.params).values())
held = sum(shard.data.nbytes for array in arrays for shard in array.addressable_shards)
largest = max(array.nbytes for array in arrays)
print(json.dumps({
    "held": held,
    "largest": largest,
    "grown": status("VmHWM") - before,
    "peak_before": peak_before,
}))
"""


def pretrained(**size) -> Pretrained:
    config = PaLMConfig(name="large", num_layers=1, num_heads=4, **size)
    params = init_parameters(config, jax.random.key(0))
    return Pretrained(name=config.name, config=config, params=params, tokenizer=None)


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> Path:
    """Checkpoints of 256 MiB in four matrices of 64, and tiny ones to load before measuring."""
    root = tmp_path_factory.mktemp("memory")
    sizes = {
        "large": {"vocab_size": 16384, "d_model": 1024, "d_ff": 16384, "head_dim": 64},
        "small": {"vocab_size": 64, "d_model": 64, "d_ff": 128, "head_dim": 16},
    }
    for name, size in sizes.items():
        model_ = pretrained(**size)
        export_huggingface(model_, root / f"{name}-huggingface", max_shard_bytes=100 * MIB)
        for kind in ("float32", "int8"):
            target = root / f"{name}-{kind}"
            save_pretrained(target, model_.config, model_.params, None, weight_format=kind)
    return root


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's memory counters")
@pytest.mark.parametrize("kind", ["huggingface", "float32", "int8"])
@pytest.mark.parametrize("devices", [1, 4])
def test_peak_host_memory_while_loading(folders, kind, devices):
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": str(Path(model.__file__).parent.parent),
    }
    model_axis = str(devices if devices > 1 else 0)
    arguments = [str(folders / f"{size}-{kind}") for size in ("small", "large")]
    output = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments, model_axis],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    measured = json.loads(output)
    print(kind, devices, {key: f"{value / MIB:.1f} MiB" for key, value in measured.items()})
    assert measured["held"] > 256 * MIB
    assert measured["largest"] == 64 * MIB
    assert measured["peak_before"] <= measured["held"], "an older peak would hide this one"
    assert measured["grown"] <= measured["held"] + 2 * measured["largest"]
