"""docs/deployment.md names settings and files that exist."""

import re

from api.config import ServeConfig
from api.options import settings_of
from tests.docker.replay import ROOT

PAGE = (ROOT / "docs" / "deployment.md").read_text()
# What compose.yaml reads itself, and what it hands to a server that has the output log or gRPC.
NOT_OF_SERVE = {
    "TALIPOT_LIMIT_CPUS",
    "TALIPOT_LIMIT_MEMORY",
    "TALIPOT_REDIS_URL",
    "TALIPOT_GRPC_PORT",
}


def test_every_variable_is_an_option_of_serve() -> None:
    named = set(re.findall(r"TALIPOT_[A-Z_]+", PAGE))
    assert named <= {setting.env for setting in settings_of(ServeConfig)} | NOT_OF_SERVE


def test_every_file_exists() -> None:
    named = set(re.findall(r"(?:docker|\.ci/lock)/[\w.]*\w", PAGE))
    assert named >= {"docker/Dockerfile", "docker/Dockerfile.cuda", "docker/Dockerfile.tpu"}
    assert not [name for name in named if not (ROOT / name).exists()]
