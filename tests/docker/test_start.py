"""The CPU image's steps in an empty folder: install, start, become healthy, answer, stop.

Proves that the lock file and the sources that .dockerignore lets through suffice.
"""

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.docker.replay import IMAGES, Image, seconds
from tests.e2e.processes import free_port

# A container for small machines, so that few shapes are compiled.
SMALL = {
    "TALIPOT_MAX_SLOTS": "2",
    "TALIPOT_MAX_MODEL_LEN": "64",
    "TALIPOT_PREFILL_BUCKETS": "16",
    "TALIPOT_SMALLEST_KEY_BUCKET": "64",
    "TALIPOT_TOKEN_BUDGET": "32",
}
STOP_TIMEOUT_S = 35


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    directory = tmp_path_factory.mktemp("image")
    yield Image.build(IMAGES["Dockerfile"], directory)
    shutil.rmtree(directory)  # most of a gigabyte


@contextlib.contextmanager
def container(image: Image, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = image.start(**environment)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def wait_healthy(
    image: Image, process: subprocess.Popen[bytes], environment: dict[str, str]
) -> int:
    """Check health as an engine does during the start period; returns how often it failed."""
    deadline_s = time.monotonic() + seconds(image.health.flags["start-period"])
    failures = 0
    while (checked := image.check_health(**environment)).returncode != 0:
        assert process.poll() is None, image.log.read_text()
        assert time.monotonic() < deadline_s, checked.stdout
        assert checked.returncode == 1, checked.stderr  # an engine reserves all others
        failures += 1
        time.sleep(seconds(image.health.flags["start-interval"]))
    return failures


def files_outside(root: Path, folders: list[Path]) -> dict[Path, int]:
    """Every file below `root` but not below `folders`, with the time of its last change."""
    return {
        path: path.lstat().st_mtime_ns
        for path in root.rglob("*")
        if not path.is_dir() and not any(path.is_relative_to(folder) for folder in folders)
    }


def test_only_the_compiler_and_the_user_are_left_out(image: Image) -> None:
    compiler, user = image.left_out
    assert compiler.startswith("apt-get update ")
    assert " g++ " in compiler
    assert user.startswith("useradd ")


def test_its_environment_has_no_installer(image: Image) -> None:
    installed = {path.name for path in (image.root / "opt/talipot/bin").iterdir()}
    assert "talipot" in installed
    assert not [name for name in installed if name.startswith("pip")]
    assert not (image.root / "src").exists()


def test_it_starts_becomes_healthy_answers_and_stops(image: Image) -> None:
    port = str(free_port())
    # All interfaces in a container; here the loopback alone.
    assert image.environment["TALIPOT_HOST"] == "0.0.0.0"
    environment = {
        **SMALL,
        "TALIPOT_HOST": "127.0.0.1",
        "TALIPOT_PORT": port,
        "TALIPOT_GRPC_PORT": str(free_port()),
    }
    written = [*image.volumes, image.root / "tmp"]
    before = files_outside(image.root, written)
    with (
        container(image, environment) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        assert wait_healthy(image, process, environment) > 0
        answer = client.post(
            "/v1/completions",
            json={"model": "talipot-tiny", "prompt": "It was the best of", "max_tokens": 8},
        )
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["text"]
        assert answer.json()["usage"]["completion_tokens"] > 0
        assert "talipot_" in client.get("/metrics").text

        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_TIMEOUT_S) == 0, image.log.read_text()
    assert image.check_health(**environment).returncode == 1
    # compose.yaml mounts all else read-only.
    assert files_outside(image.root, written) == before
    assert any((image.root / "var/cache/talipot").iterdir())
