"""compose.yaml and prometheus.yml: the published schema, and what no schema says."""

import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.docker.replay import IMAGES, ROOT, read_dockerfile

FOLDER = ROOT / "docker"
FILES = ("compose.yaml", "compose.cuda.yaml")
SERVICES = ("talipot", "worker", "redis", "prometheus")


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text())


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return load("compose.yaml")


@pytest.mark.parametrize("name", FILES)
def test_it_follows_the_compose_specification(name: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    finished = subprocess.run([*command, FOLDER / name], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_it_has_these_services(compose: dict[str, Any]) -> None:
    assert tuple(compose["services"]) == SERVICES


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_checked_limited_restarted_and_confined(
    compose: dict[str, Any], service: str
) -> None:
    settings = compose["services"][service]
    assert settings["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert settings["restart"] == "unless-stopped"
    assert settings["read_only"] is True
    assert settings["cap_drop"] == ["ALL"]
    # Talipot's check is its image's.
    assert ("healthcheck" in settings) == (service != "talipot")
    for port in settings.get("ports", []):
        assert port.startswith("127.0.0.1:")


@pytest.mark.parametrize("service", ["redis", "prometheus"])
def test_images_of_others_are_pinned(compose: dict[str, Any], service: str) -> None:
    image = compose["services"][service]["image"]
    assert re.fullmatch(r"[\w/]+:v?\d+\.\d+\.\d+[\w-]*@sha256:[0-9a-f]{64}", image)


def test_what_is_referred_to_exists(compose: dict[str, Any]) -> None:
    named = set()
    for settings in compose["services"].values():
        for volume in settings.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (FOLDER / source).is_file()
            else:
                named.add(source)
        assert settings.get("depends_on", {}).keys() <= compose["services"].keys()
        if "build" in settings:
            assert (FOLDER / settings["build"]["context"]).resolve() == ROOT
    assert named == compose["volumes"].keys()
    for name in FILES:
        assert (ROOT / load(name)["services"]["talipot"]["build"]["dockerfile"]).is_file()


def test_the_ports_and_the_volume_are_the_images(compose: dict[str, Any]) -> None:
    image = read_dockerfile(IMAGES["Dockerfile"])
    (exposed,) = [line.operands for line in image if line.name == "EXPOSE"]
    (volumes,) = [line.operands for line in image if line.name == "VOLUME"]
    talipot = compose["services"]["talipot"]
    assert talipot["ports"] == [f"127.0.0.1:{port}:{port}" for port in exposed]
    assert [volume.split(":")[1] for volume in talipot["volumes"]] == volumes


def test_it_stops_later_than_the_server_gives_up(compose: dict[str, Any]) -> None:
    from api.config import ServeConfig

    grace_s = int(compose["services"]["talipot"]["stop_grace_period"].removesuffix("s"))
    assert grace_s > ServeConfig().drain_timeout_s


def test_prometheus_scrapes_the_metrics(compose: dict[str, Any]) -> None:
    jobs = {job["job_name"]: job for job in load("prometheus.yml")["scrape_configs"]}
    assert jobs["talipot"]["metrics_path"] == "/metrics"
    assert jobs["talipot"]["static_configs"] == [{"targets": ["talipot:8000"]}]
    assert "127.0.0.1:9090:9090" in compose["services"]["prometheus"]["ports"]


def test_the_worker_reads_what_the_server_writes_and_is_scraped(compose: dict[str, Any]) -> None:
    worker, talipot = compose["services"]["worker"], compose["services"]["talipot"]
    for name in ("image", "build", "environment"):
        assert worker[name] == talipot[name]
    command, *options = worker["command"]
    assert command == "worker"
    given = dict(zip(options[::2], options[1::2], strict=True))
    from api.config import WorkerConfig

    port = int(given["--metrics-port"])
    WorkerConfig(metrics_host=given["--metrics-host"], metrics_port=port)
    jobs = {job["job_name"]: job for job in load("prometheus.yml")["scrape_configs"]}
    assert jobs["worker"]["dns_sd_configs"] == [{"names": ["worker"], "type": "A", "port": port}]
    assert f"127.0.0.1:{port}/metrics" in worker["healthcheck"]["test"][-1]


def test_a_gpu_is_asked_for(compose: dict[str, Any]) -> None:
    gpu = load("compose.cuda.yaml")["services"]["talipot"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert gpu["image"] != compose["services"]["talipot"]["image"]
