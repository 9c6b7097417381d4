"""Builds and starts an image without a container engine: its Dockerfile's steps, in a folder.

The folder `root` stands for the image's `/`: absolute paths in instructions are moved below it.
Each stage gets an empty `root` of its own, so that only what a stage copies reaches the next.

Left out, and listed in `Image.left_out`: packages of the operating system and users, for which
the base image and root's rights are needed. The base image's Python is the one that runs the tests.
Pip is configured as it is on this machine; its cache, if any, stands for the build's. No bytecode
is written: it halves the time, and changes nothing else.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import shlex
import shutil
import string
import subprocess
import sys
from pathlib import Path

from docker.utils import exclude_paths
from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).resolve().parents[2]
IMAGES = {
    name: ROOT / "docker" / name for name in ("Dockerfile", "Dockerfile.cuda", "Dockerfile.tpu")
}

# Commands that change the operating system rather than install Talipot.
SYSTEM_COMMANDS = ("apt-get ", "useradd ", "groupadd ")
# An absolute path where a shell or an instruction starts a word.
ABSOLUTE = re.compile(r"(?<![\w./$}-])/(?=\w)")
# What a build has of its surroundings: how pip is set up, and the way out.
SURROUNDINGS = re.compile(r"PIP_\w+|SSL_CERT_\w+|\w+_proxy|HOME", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile, its lines joined."""

    name: str
    value: str

    @property
    def flags(self) -> dict[str, str]:
        """`--name=value` before the operands."""
        words = itertools.takewhile(_is_flag, shlex.split(self.value))
        return dict(word.removeprefix("--").partition("=")[::2] for word in words)

    @property
    def operands(self) -> list[str]:
        """The words after the flags."""
        return list(itertools.dropwhile(_is_flag, shlex.split(self.value)))

    @property
    def text(self) -> str:
        """All after the flags, as it stands."""
        return re.sub(r"^(--\S+\s+)+", "", self.value)


def _is_flag(word: str) -> bool:
    return word.startswith("--")


def read_dockerfile(path: Path) -> list[Instruction]:
    """Its instructions in order, comments left out."""
    with path.open("rb") as file:
        structure = DockerfileParser(fileobj=file).structure
    return [
        Instruction(line["instruction"], line["value"])
        for line in structure
        if line["instruction"] != "COMMENT"
    ]


