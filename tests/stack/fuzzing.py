"""The API against its own OpenAPI document: thousands of requests, valid and broken, to a real server.

    python -m tests.stack.fuzzing [requests per call and phase] [seed]

A call fails when the server breaks, answers what the document does not say, or takes what it forbids. Two kinds of
findings are no faults: bodies that fit the document and break a rule it cannot express are refused with a sentence; and
``GET /v1/decisions/x/activate`` reads the decision ``x/activate``, so ``Allow`` names GET there. Starting a retrain is
left out: it is a process. Requests are counted where they arrive, per call.
"""

import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fastapi import FastAPI
from httpx2 import Client
from sqlalchemy import Engine
from starlette.types import Receive, Scope, Send

from infra.database import open_database, writing
from infra.migrations import migrate
from infra.settings import Settings
from ingestion.loops import parse_definition, put_loop
from pipelines.app import create_app
from reward_models import registry
from tests.pipelines.api import LOOP
from tests.pipelines.serving import served
from tests.reward_models.serving.models import registered, trained

ALWAYS = 1_600
"""Requests per call and phase of ``make fuzz``."""

REFUSALS = """[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "413", "415", "422", "428", "429"]
"""
"""What refuses a body that the document forbids: 413 too, for one with so many items that its bytes are too many."""


class Counted:
    """An app whose requests are counted by call; under ``refused`` those that reached none, being too large, no JSON, of a
    method that a path does not have …"""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self.calls: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)
        if scope["type"] == "http":
            route = scope.get("route")
            reached = route is not None and scope["method"] in route.methods
            self.calls[f"{scope['method']} {scope['route'].path}" if reached else "refused"] += 1


class Installation(NamedTuple):
    """A running server."""

    address: str
    calls: Counter[str]
    """Requests so far, by call."""


@contextmanager
def installation(home: Path) -> Iterator[Installation]:
    """A server over an empty data folder, with a loop, a model that serves it, a campaign and two contents."""
    settings = Settings(home=home, refresh_seconds=0.2)
    engine = open_database(settings.database)
    migrate(engine)
    _promoted(engine, settings)
    app = Counted(create_app(settings))
    with served(app) as address:
        with Client(base_url=address, timeout=120) as client:
            contents = [{"id": name, "slots": {"subject": f"Line {name}"}} for name in "ab"]
            for answer in (
                client.post("/v1/campaigns", json={"campaign": "june", "loop": "mail", "contents": contents}),
                client.post("/v1/score", json={"loop": "mail", "texts": ["One line"]}),
                client.get("/openapi.json"),  # made once, which may take longer than the fuzzer waits
            ):
                assert answer.status_code == 200, answer.text
        app.calls.clear()
        yield Installation(address, app.calls)


def _promoted(engine: Engine, settings: Settings) -> None:
    """A loop, and a model that serves it: scores, reasons and probabilities are asked for as well."""
    with writing(engine) as connection:
        put_loop(connection, parse_definition(LOOP | {"loop": "mail"}), 1)
    version = registered(engine, settings.bundles, trained(), "mail")
    with writing(engine) as connection:
        registry.promote(connection, "mail", version, registry.NO_CHAMPION, 1, "ann")


def fuzz(address: str, examples: int, seed: int) -> tuple[int, str]:
    """The exit code of the run, 0 when nothing failed, and what it printed."""
    command = [
        str(Path(sys.executable).with_name("st")),
        *("run", f"{address}/openapi.json", "--phases", "coverage,fuzzing", "--max-examples", str(examples)),
        *("--exclude-checks", "positive_data_acceptance,allow_header_conformance"),
        *("--exclude-path-regex", "retrain$"),
        *("--generation-allow-x00", "false", "--seed", str(seed), "--request-timeout", "30", "--no-color"),
    ]
    with tempfile.TemporaryDirectory() as notes:  # what it keeps for a repetition
        Path(notes, "schemathesis.toml").write_text(REFUSALS)
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=notes)
    return done.returncode, done.stdout + done.stderr


def cases(printed: str) -> int:
    """How many requests a run made."""
    found = re.search(r"([0-9,]+) generated", printed)
    return int(found[1].replace(",", "")) if found else 0


def main() -> int:
    """Run it; then the requests per call, and in the last line how many there were and whether anything failed."""
    examples, seed = (int(given) for given in (*sys.argv[1:3], *(str(ALWAYS), "1")[len(sys.argv[1:3]) :]))
    with tempfile.TemporaryDirectory() as home, installation(Path(home)) as server:
        code, printed = fuzz(server.address, examples, seed)
    sys.stdout.write(printed)
    sys.stdout.writelines(f"{count:>9,}  {call}\n" for call, count in sorted(server.calls.items()))
    sys.stdout.write(f"{'PASS' if code == 0 else 'FAIL'}: {cases(printed):,} requests\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
