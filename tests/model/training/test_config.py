"""A run's TOML: what is wrong is named, with its value and what would be right."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from model.config import PaLMConfig
from model.errors import ConfigError
from model.training.config import Stage, TrainingConfig

SHIPPED = Path(__file__).parents[3] / "model/embedded/talipot-tiny/training.toml"

GOOD: dict[str, Any] = {
    "run_dir": "run",
    "steps": 10,
    "model": {"preset": "talipot-tiny", "max_seq_len": 64},
    "data": {"train": ["a.jsonl", "b.jsonl"], "tokenizer": "tokenizer.model"},
    "optimizer": {},
    "spikes": {},
    "stages": [{"step": 0, "batch_size": 2, "seq_len": 8}],
}


def _with(path: str, value: object) -> dict[str, Any]:
    """The good settings with one changed, at a dotted path."""
    values = copy.deepcopy(GOOD)
    *sections, key = path.split(".")
    table = values
    for section in sections:
        table = table[section][0] if section == "stages" else table[section]
    table[key] = value
    return values


# Files


def test_a_file_is_read_with_all_defaults(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'run_dir = "run"\nsteps = 10\nmodel.preset = "talipot-tiny"\nmodel.max_seq_len = 64\n'
        'data.train = ["a.jsonl", "b.jsonl"]\ndata.tokenizer = "tokenizer.model"\n'
        "[[stages]]\nstep = 0\nbatch_size = 2\nseq_len = 8\n"
    )
    assert TrainingConfig.from_toml(path) == TrainingConfig.from_dict(GOOD)


def test_the_shipped_config_is_read():
    config = TrainingConfig.from_toml(SHIPPED)
    assert config.model.name == "talipot-tiny"
    assert len(config.data.repeats) == len(config.data.train)
    assert config.data.heldout not in config.data.train
    assert Path(config.export_dir or "") == SHIPPED.parent.relative_to(SHIPPED.parents[3])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml does not exist"):
        TrainingConfig.from_toml(tmp_path / "none.toml")


def test_a_folder_is_no_config(tmp_path):
    with pytest.raises(ConfigError, match="cannot read training config"):
        TrainingConfig.from_toml(tmp_path)


@pytest.mark.parametrize("content", [b"steps = = 3", b"\xff\xfe"])
def test_what_is_not_toml_is_refused_with_the_files_name(tmp_path, content):
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"run\.toml is not valid TOML"):
        TrainingConfig.from_toml(path)


# Keys


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("speed", r"unknown keys \['speed'\] in training config; known: .*'steps'"),
        ("model.speed", r"unknown model config keys \['speed'\]"),
        ("data.speed", r"unknown keys \['speed'\] in data; known: .*'tokenizer'"),
        ("optimizer.speed", r"unknown keys \['speed'\] in optimizer; known: .*'z_loss'"),
        ("spikes.speed", r"unknown keys \['speed'\] in spikes; known: .*'window'"),
        ("stages.speed", r"unknown keys \['speed'\] in stages; known: .*'seq_len'"),
    ],
)
def test_an_unknown_key_is_named_with_its_section_and_the_known_ones(path, message):
    with pytest.raises(ConfigError, match=message):
        TrainingConfig.from_dict(_with(path, 3))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("run_dir", r"training config lacks the keys \['run_dir'\]"),
        ("steps", r"training config lacks the keys \['steps'\]"),
        ("data", r"data lacks the keys \['tokenizer', 'train'\]"),
        ("model", r"model config lacks the keys"),
        ("stages", r"stages=\[\] must be stages whose steps start at 0"),
        ("data.train", r"data lacks the keys \['train'\]"),
        ("stages.seq_len", r"stages lacks the keys \['seq_len'\]"),
    ],
)
def test_a_missing_key_is_named_with_its_section(path, message):
    values = copy.deepcopy(GOOD)
    *sections, key = path.split(".")
    table = values
    for section in sections:
        table = table[section][0] if section == "stages" else table[section]
    del table[key]
    with pytest.raises(ConfigError, match=message):
        TrainingConfig.from_dict(values)


# Types


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("steps", "many", "steps='many' must be an integer"),
        ("steps", 10.0, "steps=10.0 must be an integer"),
        ("steps", True, "steps=True must be an integer"),
        ("seed", 1.5, "seed=1.5 must be an integer"),
        ("run_dir", 3, "run_dir=3 must be a string"),
        ("checkpoint_every", "5", "checkpoint_every='5' must be an integer"),
        ("keep", [3], "keep=(3,) must be an integer"),
        ("peak_flops", "1e12", "peak_flops='1e12' must be a number"),
        ("export_dir", False, "export_dir=False must be a string"),
        ("export_format", "int4", "export_format='int4' must be one of ('float32', "),
        ("export_format", 8, "export_format=8 must be one of ('float32', "),
        ("model", "tiny", "model config must be an object"),
        ("model.preset", 3, "preset=3 is unknown"),
        ("model.num_layers", "6", "num_layers='6' must be an integer"),
        ("data", ["a.jsonl"], "data=['a.jsonl'] must be a table"),
        ("data.train", "a.jsonl", "data.train='a.jsonl' must be a list of strings"),
        ("data.train", {"a": 1}, "data.train={'a': 1} must be a list of strings"),
        ("data.train", [1, 2], "data.train=(1, 2) must be a list of strings"),
        ("data.repeats", 2, "data.repeats=2 must be a list of integers"),
        ("data.repeats", [1, 0.5], "data.repeats=(1, 0.5) must be a list of integers"),
        ("data.heldout", ["b.jsonl"], "data.heldout=('b.jsonl',) must be a string"),
        ("data.tokenizer", 1, "data.tokenizer=1 must be a string"),
        ("optimizer", 0.1, "optimizer=0.1 must be a table"),
        ("optimizer.learning_rate", "fast", "optimizer.learning_rate='fast' must be a number"),
        ("optimizer.learning_rate", True, "optimizer.learning_rate=True must be a number"),
        ("optimizer.hold_steps", 1e4, "optimizer.hold_steps=10000.0 must be an integer"),
        ("spikes", "none", "spikes='none' must be a table"),
        ("spikes.threshold", [1.5], "spikes.threshold=(1.5,) must be a number"),
        ("spikes.max_rewinds", 2.5, "spikes.max_rewinds=2.5 must be an integer"),
        ("stages", {"step": 0}, "stages={'step': 0} must be a list of tables"),
        ("stages", 3, "stages=3 must be a list of tables"),
        ("stages", [3], "stages=3 must be a table"),
        ("stages.seq_len", "long", "stages.seq_len='long' must be an integer"),
    ],
)
def test_a_value_of_another_type_is_named_with_what_it_must_be(path, value, expected):
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.from_dict(_with(path, value))
    assert str(caught.value).startswith(expected)


def test_a_whole_number_is_a_number():
    config = TrainingConfig.from_dict(_with("optimizer.learning_rate", 1))
    assert config.optimizer.learning_rate == 1


def test_a_config_made_in_python_is_held_to_the_same():
    with pytest.raises(ConfigError, match="stages=3 must be a list of tables"):
        dataclasses.replace(TrainingConfig.from_dict(GOOD), stages=3)
    with pytest.raises(ConfigError, match="data='here' must be a table"):
        dataclasses.replace(TrainingConfig.from_dict(GOOD), data="here")


# Ranges


@pytest.mark.parametrize(
    ("path", "value", "limit"),
    [
        ("steps", 0, "at least 1"),
        ("checkpoint_every", 0, "at least 1"),
        ("keep", 0, "at least 1"),
        ("log_every", 0, "at least 1"),
        ("eval_tokens", 0, "at least 1"),
        ("model_axis", 0, "at least 1"),
        ("eval_every", -1, "at least 0"),
        ("seed", -1, "from 0 to 2**63 - 1"),
        ("seed", 2**63, "from 0 to 2**63 - 1"),
        ("peak_flops", 0.0, "positive and finite"),
        ("peak_flops", float("inf"), "positive and finite"),
        ("data.train", (), "a list of at least one file"),
        ("data.repeats", (2,), "empty, or 2 integers of at least 1"),
        ("data.repeats", (2, 0), "empty, or 2 integers of at least 1"),
        ("optimizer.learning_rate", 0.0, "positive and finite"),
        ("optimizer.learning_rate", float("nan"), "positive and finite"),
        ("optimizer.learning_rate", float("inf"), "positive and finite"),
        ("optimizer.hold_steps", 0, "at least 1"),
        ("optimizer.cooldown_steps", -1, "≥ 0"),
        ("optimizer.cooldown_steps", 11, "at most steps=10"),
        ("optimizer.beta1", 1.0, "in [0, 1)"),
        ("optimizer.beta1", -0.1, "in [0, 1)"),
        ("optimizer.beta2_power", 0.0, "in (0, 1]"),
        ("optimizer.beta2_power", 1.1, "in (0, 1]"),
        ("optimizer.clip_norm", 0.0, "positive"),
        ("optimizer.z_loss", -1e-4, "at least 0"),
        ("spikes.threshold", 0.0, "positive"),
        ("spikes.window", 1, "at least 2"),
        ("spikes.rewind_steps", -1, "at least 0"),
        ("spikes.skip_batches", 100, "above spikes.rewind_steps=100"),
        ("spikes.max_rewinds", -1, "at least 0"),
        ("stages.step", -1, "at least 0"),
        ("stages.batch_size", 0, "at least 1"),
        ("stages.seq_len", 1, "at least 2"),
        ("stages.seq_len", 65, "at most model.max_seq_len=64"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_limit(path, value, limit):
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.from_dict(_with(path, value))
    assert str(caught.value).startswith(f"{path}={value!r} must be {limit}")


@pytest.mark.parametrize("starts", [(1,), (0, 5, 5), (0, 7, 5)], ids=str)
def test_stages_start_at_0_and_rise(starts):
    stages = [{"step": step, "batch_size": 2, "seq_len": 8} for step in starts]
    with pytest.raises(ConfigError) as caught:
        TrainingConfig.from_dict(_with("stages", stages))
    message = f"stages={list(starts)} must be stages whose steps start at 0 and rise"
    assert str(caught.value) == message


def test_the_stage_of_a_step_is_the_last_that_has_begun():
    stages = tuple(Stage(step=step, batch_size=2, seq_len=8) for step in (0, 4, 9))
    config = dataclasses.replace(TrainingConfig.from_dict(GOOD), stages=stages)
    found = [config.stage_at(step) for step in (0, 3, 4, 8, 9, 99)]
    assert found == [(i, stages[i]) for i in (0, 0, 1, 1, 2, 2)]


def test_fields_beside_a_preset_change_it():
    config = TrainingConfig.from_dict(_with("model.num_layers", 2))
    expected = dataclasses.replace(PaLMConfig.preset("talipot-tiny"), num_layers=2, max_seq_len=64)
    assert config.model == expected