def context_files() -> set[str]:
    """What `docker build .` would send: the repository without what .dockerignore leaves out."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    return {path for path in exclude_paths(str(ROOT), patterns) if (ROOT / path).is_file()}


def copy_context(directory: Path) -> Path:
    """The build context alone, in a folder of its own."""
    for name in context_files():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, directory / name)
    return directory


class Image:
    """A Dockerfile's steps, replayed.

    Attributes:
        root: The folder that stands for the image's `/`.
        environment: What ENV set, its paths below `root`.
        working_directory: WORKDIR, below `root`.
        volumes: Folders that VOLUME names, below `root`.
        user: What the process would run as.
        health: HEALTHCHECK.
        entrypoint: What ENTRYPOINT runs.
        default_arguments: CMD.
        left_out: Steps that were not replayed.
    """

    def __init__(self, directory: Path) -> None:
        """An image to build in `directory`, which is empty."""
        self.directory = directory
        self.root = directory / "root"
        self.stages: dict[str, dict[str, str]] = {}
        self.left_out: list[str] = []
        self.arguments: dict[str, str] = {}
        self.environment: dict[str, str] = {}
        self.volumes: list[Path] = []
        self.user = "root"
        self.health = Instruction("HEALTHCHECK", "NONE")
        self.entrypoint: list[str] = []
        self.default_arguments: list[str] = []
        self._stage = ""
        self.context = copy_context(directory / "context")
        # `python` in the base image. A symbolic link would change where Python looks for itself.
        base = directory / "base" / "python"
        base.parent.mkdir()
        python = Path(sys._base_executable).resolve()  # type: ignore[attr-defined]
        base.write_text(f'#!/bin/sh\nexec {shlex.quote(str(python))} "$@"\n')
        base.chmod(0o755)
        self.base_path = f"{base.parent}:/usr/local/bin:/usr/bin:/bin"

    @classmethod
    def build(cls, dockerfile: Path, directory: Path) -> Image:
        """Replay every instruction; one that cannot be replayed is an error."""
        image = cls(directory)
        for instruction in read_dockerfile(dockerfile):
            getattr(image, f"_{instruction.name.lower()}")(instruction)
        return image

    @property
    def command(self) -> list[str]:
        """What a container runs: ENTRYPOINT with CMD as its arguments."""
        return self.entrypoint + self.default_arguments

    @property
    def log(self) -> Path:
        """What the container printed."""
        return self.directory / "log"

    def start(self, **environment: str) -> subprocess.Popen[bytes]:
        """Run the command, like `docker run --env NAME=VALUE …`."""
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [self._executable(self.command[0]), *self.command[1:]],
                cwd=self.working_directory,
                env=self._running_environment(environment),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def check_health(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run HEALTHCHECK's command once, within its own time limit."""
        _, command = self.health.text.split(maxsplit=1)
        words = [self._path(word) for word in json.loads(command)]
        return subprocess.run(
            [self._executable(words[0]), *words[1:]],
            cwd=self.working_directory,
            env=self._running_environment(environment),
            timeout=seconds(self.health.flags["timeout"]),
            capture_output=True,
            text=True,
        )

    def _executable(self, name: str) -> str:
        found = shutil.which(name, path=self.environment["PATH"])
        assert found is not None, f"{name} is not on the image's PATH"
        return found

    def _running_environment(self, environment: dict[str, str]) -> dict[str, str]:
        container = {
            "HOME": str(self.working_directory),
            "TMPDIR": str(self.root / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return {**self.environment, **container, **environment}

    def _path(self, text: str) -> str:
        """Move the absolute paths in `text` below the root."""
        return ABSOLUTE.sub(f"{self.root}/", text)

    def _expand(self, text: str) -> str:
        return string.Template(text).substitute({**self.arguments, **self.environment})

    # One method for each kind of instruction.

    def _from(self, instruction: Instruction) -> None:
        base, *alias = instruction.operands
        if self._stage:
            self.root.rename(self.directory / f"stage-{self._stage}")
            self.stages[self._stage] = self.environment
        self._stage = alias[1] if alias else "final"
        self.user, self.volumes, self.arguments = "root", [], {}
        if base in self.stages:
            shutil.copytree(self.directory / f"stage-{base}", self.root, symlinks=True)
            self.environment = dict(self.stages[base])
        else:
            (self.root / "tmp").mkdir(parents=True)
            self.environment = {"PATH": self.base_path}
        self.working_directory = self.root

    def _run(self, instruction: Instruction) -> None:
        if instruction.text.startswith(SYSTEM_COMMANDS):
            self.left_out.append(instruction.text)
            return
        around = {name: value for name, value in os.environ.items() if SURROUNDINGS.fullmatch(name)}
        finished = subprocess.run(
            ["/bin/sh", "-c", self._path(instruction.text)],
            cwd=self.working_directory,
            env={**around, "PIP_NO_COMPILE": "1", **self.arguments, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert finished.returncode == 0, f"RUN {instruction.text}\n{finished.stdout}"

    def _copy(self, instruction: Instruction) -> None:
        *sources, destination = (self._expand(word) for word in instruction.operands)
        stage = instruction.flags.get("from")
        origin = self.context if stage is None else self.directory / f"stage-{stage}"
        target = self.working_directory / self._path(destination)
        for source in sources:
            found = origin / source.lstrip("/")
            if found.is_dir() and stage is not None and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                found.rename(target)  # tens of thousands of files; nothing reads the stage again
                continue
            if found.is_dir():
                shutil.copytree(found, target, symlinks=True, dirs_exist_ok=True)
                continue
            into = target / found.name if destination.endswith("/") else target
            into.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(found, into)

    def _env(self, instruction: Instruction) -> None:
        expanded = {
            name: self._expand(self._path(value))
            for name, _, value in (word.partition("=") for word in instruction.operands)
        }
        self.environment |= expanded

    def _arg(self, instruction: Instruction) -> None:
        name, _, value = instruction.operands[0].partition("=")
        self.arguments[name] = value

    def _workdir(self, instruction: Instruction) -> None:
        self.working_directory = Path(self._path(instruction.value))
        self.working_directory.mkdir(parents=True, exist_ok=True)

    def _volume(self, instruction: Instruction) -> None:
        self.volumes = [Path(self._path(word)) for word in instruction.operands]
        for volume in self.volumes:
            volume.mkdir(parents=True, exist_ok=True)

    def _user(self, instruction: Instruction) -> None:
        self.user = instruction.value

    def _healthcheck(self, instruction: Instruction) -> None:
        self.health = instruction

    def _entrypoint(self, instruction: Instruction) -> None:
        self.entrypoint = [self._path(word) for word in json.loads(instruction.value)]

    def _cmd(self, instruction: Instruction) -> None:
        self.default_arguments = [self._path(word) for word in json.loads(instruction.value)]

    def _label(self, _: Instruction) -> None:
        """Changes nothing that runs."""

    def _expose(self, _: Instruction) -> None:
        """Changes nothing that runs."""


def seconds(duration: str) -> float:
    """`90s` or `5m` as seconds."""
    return float(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]
