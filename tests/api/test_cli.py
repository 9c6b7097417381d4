"""The command as people type it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from api.config import BatchConfig, ServeConfig
from model.errors import ConfigError

COMMANDS = (
    "serve",
    "generate",
    "batch",
    "audit",
    "info",
    "plan",
    "train",
    "export",
    "index",
    "worker",
)


def talipot(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )


def test_help_names_every_command():
    text = talipot("--help").stdout
    assert [command for command in COMMANDS if f" {command} " not in text] == []
    assert "TALIPOT_MAX_SLOTS" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    found = talipot(command, "--help")
    assert found.returncode == 0
    assert "--help" in found.stdout


def test_help_and_version_load_no_jax():
    script = (
        "import sys, api.cli; sys.exit(bool({'jax', 'fastapi', 'grpc'}.intersection(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


def test_the_batch_client_loads_no_jax():
    script = "import sys, api.batch.command; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0


def test_version():
    assert talipot("--version").stdout.startswith("talipot ")


def test_info_prints_json_for_programs():
    found = talipot("info", "palm-540b", "--json")
    assert json.loads(found.stdout)["config"]["name"] == "palm-540b"


def test_info_prints_a_table_for_people():
    assert "Parameters" in talipot("info", "palm-8b").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "nothing/here"], ["invalid_checkpoint", "nothing/here"]),
        (["plan", "nothing/here"], ["invalid_checkpoint", "nothing/here"]),
        (["plan", "--hbm", "3 apples"], ["invalid_config", "hbm='3 apples'", "32GB"]),
        (["plan", "--mesh", "4,4"], ["invalid_config", "mesh=4,4", "chips=64"]),
        (["train", "nothing.toml"], ["invalid_config", "nothing.toml"]),
        (["export", "nothing/here", "out"], ["invalid_checkpoint", "nothing/here"]),
        (["batch", "no-such-in", "out"], ["batch_failed", "no-such-in"]),
        (["batch", "in", "in"], ["invalid_config", "results=in"]),
        (["batch", "in", "out", "--target", "here"], ["invalid_config", "target='here'"]),
        (["generate", "x", "--temperature", "-1"], ["invalid_request", "temperature=-1"]),
        (["generate", "x", "--model", "nothing/here"], ["invalid_checkpoint", "nothing/here"]),
        (
            ["generate", "x", "--safety", "block", "--safety-threshold", "2"],
            ["invalid_config", "safety_threshold=2"],
        ),
        (
            ["generate", "x", "--memorization", "avoid", "--memorization-min-tokens", "1"],
            ["invalid_config", "memorization_min_tokens=1"],
        ),
    ],
)
def test_errors_are_one_message_without_a_traceback(arguments, words, tmp_path):
    found = talipot(*arguments, cwd=tmp_path, env={"PYTHONPATH": ":".join(sys.path)})
    assert found.returncode == 1
    assert "Traceback" not in found.stderr
    assert [word for word in words if word not in found.stderr] == []


def test_a_missing_extra_is_named(tmp_path):
    (tmp_path / "optax.py").write_text("raise ModuleNotFoundError('no optax', name='optax')")
    (tmp_path / "run.toml").write_text("")
    found = talipot(
        "train", "run.toml", cwd=tmp_path,
        env={"PYTHONPATH": ":".join([str(tmp_path), *sys.path])},
    )  # fmt: skip
    assert found.returncode == 1
    assert "talipot[train]" in found.stderr


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("port", 65536), ("grpc_port", -1), ("max_body_bytes", 1), ("max_choices", 0)],
        *[("max_batch_in_flight", 0), ("drain_timeout_s", -1.0)],
    ],
)
def test_server_settings_are_checked(field, value):
    with pytest.raises(ConfigError, match=f"{field}={value}"):
        ServeConfig(**{field: value})


def test_both_doors_need_a_port_of_their_own():
    with pytest.raises(ConfigError, match="grpc_port=8500 must differ from port=8500"):
        ServeConfig(port=8500)
    ServeConfig(port=8500, grpc=False)
    ServeConfig(port=0, grpc_port=0)


@pytest.mark.parametrize(
    ("field", "value"), [("max_in_flight", 0), ("give_up_after_s", -1.0), ("target", ":8500")]
)
def test_batch_settings_are_checked(field, value):
    with pytest.raises(ConfigError, match=f"{field}="):
        BatchConfig(**{"requests": Path("in"), "results": Path("out"), field: value})
