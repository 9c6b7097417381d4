"""Output logs over a file and over a real Redis, for the same tests."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api.outputs.log import REDIS_URL_VARIABLE, OutputLog, Retention, open_log
from tests.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@dataclasses.dataclass
class Store:
    """Where logs are opened, in this process and in others."""

    folder: Path
    env: dict[str, str]
    open: Callable[..., OutputLog]


@pytest.fixture(params=["sqlite", "redis"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    env: dict[str, str] = {}
    monkeypatch.delenv(REDIS_URL_VARIABLE, raising=False)
    if request.param == "redis":
        server = request.getfixturevalue("redis_process")
        server.flush()
        env[REDIS_URL_VARIABLE] = server.url
        monkeypatch.setenv(REDIS_URL_VARIABLE, server.url)
    opened: list[OutputLog] = []

    def open_here(*, lease_s: float = 60.0, **retention: float) -> OutputLog:
        log = open_log(tmp_path, Retention(**retention), lease_s=lease_s)
        opened.append(log)
        return log

    yield Store(tmp_path, env, open_here)
    for log in opened:
        log.close()
