"""The how-to about clients, done: a client generated from the document, its types checked, its program run."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from httpx2 import Client

from infra.database import open_database, writing
from infra.migrations import migrate
from infra.secrets import load_secrets
from infra.settings import Settings
from ingestion.keys import create_key
from pipelines.app import create_app
from tests.pipelines.api import LOOP
from tests.pipelines.serving import served

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "generate-a-client.md"
TOOLS = Path(sys.executable).parent
ITS_OWN = """[mypy]
strict = true
[mypy-rewardloop_client.client]
# the generator's own template, the same for every document: it passes the arguments of __exit__ on untyped
disable_error_code = arg-type
"""


def run(folder: Path, *command: str, **environment: str) -> str:
    """What a tool of this environment prints; it must succeed, without a warning."""
    path = f"{TOOLS}{os.pathsep}{os.environ['PATH']}"
    variables = os.environ | environment | {"PATH": path, "NO_COLOR": "1", "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [str(TOOLS / command[0]), *command[1:]], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4_000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client that was generated from the app's document, and the how-to's program beside it."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_text(json.dumps(create_app(Settings(home=folder)).openapi()))
    options = ("--path", "openapi.json", "--meta", "none", "--output-path", "rewardloop_client")
    run(folder, "openapi-python-client", "generate", *options, "--fail-on-warning")
    program = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert program is not None
    (folder / "program.py").write_text(program[1])
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A real server that requires keys, as the variables that the program reads."""
    settings = Settings(home=tmp_path, api_keys="required", bot_seconds=0)
    engine = open_database(settings.database)
    migrate(engine)
    secrets = load_secrets(settings)
    with writing(engine) as connection:
        keys = {
            name: create_key(connection, secrets, name, scopes, [], "100/second", 1)
            for name, scopes in (("boss", ["admin", "content"]), ("shop", ["rank", "events"]))
        }
    with served(create_app(settings)) as address:
        with Client(base_url=address, headers={"Authorization": f"Bearer {keys['boss']}"}) as client:
            contents = [{"id": name, "slots": {"subject": f"Line {name}"}} for name in "ab"]
            client.put("/v1/loops/mail", json=LOOP).raise_for_status()
            body = {"campaign": "june", "loop": "mail", "contents": contents}
            client.post("/v1/campaigns", json=body).raise_for_status()
        yield {"REWARDLOOP_URL": address, "REWARDLOOP_KEY": keys["shop"]}
    engine.dispose()


@pytest.mark.stack
def test_every_call_is_generated_and_typed(package: Path) -> None:
    """The client has a module for every call of the document, and its types and the program's hold strictly."""
    document = json.loads((package / "openapi.json").read_text())
    calls = [name for path in document["paths"].values() for name in path]
    modules = [path for path in (package / "rewardloop_client" / "api").rglob("*.py") if path.name != "__init__.py"]
    assert len(modules) == len(calls) > 20
    (package / "mypy.ini").write_text(ITS_OWN)
    checked = run(package, "mypy", "--no-incremental", "--cache-dir", os.devnull, "rewardloop_client", "program.py")
    assert "Success" in checked


@pytest.mark.stack
def test_the_program_of_the_page_runs(package: Path, server: dict[str, str]) -> None:
    """It chooses a content with a known probability and has its click counted."""
    printed = run(package, "python", "program.py", **server)
    assert re.search(r"Send [ab] with probability 0\.\d+\nCounted 1\n", printed), printed
