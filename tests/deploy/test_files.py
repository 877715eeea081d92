"""The files in `deploy/`: they are valid for their tools and consistent with each other and with the gateway."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from fastapi_aibridge import Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
SECRET_KEY = "S2V5cyBmb3IgdGVzdHMgb25seSwgMzIgYnl0ZXMhISE="
FILLED = {
    "AIBRIDGE_SECRET_KEYS": f'["{SECRET_KEY}"]',
    "AIBRIDGE_ADMIN_TOKEN": "admin-token",
    "AIBRIDGE_METRICS_TOKEN": "metrics-token",
    "AIBRIDGE_PROVIDERS__OPENAI__API_KEY": "sk-openai",
    "AIBRIDGE_PROVIDERS__ANTHROPIC__API_KEY": "sk-anthropic",
}
"""Values for the settings that the examples leave empty."""


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def run(*command: str) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def load_settings(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str]) -> Settings:
    for name, value in values.items():
        if name.startswith("AIBRIDGE_"):
            monkeypatch.setenv(name, value or FILLED[name])
    return Settings.load()


def served_grace(command: list[str]) -> int:
    """Seconds of uvicorn's own limit for a graceful shutdown."""
    line = " ".join(command)
    found = re.search(r"--timeout-graceful-shutdown[ =](\d+)", line)
    assert found, line
    return int(found.group(1))


def test_the_dockerfile_is_clean() -> None:
    run("hadolint", "deploy/Dockerfile")


def test_the_image_installs_extras_that_exist() -> None:
    found = re.search(r"'\.\[([\w,]+)\]'", (DEPLOY / "Dockerfile").read_text())
    assert found
    project = (ROOT / "pyproject.toml").read_text()
    for extra in found.group(1).split(","):
        assert re.search(rf"^{extra} = \[", project, re.MULTILINE), extra


def test_the_image_has_what_it_copies() -> None:
    """The Docker build context includes every file that the Dockerfile copies."""
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text()
    for line in (DEPLOY / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY ") and "--from" not in line:
            for name in shlex.split(line)[1:-1]:
                assert (ROOT / name).exists()
                assert f"!{name}\n" in ignored


def test_compose_is_what_docker_takes() -> None:
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml")


def test_compose_mounts_files_that_exist() -> None:
    for service in read(DEPLOY / "compose.yaml")["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert not source.startswith("./") or (DEPLOY / source).is_file()


def test_compose_sets_variables_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    environment: dict[str, str] = read(DEPLOY / "compose.yaml")["services"]["gateway"]["environment"]
    example = dict(
        line.split("=", 1) for line in (DEPLOY / "example.env").read_text().splitlines() if not line.startswith("#")
    )
    settings = load_settings(monkeypatch, {**environment, **example})
    assert set(settings.providers) == {"openai", "anthropic"}


def test_compose_gives_streams_their_time() -> None:
    """The gateway's grace ends before uvicorn's limit, which ends before Docker kills the process."""
    gateway = read(DEPLOY / "compose.yaml")["services"]["gateway"]
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    found = re.search(r'"--timeout-graceful-shutdown", "(\d+)"', dockerfile)
    assert found
    grace = int(gateway["environment"]["AIBRIDGE_SHUTDOWN_GRACE"])
    assert grace < int(found.group(1)) < int(gateway["stop_grace_period"].removesuffix("s"))


def test_prometheus_scrapes_each_replica() -> None:
    (job,) = read(DEPLOY / "prometheus.yml")["scrape_configs"]
    secrets = read(DEPLOY / "compose.yaml")["services"]["prometheus"]["secrets"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secrets[0]}"
    assert job["dns_sd_configs"] == [{"names": ["gateway"], "type": "A", "port": 8000}]


MANIFESTS = [*read(KUBERNETES / "kustomization.yaml")["resources"], "secret.example.yaml"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_kubernetes_takes_the_manifest(name: str) -> None:
    kubernetes_validate.validate(read(KUBERNETES / name), "1.37", strict=True)


def test_all_manifests_are_in_the_kustomization() -> None:
    assert {path.name for path in KUBERNETES.glob("*.yaml")} == {*MANIFESTS, "kustomization.yaml"}


def test_kubernetes_gives_streams_their_time() -> None:
    spec = read(KUBERNETES / "deployment.yaml")["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    served = served_grace(container["args"])
    (config,) = read(KUBERNETES / "kustomization.yaml")["configMapGenerator"]
    grace = next(int(one.split("=")[1]) for one in config["literals"] if one.startswith("AIBRIDGE_SHUTDOWN_GRACE="))
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert grace < served
    assert pause + served < spec["terminationGracePeriodSeconds"]


def test_kubernetes_finds_its_pods() -> None:
    """Deployment, service and disruption budget select the labels of the pods."""
    deployment = read(KUBERNETES / "deployment.yaml")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    service = read(KUBERNETES / "service.yaml")["spec"]
    budget = read(KUBERNETES / "disruption_budget.yaml")["spec"]
    spread = deployment["template"]["spec"]["topologySpreadConstraints"][0]
    for selector in (
        deployment["selector"]["matchLabels"],
        service["selector"],
        budget["selector"]["matchLabels"],
        spread["labelSelector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    (container,) = deployment["template"]["spec"]["containers"]
    assert service["ports"][0]["targetPort"] in [port["name"] for port in container["ports"]]


def test_kubernetes_sets_variables_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    (config,) = read(KUBERNETES / "kustomization.yaml")["configMapGenerator"]
    values = dict(literal.split("=", 1) for literal in config["literals"])
    secret = read(KUBERNETES / "secret.example.yaml")["stringData"]
    values |= {name: "" if value == "[]" else value for name, value in secret.items()}
    settings = load_settings(monkeypatch, values)
    assert set(settings.providers) == {"openai", "anthropic"}


def test_the_autoscaler_asks_for_a_metric_that_exists() -> None:
    autoscaler = read(KUBERNETES / "autoscaler.yaml")["spec"]
    name = autoscaler["metrics"][0]["pods"]["metric"]["name"]
    assert f"`{name}`" in (ROOT / "docs" / "metrics-and-tracing.md").read_text()
