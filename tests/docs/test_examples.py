"""Examples in the documentation are true: documents validate, commands exist, links lead somewhere."""

import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from infra.secrets import Secrets
from ingestion.decode import Edge, decode_event
from ingestion.events import Event
from ingestion.loops import parse_definition
from ingestion.mappings import load_mapping
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
    command = typer.main.get_command(app)
    context = command.make_context("rewardloop", [words[0]], resilient_parsing=True)
    while getattr(command, "commands", None):
        assert words[0] in command.commands, f"no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    command.make_context("rewardloop", [word for word in words if word], parent=context)


@pytest.mark.parametrize(("page", "text"), blocks("json"))
def test_a_documented_document_validates(page: str, text: str) -> None:
    """JSON in the documentation is a loop definition, or a batch of events that decode."""
    document = json.loads(text)
    if "metrics" in document:
        parse_definition(document)
        return
    edge = Edge(Secrets(b"0" * 32, {1: b"1" * 32}, {1: b"2" * 32}), ("http",), 1_900_000_000_000_000)

    assert [event for event in document["events"] if not isinstance(decode_event(event, edge), Event)] == []


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
