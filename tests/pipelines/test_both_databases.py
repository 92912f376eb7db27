"""Credit, journeys and exports over SQLite and over PostgreSQL: the same facts make the same documents."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from sqlalchemy import Engine

from infra.secrets import Secrets
from infra.settings import Settings
from pipelines import cli
from pipelines.commands import credit, episodes, exporting
from pipelines.commands.workspace import OK, Workspace
from tests.pipelines.holdout_world import NOW, fill, shop
from tests.reward_models.serving.models import registered, trained

COMMANDS = {
    "copy": ("credit", "shop", "--content", "b"),
    "sends": ("credit", "shop", "--sends", "--by", "content"),
    "journeys": ("episodes", "value", "shop", "--horizon", "7d"),
}


def said(engine: Engine, secrets: Secrets, home: Path, monkeypatch: Any, capsys: Any) -> dict[str, Any]:
    """What every command says of one small shop in this database."""
    home.mkdir()
    fill(engine, secrets, shop(), customers=600)
    found = Workspace(Settings(home=home), engine, secrets, lambda: NOW)
    registered(engine, found.settings.bundles, trained(), "shop")
    for module in (credit, episodes, exporting):
        monkeypatch.setattr(module, "open_workspace", lambda: found)
    documents = {name: document(capsys, *arguments) for name, arguments in COMMANDS.items()}
    for kind in ("sft", "dpo", "kto"):
        document(capsys, "export", kind, "shop", str(home / f"{kind}.jsonl"))
        documents[kind] = hashlib.sha256((home / f"{kind}.jsonl").read_bytes()).hexdigest()
    document(capsys, "export", "parquet", "shop", str(home / "out"), "--units")
    for path in sorted((home / "out").glob("*.parquet")):
        documents[path.name] = pyarrow.parquet.read_table(path).to_pylist()
    return documents


def document(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command prints as JSON."""
    capsys.readouterr()
    assert cli.run([*arguments, "--json"]) == OK
    return json.loads(capsys.readouterr().out)


@pytest.mark.postgres
def test_both_databases_say_the_same(
    engine: Engine,
    postgres: Engine,
    secrets: Secrets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Credit of copy and of sends, values of journeys, pairs for fine-tuning and every table of the warehouse."""
    found, same = (
        said(one, secrets, tmp_path / name, monkeypatch, capsys) for name, one in (("s", engine), ("p", postgres))
    )

    assert found.keys() == same.keys() >= {*COMMANDS, "decisions.parquet", "outcomes.parquet", "contents.parquet"}
    for name, one in found.items():
        assert one == same[name], name
