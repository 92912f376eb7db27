"""The compose file and the image's recipe, checked without Docker: names, addresses, secrets, health."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.deploy import kafka
from infra.secrets import load_secrets
from infra.settings import Settings, load_settings

DEPLOY = Path(kafka.__file__).parent
ROOT = DEPLOY.parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
RECIPE = (DEPLOY / "Dockerfile").read_text()

every_service = pytest.mark.parametrize("name", SERVICES)


def environment(name: str) -> dict[str, str | None]:
    """What a service is told; None is passed through from the shell."""
    found: dict[str, str | None] = SERVICES[name].get("environment", {})
    return found


@every_service
def test_every_variable_of_ours_is_a_setting(name: str) -> None:
    """A setting that was renamed is not left behind in the compose file."""
    ours = {key for key in environment(name) if key.startswith("REWARDLOOP_")}
    assert ours <= {f"REWARDLOOP_{field.upper()}" for field in Settings.model_fields}


@pytest.mark.parametrize("name", ["api", "worker", "migrate", "topics"])
def test_what_ours_are_told_is_accepted(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings load: no value stops the start."""
    for key, value in environment(name).items():
        if value is not None:
            monkeypatch.setenv(key, value)
    settings = load_settings()
    assert (settings.mode, settings.kafka) == ("server", True)


@every_service
def test_ports_are_this_machines_own(name: str) -> None:
    """Nothing is open to the network unless somebody decides so."""
    assert [port for port in SERVICES[name].get("ports", []) if not port.startswith("127.0.0.1:")] == []


@every_service
def test_every_service_has_a_health_check_or_a_reason(name: str) -> None:
    """A service that hangs is seen."""
    service = SERVICES[name]
    assert bool(service.get("healthcheck", {}).get("test")) != bool(service.get("x-no-healthcheck"))


@every_service
def test_what_a_service_names_is_there(name: str) -> None:
    """Secrets, volumes, files and the services waited for exist, and what is waited for can be told."""
    service = SERVICES[name]
    assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
    for mount in service.get("volumes", []):
        source = mount.split(":")[0]
        assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
    for other, how in service.get("depends_on", {}).items():
        ends = "x-no-healthcheck" in SERVICES[other]
        assert how["condition"] == ("service_completed_successfully" if ends else "service_healthy")


@every_service
def test_no_password_is_in_the_environment(name: str) -> None:
    """Passwords are files: an environment is seen by everybody who may list processes."""
    told = environment(name).items()
    assert [key for key, _ in told if re.search("PASSWORD|SECRET|TOKEN", key) and not key.endswith("FILE")] == []
    assert [value for _, value in told if re.search(r"://[^/@]+:[^/@]+@", str(value))] == []


@pytest.mark.parametrize("name", ["mlflow", "prefect"])
def test_nobody_reaches_them_but_through_the_gate(name: str) -> None:
    """MLflow and Prefect, which ask nobody who they are, have no port of their own; the gate has theirs and asks."""
    config = (DEPLOY / "gate.conf").read_text()
    port = {"mlflow": 5000, "prefect": 4200}[name]
    (server,) = [part for part in config.split("server {")[1:] if f"listen {port};" in part]

    assert "ports" not in SERVICES[name]
    assert f"127.0.0.1:{port}:{port}" in SERVICES["gate"]["ports"]
    assert f"http://{name}:{port}" in server
    assert "auth_basic off" not in server
    assert "auth_basic_user_file /run/secrets/gate;" in config.split("server {")[0]
    assert SERVICES["gate"]["secrets"] == ["gate"]


def test_the_gate_is_read_by_nginx(tmp_path: Path) -> None:
    """nginx takes the file as it is."""
    nginx = shutil.which("nginx")
    if nginx is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("nginx is not installed here; the image brings it")
    written = (DEPLOY / "gate.conf").read_text().replace("/run/secrets/gate", str(tmp_path / "gate"))
    (tmp_path / "gate.conf").write_text(written)
    (tmp_path / "gate").write_text("team:{PLAIN}x\n")
    done = subprocess.run([nginx, "-t", "-c", tmp_path / "gate.conf"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_broker_is_the_one_that_is_tested() -> None:
    """The image of Kafka has the version the tests run."""
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{kafka.version()}"


def test_secrets_are_made_once(tmp_path: Path) -> None:
    """The script makes every file the compose file names, for its owner only, and a second run changes none."""
    made = [run_secrets(tmp_path), run_secrets(tmp_path)]

    assert made[0] == made[1]
    assert {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()} == set(made[0])
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    assert re.fullmatch(r"team:\{PLAIN\}[0-9a-f]{64}\n", made[0]["gate"])
    assert made[0]["pgpass"] == f"postgres:5432:*:rewardloop:{made[0]['postgres']}\n"
    assert (
        load_secrets(Settings(mode="server", secrets_file=tmp_path / "rewardloop.json")).unit("ann").startswith("u1:")
    )


def run_secrets(folder: Path) -> dict[str, str]:
    """Run the script; every file it leaves and what is in it."""
    subprocess.run([DEPLOY / "secrets.sh", folder], check=True)
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_the_image_copies_what_exists_and_does_not_run_as_root() -> None:
    """Every source of a COPY is in the repository and let through to the build; the last user is not root."""
    let_through = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().split() if line[0] == "!"}
    sources = {
        source for line in re.findall(r"^COPY (?!--from)(.+) \S+$", RECIPE, re.MULTILINE) for source in line.split()
    }
    assert [source for source in sources if not (ROOT / source).exists()] == []
    assert sources == let_through
    assert re.findall(r"^USER (.+)$", RECIPE, re.MULTILINE)[-1] == "${OWNER}"
    assert "ARG OWNER=1000" in RECIPE


def test_the_image_is_built_with_the_same_tool_as_here() -> None:
    """One version of uv installs everywhere."""
    (here,) = re.findall(r"^UV\s*:= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert f"uv=={here}" in RECIPE
