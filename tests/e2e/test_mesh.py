"""`talipot serve` on 8 virtual devices, over HTTP."""

from pathlib import Path

import httpx
import pytest

from tests.e2e.processes import ServerProcess, free_port
from tests.e2e.tiny import wait_ready

DEVICES = 8
ASKED = {"prompt": "It was the", "max_tokens": 12, "logprobs": 2}


@pytest.mark.parametrize("layout", ["auto", "1d/batch"])
def test_a_server_on_eight_devices_answers_as_one_on_one_does(
    http: httpx.Client,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layout: str,
) -> None:
    monkeypatch.setenv("XLA_FLAGS", f"--xla_force_host_platform_device_count={DEVICES}")
    port = free_port()
    log = tmp_path / "log"
    # Given last, the number of slots is the one that counts: by batch each device has some.
    options = ("--port", f"{port}", "--no-grpc", "--layout", layout, "--max-slots", f"{DEVICES}")
    url = f"http://127.0.0.1:{port}"
    with ServerProcess(tiny_model, log, *options), httpx.Client(base_url=url, timeout=60) as mesh:
        wait_ready(url)
        for settings in ({"temperature": 0}, {"temperature": 1, "seed": 4}):
            asked = {"model": "tiny", **ASKED, **settings}
            found, expected = (
                client.post("/v1/completions", json=asked).raise_for_status().json()
                for client in (mesh, http)
            )
            assert found["choices"][0]["text"] == expected["choices"][0]["text"]
            assert found["usage"] == expected["usage"]
    assert f"of {DEVICES} cpu" in log.read_text()
