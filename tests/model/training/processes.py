"""Training in a process of its own, which can be killed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).parents[3]


@contextlib.contextmanager
def training(
    folder: Path, settings: dict[str, Any], *, devices: int = 1
) -> Iterator[subprocess.Popen[str]]:
    """A process that trains; what it reports can be read from its output.

    What one process compiled, the next in the same folder loads: tests are long enough.
    """
    path = folder / "settings.json"
    path.write_text(json.dumps(settings))
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.model.training.run_training", path, folder / "weights.npz"],
        cwd=ROOT,
        env={
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS": "0",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def train_to_the_end(
    folder: Path, settings: dict[str, Any], *, devices: int = 1
) -> dict[str, NDArray[np.float32]]:
    """The weights after the last step."""
    with training(folder, settings, devices=devices) as process:
        _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    with np.load(folder / "weights.npz") as arrays:
        return dict(arrays)


def kill_after(folder: Path, settings: dict[str, Any], step: int) -> None:
    """Start (or resume) a run and kill it with SIGKILL once it reported `step`."""
    with training(folder, settings) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(f"step {step}/"):
                process.kill()
                break
        else:
            assert process.stderr is not None
            raise AssertionError(f"step {step} was not reported: {process.stderr.read()}")
