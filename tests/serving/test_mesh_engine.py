"""A whole engine on 8 devices gives the tokens of one device, whatever the layout and the mesh."""

import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.serving.mesh_engine import CASES, ENGINE, EVEN

ROOT = Path(__file__).parents[2]
MAX_LOGPROB_DIFFERENCE = 1e-4


@pytest.fixture(scope="module")
def on_eight_devices():
    """What `mesh_engine` found, by case."""
    finished = subprocess.run(
        [sys.executable, "-m", "tests.serving.mesh_engine"],
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


@pytest.mark.parametrize("case", CASES)
def test_the_tokens_are_those_of_one_device(on_eight_devices, case):
    found = on_eight_devices[case]
    expected = on_eight_devices[found["model"]]
    assert found["enough"]["tokens"] == expected["tokens"]
    difference = np.subtract(found["enough"]["logprobs"], expected["logprobs"])
    assert np.abs(difference).max() <= MAX_LOGPROB_DIFFERENCE
    assert found["is_batch_invariant"]


@pytest.mark.parametrize("case", CASES)
def test_prefixes_are_shared_on_the_mesh(on_eight_devices, case):
    assert on_eight_devices[case]["enough"]["cached"] > 0


@pytest.mark.parametrize("case", CASES)
def test_a_request_that_gives_its_pages_up_ends_with_the_same_tokens(on_eight_devices, case):
    found = on_eight_devices[case]
    assert found["few"]["preemptions"] > 0
    assert found["few"]["tokens"] == on_eight_devices[found["model"]]["tokens"]


@pytest.mark.parametrize("case", CASES)
def test_no_forbidden_ngram_is_said_on_the_mesh(on_eight_devices, case):
    forbidden = on_eight_devices[case]["enough"]["forbidden"]
    assert forbidden["True"] == 0
    assert forbidden["False"] > 0


def a_layer(found, case: str) -> Counter[tuple[str, tuple[int, ...]]]:
    """(operation, shape of an array without axes of size 1) to how often."""
    counted: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for key, count in found[case]["a_layer"].items():
        operation, sizes = re.fullmatch(r"([a-z-]+)\[([\d,]*)\]", key).groups()
        shape = tuple(int(size) for size in sizes.split(",") if size not in ("", "1"))
        counted[operation, shape] += count
    return counted


def test_a_layer_of_a_decode_step_under_1d_reduces_once(on_eight_devices):
    # Attention and feed-forward layer are two arrays of one all-reduce (docs/sharding.md).
    layer = a_layer(on_eight_devices, "even 1d/heads 8,1,1")
    assert layer == {("all-reduce", (ENGINE.max_slots, EVEN.d_model)): 2}


def test_attention_by_batch_adds_two_exchanges_and_sends_no_page(on_eight_devices):
    layer = a_layer(on_eight_devices, "even 1d/batch 2,2,2")
    rows = 16  # 9 slots, padded to a multiple of the devices
    assert layer.pop(("all-reduce", (rows, EVEN.d_model))) == 2
    assert {name for name, _ in layer} == {"all-to-all"}
    moved = sum(count * math.prod(shape) for (_, shape), count in layer.items())
    assert moved == 2 * rows * EVEN.num_heads * EVEN.head_dim // 8


def test_a_checkpoint_is_read_into_its_places(on_eight_devices):
    found = on_eight_devices["loading"]
    assert found["is_same"]
    assert found["logits_difference"] <= 1e-4
