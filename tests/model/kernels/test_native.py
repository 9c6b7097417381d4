import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax.numpy as jnp
import pytest

from model import kernels
from model.errors import KernelsUnavailableError
from model.kernels import native
from tests.model.kernels.print_results import digest

ROOT = Path(__file__).parents[3]


def results(**variables: str) -> dict[str, str | None]:
    """What `print_results` says in a process with these environment variables."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.model.kernels.print_results"],
        cwd=ROOT,
        env={**os.environ, **variables},
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(ran.stdout)


@pytest.mark.parametrize("threads", ["1", "7"])
def test_results_do_not_depend_on_the_number_of_threads(threads: str):
    # The size of XLA's pool.
    assert results(NPROC=threads)["digest"] == digest()


def test_calls_from_several_threads_do_not_disturb_each_other():
    # More of them than XLA's pool has threads: each must get by with its own.
    expected = digest()
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: digest(), range(8))) == {expected}


def test_the_environment_lowers_the_level():
    assert results(TALIPOT_KERNELS="portable")["isa"] == "portable"


def test_portable_instructions_are_not_called_fast():
    assert kernels.KernelStatus("avx2", None).is_fast
    assert not kernels.KernelStatus("portable", None).is_fast
    assert not kernels.KernelStatus(None, "off").is_fast


def test_the_environment_turns_the_kernels_off():
    found = results(TALIPOT_KERNELS="off")
    assert found == {"isa": None, "reason": "TALIPOT_KERNELS=off", "digest": None}


@pytest.fixture
def _fresh(monkeypatch: pytest.MonkeyPatch):
    """The module as before its first use, and again afterwards."""
    for cached in (native.status, native.library):
        cached.cache_clear()
    yield
    monkeypatch.undo()
    for cached in (native.status, native.library):
        cached.cache_clear()


@pytest.mark.usefixtures("_fresh")
def test_an_unknown_level_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TALIPOT_KERNELS", "sse9")
    with pytest.raises(ValueError, match="TALIPOT_KERNELS=sse9 is none of off, portable"):
        kernels.status()


@pytest.mark.usefixtures("_fresh")
def test_without_a_library_calls_say_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(native, "_FOLDER", tmp_path)
    assert not kernels.is_available()
    packed = kernels.pack_int8(jnp.zeros((4, 4), jnp.int8))
    with pytest.raises(KernelsUnavailableError, match=r"not built: install a C\+\+17 compiler"):
        kernels.int8_matmul(jnp.zeros((1, 4)), packed, jnp.ones(4))


@pytest.mark.usefixtures("_fresh")
def test_a_library_of_other_sources_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    built = next(native._FOLDER.glob("_native*"))
    (tmp_path / built.name).symlink_to(built)
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "new.cpp").write_text("int newer;")
    monkeypatch.setattr(native, "_FOLDER", tmp_path)
    reason = kernels.status().reason
    assert reason is not None
    assert "built from other sources: install Talipot again" in reason


@pytest.mark.usefixtures("_fresh")
def test_a_file_that_is_no_library_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    name = next(native._FOLDER.glob("_native*")).name
    (tmp_path / name).write_bytes(b"no library")
    monkeypatch.setattr(native, "_FOLDER", tmp_path)
    reason = kernels.status().reason
    assert reason is not None
    assert name in reason
