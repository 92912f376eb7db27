"""`rewardloop export`, end to end: files that load, and customers who are not in them."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from sqlalchemy import Engine

from infra import tables
from infra.database import insert_once, writing
from infra.secrets import Secrets
from infra.settings import Settings
from pipelines.commands import exporting as commands
from pipelines.commands.workspace import FAILED, OK, Workspace
from pipelines.exports import writing as files
from pipelines.exports.writing import write_lines, write_table
from tests.pipelines.commands import run
from tests.pipelines.holdout_world import NOW, fill, shop
from tests.reward_models.serving.models import registered, trained

GONE = f"u1:{5:032x}"


@pytest.fixture
def workspace(engine: Engine, secrets: Secrets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """What the commands open: a shop in which b earns twice as much as a, and one customer is forgotten."""
    found = Workspace(Settings(home=tmp_path), engine, secrets, lambda: NOW)
    monkeypatch.setattr(commands, "open_workspace", lambda: found)
    fill(engine, secrets, shop(), customers=800)
    with writing(engine) as connection:
        insert_once(connection, tables.forgotten_units, [{"unit": GONE, "forgotten_at": 0}])
    return found


def loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, *paths: Path) -> Any:
    """The export as the ``datasets`` library reads it, without a network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    import datasets

    return datasets.load_dataset(
        kind, data_files=[str(path) for path in paths], split="train", cache_dir=str(tmp_path / "cache")
    )


def test_examples_load_as_datasets(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """SFT, DPO and KTO are read back by the datasets library with TRL's columns; the card has the digest; phrases come
    from the serving model; no customer is in any of them."""
    registered(workspace.engine, workspace.settings.bundles, trained(), "shop")
    columns = {"sft": {"messages"}, "dpo": {"prompt", "chosen", "rejected"}, "kto": {"prompt", "completion", "label"}}
    for kind, wanted in columns.items():
        path = tmp_path / f"{kind}.jsonl"
        more = ["--phrases"] if kind == "dpo" else []
        code, document, _ = run(capsys, "export", kind, "shop", str(path), "--json", *more)
        card = json.loads(document)
        found = loaded(monkeypatch, tmp_path, "json", path)

        assert code == OK
        assert wanted <= set(found.column_names)
        assert len(found) == card["files"][0]["rows"] > 0
        assert card["files"][0]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert json.loads((tmp_path / f"{kind}.jsonl.card.json").read_text()) == card
        assert b"u1:" not in path.read_bytes()
    assert loaded(monkeypatch, tmp_path, "json", tmp_path / "sft.jsonl")[0]["messages"][1]["content"] == "b"
    pair = loaded(monkeypatch, tmp_path, "json", tmp_path / "dpo.jsonl")[0]
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("b", "a")
    assert pair["chosen_reward"]["mean"] > 1.5 * pair["rejected_reward"]["mean"]
    for side, text in (("chosen", "b"), ("rejected", "a")):
        (phrase,) = pair[f"{side}_phrases"]
        assert isinstance(phrase.pop("reward"), float)
        assert phrase == {"slot": "subject", "text": text, "start": 0, "end": 1}


def test_tables_load_and_the_forgotten_are_in_none(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Decisions, outcomes and contents are whole Parquet files; customers are named only if asked for; who was forgotten
    appears nowhere, by hash or by decision."""
    code, _, _ = run(capsys, "export", "parquet", "shop", str(tmp_path / "out"))
    named = tmp_path / "named"
    run(capsys, "export", "parquet", "shop", str(named), "--units")
    decisions = pyarrow.parquet.read_table(named / "decisions.parquet").to_pydict()
    outcomes = pyarrow.parquet.read_table(named / "outcomes.parquet").to_pydict()
    read = loaded(monkeypatch, tmp_path, "parquet", tmp_path / "out" / "decisions.parquet")

    assert code == OK
    assert "unit" not in read.column_names
    assert len(read) == len(decisions["unit"]) == 799
    assert GONE not in decisions["unit"]
    assert "d5" not in {*decisions["decision_id"], *outcomes["decision_id"]}
    assert set(outcomes["decision_id"]) <= set(decisions["decision_id"])
    assert set(outcomes["metric"]) == {"click", "revenue", "unsubscribe"}
    assert json.loads(decisions["context"][0])["tier"] in ("gold", "new")
    assert decisions["decided_at"] == sorted(decisions["decided_at"])
    assert pyarrow.parquet.read_table(named / "contents.parquet").column("content_id").to_pylist() == ["a", "b"]


def test_bad_input_is_a_sentence(workspace: Workspace, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Another ending, phrases without a model and an unknown loop are said; nothing is left behind."""
    before = set(os.listdir(tmp_path))
    for arguments, said in (
        (("sft", "shop", str(tmp_path / "x.csv")), "must end in .jsonl"),
        (("dpo", "shop", str(tmp_path / "x.jsonl"), "--phrases"), "no model"),
        (("kto", "nothing", str(tmp_path / "x.jsonl")), "No loop"),
    ):
        code, _, error = run(capsys, "export", *arguments)
        assert code == FAILED
        assert said in error
    assert set(os.listdir(tmp_path)) == before


def test_rows_stream_to_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A row group is written before the next rows are asked for: memory holds one group, whatever the number of rows."""
    monkeypatch.setattr(files, "GROUP", 10)
    most, held = 0, 0
    written: list[int] = []

    def rows() -> Iterator[tuple[int]]:
        nonlocal most, held
        for number in range(95):
            held = number - 10 * len(written)
            most = max(most, held)
            yield (number,)

    write = pyarrow.parquet.ParquetWriter.write_table

    def counting(self: Any, table: Any, *arguments: Any, **more: Any) -> None:
        written.append(len(table))
        write(self, table, *arguments, **more)

    monkeypatch.setattr(pyarrow.parquet.ParquetWriter, "write_table", counting)
    found = write_table(tmp_path / "x.parquet", pyarrow.schema([("n", pyarrow.int64())]), rows())

    assert written == [10] * 9 + [5]
    assert most < 10
    assert found.rows == 95
    assert found.sha256 == hashlib.sha256((tmp_path / "x.parquet").read_bytes()).hexdigest()
    assert pyarrow.parquet.read_table(tmp_path / "x.parquet").column("n").to_pylist() == list(range(95))


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """An export that fails half-way leaves what was there before, and no part of itself."""
    path = tmp_path / "x.jsonl"
    path.write_text("before")

    def rows() -> Iterator[dict[str, int]]:
        yield {"n": 1}
        raise ValueError("the database went away")

    with pytest.raises(ValueError, match="went away"):
        write_lines(path, rows())

    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["x.jsonl"]
