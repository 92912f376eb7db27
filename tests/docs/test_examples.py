"""Examples in the documentation are true: documents validate, commands exist, links lead somewhere."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from infra.broker import Record
from infra.secrets import Secrets, load_secrets
from infra.settings import Settings
from ingestion.decode import Edge, decode_event
from ingestion.events import Event, Rejected
from ingestion.files.mappings import load_mapping
from ingestion.http.webhooks import WebhookAnswer
from ingestion.loops import parse_definition
from ingestion.stream.messages import Decoded, Ignored, Place, decode_record
from ingestion.stream.topics import topics
from pipelines.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(language: str) -> list[tuple[str, str]]:
    """(page, text) of every fenced block in that language."""
    return [(name, body) for name, text in TEXTS.items() for kind, body in BLOCK.findall(text) if kind == language]


COMMANDS = sorted(
    {
        line.split("#")[0].strip().removeprefix(".venv/bin/").rstrip("&").strip()
        for _, body in blocks("bash")
        for line in body.splitlines()
        if re.match(r"(\.venv/bin/)?rewardloop ", line)
    }
)


@pytest.mark.parametrize("line", COMMANDS)
def test_a_documented_command_parses(line: str) -> None:
    """Every `rewardloop …` line in the documentation is a command with those options."""
    words = shlex.split(re.sub(r"\d?>.*$", "", line))[1:]
    command: Any = typer.main.get_command(app)  # a group of commands, each of which may be one
    context = command.make_context("rewardloop", [words[0]], resilient_parsing=True)
    while getattr(command, "commands", None):
        assert words[0] in command.commands, f"no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    command.make_context("rewardloop", [word for word in words if word], parent=context)


@pytest.mark.parametrize(("page", "text"), blocks("json"))
def test_a_documented_document_validates(page: str, text: str, tmp_path: Path) -> None:
    """JSON in the documentation is a loop definition, part of the secrets file, an answer to a webhook, a batch of
    events, or a record of a topic; each is read."""
    document = json.loads(text)
    if "metrics" in document:
        parse_definition(document)
        return
    if "webhooks" in document:
        keys = {"master": "00" * 32, "units": {"1": "11" * 32}, "tokens": {"1": "22" * 32}}
        (tmp_path / "secrets.json").write_text(json.dumps(keys | document))
        assert set(load_secrets(Settings(home=tmp_path)).webhooks) == set(document["webhooks"])
        return
    if "accepted" in document:
        WebhookAnswer.model_validate(document)
        return
    if "events" not in document:
        assert not isinstance(topic_record(document), Rejected | Ignored)
        return
    edge = Edge(Secrets(b"0" * 32, {1: b"1" * 32}, {1: b"2" * 32}), ("http",), 1_900_000_000_000_000)

    assert [event for event in document["events"] if not isinstance(decode_event(event, edge), Event)] == []


def topic_record(document: dict[str, Any]) -> Decoded:
    """What the record becomes. `headers` and `value` are written out; a CloudEvent in structured mode has its header."""
    headers = document.get(
        "headers", {"content-type": "application/cloudevents+json"} if "specversion" in document else {}
    )
    topic = "decisions" if "decided_at" in document else "contents" if "slots" in document else "events"
    value = json.dumps(document.get("value", document)).encode()
    pairs = tuple((name, text.encode()) for name, text in headers.items())
    mail = {"metrics": [{"name": "click", "event": "click"}], "reward": {"click": 1}, "loop": "email-subjects"}
    named = topics()
    place = Place(
        Secrets(b"0" * 32, {1: b"1" * 32}, {1: b"2" * 32}),
        ("http",),
        1_900_000_000_000_000,
        topics=named,
        loops={"email-subjects": (parse_definition(mail), 1)},
    )
    return decode_record(Record(getattr(named, topic).name, 0, 0, 0, None, value, pairs), place)


def test_the_documented_unit_hash_is_ours() -> None:
    """The formula in the documentation gives the hash that the installation gives."""
    code = next(body for _, body in blocks("python") if "def unit_hash" in body)
    names: dict[str, Any] = {}
    exec(code, names)
    secrets = Secrets(b"0" * 32, {1: b"1" * 32, 2: b"2" * 32}, {1: b"3" * 32})

    for customer in ("customer-17", "josé@example.com", ""):
        assert names["unit_hash"]((b"2" * 32).hex(), 2, customer) == secrets.unit(customer)
        assert names["unit_hash"]((b"1" * 32).hex(), 1, customer) == secrets.unit_before(customer)


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_an_example_mapping_validates(path: Path) -> None:
    """Every mapping under docs/examples is one the importer takes."""
    assert load_mapping(path) is not None


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    """A relative link or picture in a page points at a file that exists."""
    here = (ROOT / name).parent
    targets = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", TEXTS[name])

    assert [target for target in targets if not (here / target).exists()] == []
