"""A run that is killed goes on through bitwise the same losses and weights."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.errors import ConfigError
from model.training.checkpoints import RunCheckpoints
from model.training.run import train
from model.training.step import TrainState
from tests.model.training.processes import kill_after, train_to_the_end
from tests.model.training.settings import (
    BATCH_SIZE,
    losses,
    read_metrics,
    run_settings,
    write_documents,
)

STAGES = [
    {"step": 0, "batch_size": BATCH_SIZE, "seq_len": 16},
    {"step": 6, "batch_size": BATCH_SIZE // 2, "seq_len": 32},
]


def _settings(folder: Path, tokenizer_file: Path) -> dict[str, Any]:
    return run_settings(folder, tokenizer_file, stages=STAGES, checkpoint_every=2)


@pytest.fixture(scope="module")
def uninterrupted(tokenizer_file, tmp_path_factory) -> tuple[dict[str, Any], dict[int, float]]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    weights = train_to_the_end(folder, _settings(folder, tokenizer_file))
    return weights, losses(folder / "run")


def test_a_run_killed_again_and_again_ends_with_the_losses_and_weights_of_one_that_was_not(
    uninterrupted, tokenizer_file, tmp_path
):
    settings = _settings(tmp_path, tokenizer_file)
    # Before the first checkpoint; while others are being written; in the next stage; at the last.
    for step in (1, 4, 7, 12):
        kill_after(tmp_path, settings, step)
    found = train_to_the_end(tmp_path, settings)
    weights, expected = uninterrupted
    assert losses(tmp_path / "run") == expected
    assert found.keys() == weights.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, weights[name], err_msg=name)
    # A checkpoint is whole when the next begins, so the last two processes went on from one.
    taken = [record["step"] for record in read_metrics(tmp_path / "run") if "loss" in record]
    assert taken.count(1) <= 3
    assert taken.count(8) == 1


@pytest.fixture(scope="module")
def large_state() -> TrainState:
    """So much that writing it takes far longer than the next step."""
    params = {f"{i}": jnp.full((512, 1024), i, jnp.float32) for i in range(8)}
    return TrainState(params, {"count": jnp.zeros((), jnp.int32)})


def test_a_checkpoint_holds_the_state_as_it_was_saved_though_the_next_step_takes_its_memory(
    large_state, tmp_path
):
    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: TrainState) -> TrainState:
        return jax.tree.map(lambda x: x + 1, state)

    checkpoints = RunCheckpoints(tmp_path, keep=9)
    state = jax.tree.map(jnp.copy, large_state)
    for number in range(1, 6):
        state = step(state)
        checkpoints.save(number, state)
    state = step(state)
    checkpoints.wait()
    assert checkpoints.steps() == [1, 2, 3, 4, 5]
    for number in (1, 3, 5):
        saved = checkpoints.restore(number, state)
        expected = jax.tree.map(lambda x, n=number: x + n, large_state)
        jax.tree.map(np.testing.assert_array_equal, saved, expected)
    checkpoints.close()


def test_only_the_newest_checkpoints_are_kept(tmp_path):
    checkpoints = RunCheckpoints(tmp_path, keep=2)
    state = TrainState({"w": jnp.zeros(3)}, {"count": jnp.zeros((), jnp.int32)})
    for number in (2, 4, 6):
        checkpoints.save(number, state)
    checkpoints.wait()
    assert checkpoints.steps() == [4, 6]
    checkpoints.close()


def test_a_finished_run_takes_no_further_step(finished_run, tmp_path):
    config = finished_run.copied_to(tmp_path / "run")
    said: list[str] = []
    again = train(config, report=said.append)
    assert f"resumed before step {config.steps}" in said
    assert losses(tmp_path / "run") == losses(finished_run.run_dir)
    jax.tree.map(np.testing.assert_array_equal, again.params, finished_run.result.params)
    assert again.heldout == finished_run.result.heldout


@pytest.mark.parametrize("key", ["seed", "model", "data"])
def test_another_run_does_not_go_on_in_the_same_folder(key, finished_run, tmp_path):
    config = finished_run.copied_to(tmp_path / "run")
    changes = {
        "seed": config.seed + 1,
        "model": dataclasses.replace(config.model, d_ff=48),
        "data": dataclasses.replace(config.data, repeats=(2,)),
    }
    other = dataclasses.replace(config, **{key: changes[key]})
    with pytest.raises(ConfigError, match=f"holds a run with {key}=.*; choose another"):
        train(other, report=lambda _: None)


def test_a_run_that_cannot_begin_leaves_no_trace_of_its_settings(finished_run, tmp_path):
    missing = dataclasses.replace(finished_run.config.data, train=(str(tmp_path / "none.jsonl"),))
    config = dataclasses.replace(finished_run.config, run_dir=str(tmp_path / "run"), data=missing)
    with pytest.raises(ConfigError, match=r"none\.jsonl does not exist"):
        train(config, report=lambda _: None)
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_of_another_size_is_refused(finished_run, tmp_path):
    model = dataclasses.replace(finished_run.config.model, vocab_size=401)
    config = dataclasses.replace(finished_run.config, run_dir=str(tmp_path / "run"), model=model)
    with pytest.raises(ConfigError, match="vocab_size=401 differs from the 400 pieces"):
        train(config, report=lambda _: None)


def test_heldout_text_shorter_than_a_window_is_refused_before_the_first_step(
    finished_run, tmp_path
):
    short = write_documents(tmp_path / "short.jsonl", ("12",))
    data = dataclasses.replace(finished_run.config.data, heldout=str(short))
    config = dataclasses.replace(finished_run.config, run_dir=str(tmp_path / "run"), data=data)
    with pytest.raises(
        ConfigError, match=r"has 3 tokens; one window of stages\.seq_len=16 needs 17"
    ):
        train(config, report=lambda _: None)
