"""The OpenAPI document against the running server, by requests generated from the document."""

import subprocess
import sys
import sysconfig
from pathlib import Path

CONFIG = Path(__file__).with_name("schemathesis.toml")
MAX_EXAMPLES = 25


def test_the_server_does_what_its_document_says(server, http):
    command = Path(sysconfig.get_path("scripts")) / "schemathesis"
    run = subprocess.run(
        [
            *(sys.executable, str(command), "--config-file", str(CONFIG)),
            *("run", f"{server.url}/openapi.json"),
            *("--seed", "1", "--generation-deterministic"),
            *("--max-examples", str(MAX_EXAMPLES), "--suppress-health-check", "all"),
            *("--max-response-time", "10", "--no-color", "--continue-on-failure"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert http.get("/health/ready").status_code == 200
