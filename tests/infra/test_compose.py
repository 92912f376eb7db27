"""The compose file and the image's recipe, checked without Docker: names, addresses, secrets, health."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.deploy import kafka
from infra.secrets import load_secrets
from infra.settings import Settings, load_settings
from pipelines.flows.deployments import DEPLOYMENTS
from pipelines.supervisor import Service, mlflow_service, prefect_service

DEPLOY = Path(kafka.__file__).parent
ROOT = DEPLOY.parents[1]
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
RECIPE = (DEPLOY / "Dockerfile").read_text()

OURS = [name for name, service in SERVICES.items() if service["image"] == "rewardloop:local"]
ENTRY = json.loads(re.findall(r"^ENTRYPOINT (.+)$", RECIPE, re.MULTILINE)[-1])

every_service = pytest.mark.parametrize("name", SERVICES)
every_one_of_ours = pytest.mark.parametrize("name", OURS)


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


@every_service
def test_it_is_written_as_the_specification_has_it(name: str) -> None:
    """Compose refuses a key or a word it does not know, and a service that waits for one outside its profile: seen here first."""
    service = SERVICES[name]
    check: dict[str, Any] = service.get("healthcheck", {})

    assert {key for key in service if not key.startswith("x-")} <= SERVICE_KEYS
    assert service.get("restart", "no") in ("no", "always", "unless-stopped", "on-failure")
    assert set(check) <= {"test", "interval", "timeout", "retries", "start_period", "start_interval", "disable"}
    assert check.get("test", ["CMD"])[0] in ("CMD", "CMD-SHELL", "NONE")
    times = [service.get("stop_grace_period"), *(check.get(key) for key in ("interval", "timeout", "start_period"))]
    assert [time for time in times if time is not None and not re.fullmatch(r"(\d+(us|ms|s|m|h))+", time)] == []
    for port in service.get("ports", []):
        assert re.fullmatch(r"[\d.]+:\d+:\d+", port)
    for other in service.get("depends_on", {}):
        assert set(SERVICES[other].get("profiles", [])) <= set(service.get("profiles", []))


SERVICE_KEYS = {
    *("image", "build", "init", "read_only", "tmpfs", "cap_drop", "security_opt", "volumes", "secrets", "environment"),
    *(
        "command",
        "entrypoint",
        "restart",
        "stop_grace_period",
        "ports",
        "depends_on",
        "healthcheck",
        "profiles",
        "user",
    ),
}
"""What the compose file uses of the specification's keys of a service."""


@every_one_of_ours
def test_paths_of_the_image_can_be_used(name: str) -> None:
    """The image is read-only: what its processes are told to use is a volume, a secret or below /tmp."""
    service = SERVICES[name]
    told = [*service.get("command", []), *map(str, environment(name).values())]
    paths = {path for text in told for path in re.findall(r"(?:^|[=:]|//)(/(?!/)[\w./-]+)", text)}
    mounted = {mount.split(":")[1] for mount in service["volumes"]} | set(service["tmpfs"]) | {"/run/secrets"}

    assert service["read_only"]
    assert [path for path in sorted(paths) if not any(Path(path).is_relative_to(place) for place in mounted)] == []
    assert re.findall(r"^(?:VOLUME|WORKDIR) (.+)$", RECIPE, re.MULTILINE)[-2:] == ["/data", "/data"]
    assert mounted >= {"/data", "/tmp"}


def test_prefects_page_is_unpacked_where_it_may_write() -> None:
    """Prefect copies its page when it starts: in a read-only image that has to be the volume."""
    assert Path(str(environment("prefect")["PREFECT_UI_STATIC_DIRECTORY"])).is_relative_to("/data")


@pytest.mark.parametrize(("name", "here"), [("mlflow", mlflow_service), ("prefect", prefect_service)])
def test_their_servers_are_started_like_those_that_are_tested(
    name: str, here: Callable[[Settings], Service], tmp_path: Path
) -> None:
    """MLflow and Prefect get no option in a container that `rewardloop up` does not give them, whose servers tests start."""
    known = here(Settings(home=tmp_path)).command[1:]
    entry, options = SERVICES[name]["entrypoint"][1:], [option.split("=")[0] for option in SERVICES[name]["command"]]

    assert tuple(entry) == known[: len(entry)]
    assert set(options) <= set(known)


def test_the_image_has_every_command(tmp_path: Path) -> None:
    """The package built from what the recipe copies, and nothing else, has every command and module that the compose file
    names, the flows that Prefect's worker imports, and the files that are no Python."""
    installed = install_as_the_recipe_does(tmp_path)
    wanted = [(SERVICES[name].get("entrypoint") or ENTRY) + SERVICES[name]["command"] for name in OURS]
    commands = [words[1:] for words in wanted if words[0] == "rewardloop"]
    modules = [words[2] for words in wanted if words[:2] == ["python", "-m"]]
    assert len(commands) + len(modules) == len(wanted)

    done = subprocess.run(
        (sys.executable, "-c", LOOK_INSIDE, json.dumps([commands, modules, [one.entrypoint for one in DEPLOYMENTS]])),
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(installed), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(installed)
    tracked = subprocess.run(
        ("git", "ls-files", "infra", "ingestion", "reward_models", "pipelines"),
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert [file for file in tracked.stdout.split() if not (installed / file).exists()] == []


LOOK_INSIDE = """
import json, sys
from importlib.util import find_spec
import typer
from pipelines.cli import app
commands, modules, flows = json.loads(sys.argv[1])
for words in commands:
    found = typer.main.get_command(app)
    for word in words:
        found = found.commands[word]
    assert not hasattr(found, "commands"), words
missing = [name for name in modules + [flow.rpartition(".")[0] for flow in flows] if find_spec(name) is None]
assert not missing, missing
print(sys.modules["pipelines.cli"].__file__)
"""
"""What is looked up where only the built package is: the commands, the modules, and from where they come."""


def install_as_the_recipe_does(folder: Path) -> Path:
    """Build the package from the sources of the recipe's COPY lines alone, and unpack it."""
    source, built, installed = (folder / name for name in ("src", "built", "installed"))
    source.mkdir()
    skipped = shutil.ignore_patterns("__pycache__", "secrets")
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", RECIPE, re.MULTILINE):
        for name in line.split():
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name, ignore=skipped)
            else:
                shutil.copy(ROOT / name, source)
    command = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(built))
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=280)
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    [entries] = installed.glob("*.dist-info/entry_points.txt")
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert all(f"{name} = {place}" in entries.read_text() for name, place in scripts.items())
    assert ENTRY[0] in scripts
    return installed
