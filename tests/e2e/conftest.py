"""One tiny model and server for the session; tests that stop or fill a server start their own."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from tests.e2e.indexed import serving_index
from tests.e2e.tiny import (
    LONG_CONTEXT,
    RunningServer,
    load_tiny_engine,
    save_tiny_model,
    serving,
    wait_ready,
)
from tests.memorization.exact_index import ExactIndex


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def patient_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a context so long that its requests can be caught running."""
    return save_tiny_model(tmp_path_factory.mktemp("patient"), context=LONG_CONTEXT)


@pytest.fixture(scope="session")
def server(tiny_model: Path) -> Iterator[RunningServer]:
    with serving(load_tiny_engine(tiny_model)) as running:
        wait_ready(running.url)
        yield running


@pytest.fixture
def http(server: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture
def client(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def indexed(tiny_model: Path, index: ExactIndex) -> Iterator[RunningServer]:
    """A server over the training data that the test's module gives as `index`."""
    with serving_index(tiny_model, index) as running:
        yield running


@pytest.fixture
def indexed_http(indexed: RunningServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=indexed.url, timeout=30) as client:
        yield client
