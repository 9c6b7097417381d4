"""The three Dockerfiles: lint, what they share, what they install, what they run as."""

import difflib
import re
import string
import subprocess
import sysconfig
import tomllib
from pathlib import Path

import pytest

from tests.docker.replay import IMAGES, ROOT, Instruction, context_files, read_dockerfile

LOCKS = ROOT / ".ci" / "lock"
INSTALL = "--mount=type=cache,target=/root/.cache/pip pip install --no-deps --requirement {}"
# What an accelerator's image has beside the CPU image's instructions, in order.
ADDED = {
    "Dockerfile.cuda": [
        Instruction("ARG", "CUDA=13"),
        Instruction("COPY", ".ci/lock/cuda${CUDA}.txt accelerator.txt"),
        Instruction("RUN", INSTALL.format("accelerator.txt")),
        Instruction(
            "ENV",
            "JAX_PLATFORMS=cuda NVIDIA_VISIBLE_DEVICES=all "
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        ),
    ],
    "Dockerfile.tpu": [
        Instruction("COPY", ".ci/lock/tpu.txt accelerator.txt"),
        Instruction("RUN", INSTALL.format("accelerator.txt")),
        Instruction("ENV", "JAX_PLATFORMS=tpu,cpu"),
    ],
}
PLUGIN = {"cuda13": "jax-cuda13-plugin", "cuda12": "jax-cuda12-plugin", "tpu": "libtpu"}

each_image = pytest.mark.parametrize("dockerfile", IMAGES.values(), ids=list(IMAGES))


def locked(name: str) -> dict[str, str]:
    """Versions by package."""
    lines = (LOCKS / f"{name}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def spaced(instruction: Instruction) -> Instruction:
    """The same instruction with one space where its lines were joined."""
    return Instruction(instruction.name, re.sub(r"\s+", " ", instruction.value))


@each_image
def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    finished = subprocess.run(
        [hadolint, "--no-color", "--failure-threshold", "style", dockerfile],
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.parametrize("name", ADDED)
def test_an_accelerator_adds_to_the_cpu_image_and_changes_nothing(name: str) -> None:
    cpu = [spaced(line) for line in read_dockerfile(IMAGES["Dockerfile"])]
    accelerator = [spaced(line) for line in read_dockerfile(IMAGES[name])]
    added = []
    matcher = difflib.SequenceMatcher(None, cpu, accelerator, autojunk=False)
    for kind, _, _, start, end in matcher.get_opcodes():
        assert kind in ("equal", "insert")
        added += accelerator[start:end] if kind == "insert" else []
    assert added == ADDED[name]


@each_image
def test_the_one_base_is_pinned_by_version_and_digest(dockerfile: Path) -> None:
    base, *others = [line.value for line in read_dockerfile(dockerfile) if line.name == "FROM"]
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+@sha256:[0-9a-f]{64} AS base", base)
    assert [other.split()[0] for other in others] == ["base", "base"]


@each_image
def test_it_runs_as_an_ordinary_user_given_by_number(dockerfile: Path) -> None:
    # Kubernetes' runAsNonRoot can check a number alone.
    (user,) = [line.value for line in read_dockerfile(dockerfile) if line.name == "USER"]
    assert re.fullmatch(r"[1-9]\d{4}:[1-9]\d{4}", user)


@each_image
def test_all_that_it_copies_is_in_the_build_context(dockerfile: Path) -> None:
    files = context_files()
    cuda = {"cuda13", "cuda12"}
    for line in read_dockerfile(dockerfile):
        if line.name != "COPY" or "from" in line.flags:
            continue
        for source in line.operands[:-1]:
            for name in {string.Template(source).substitute(CUDA=kind[4:]) for kind in cuda}:
                assert any(f"{file}/".startswith(f"{name.rstrip('/')}/") for file in files), name


def test_the_build_context_holds_nothing_else() -> None:
    files = context_files()
    sources = ("api/", "serving/", "model/", "safety/", "memorization/")
    others = {file for file in files if not file.startswith(sources)}
    locks = {f".ci/lock/{name}.txt" for name in ("serve", "cuda13", "cuda12", "tpu")}
    metadata = {"pyproject.toml", "README.md", "LICENSE"}
    always_sent = ".dockerignore"
    assert others == {*locks, *metadata, "docker/healthcheck.py", always_sent}
    assert not [file for file in files if file.endswith(".pyc")]


@pytest.mark.parametrize("accelerator", PLUGIN)
def test_an_accelerators_lock_completes_serves(accelerator: str) -> None:
    extra, serve, test = locked(accelerator), locked("serve"), locked("test")
    assert PLUGIN[accelerator] in extra
    assert not extra.keys() & serve.keys()
    for package in extra.keys() & test.keys():
        assert extra[package] == test[package]
    # JAX refuses a plugin of another version than its own.
    plugins = {name: version for name, version in extra.items() if name.startswith("jax-")}
    assert set(plugins.values()) <= {serve["jax"]}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert extras["optional-dependencies"][accelerator] == [f"jax[{accelerator}]"]
