"""``rewardloop unit``: hashes for teams that write to topics."""

import io
import json
from pathlib import Path

import pytest

from infra.secrets import load_secrets
from infra.settings import Settings
from pipelines import cli


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with one unit secret."""
    monkeypatch.setenv("REWARDLOOP_HOME", str(tmp_path))
    load_secrets(Settings(home=tmp_path))
    return tmp_path


def test_hashes_as_the_installation_does(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each id given is printed as its keyed hash, one per line."""
    assert cli.run(["unit", "jane", "john"]) == 0
    secrets = load_secrets(Settings(home=home))

    assert capsys.readouterr().out.splitlines() == [secrets.unit("jane"), secrets.unit("john")]


def test_ids_from_stdin(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With `-` ids are read from stdin, so that they need not stand in the shell's history."""
    monkeypatch.setattr("sys.stdin", io.StringIO("jane doe\njohn\n"))
    assert cli.run(["unit", "-"]) == 0
    secrets = load_secrets(Settings(home=home))

    assert capsys.readouterr().out.splitlines() == [secrets.unit("jane doe"), secrets.unit("john")]


def test_the_hash_of_before(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """During a rotation `--before` prints the hash under the older secret; without one it says so."""
    assert cli.run(["unit", "--before", "jane"]) == 1
    assert "There is one unit secret only" in capsys.readouterr().err
    path = Settings(home=home).secrets_path
    stored = json.loads(path.read_text())
    stored["units"]["2"] = "22" * 32
    path.write_text(json.dumps(stored))

    assert cli.run(["unit", "--before", "jane"]) == 0
    assert capsys.readouterr().out.strip() == load_secrets(Settings(home=home)).unit_before("jane")


@pytest.mark.parametrize("id_", ["", "x" * 257, "jane\udcff"], ids=["empty", "long", "not UTF-8"])
def test_what_is_no_customer_has_no_hash(home: Path, capsys: pytest.CaptureFixture[str], id_: str) -> None:
    """An id that the API would refuse is refused by its place, without repeating it: else nobody becomes a customer."""
    assert cli.run(["unit", "jane", id_]) == 1
    captured = capsys.readouterr()

    assert "Customer id 2 is not a text of 1 to 256 characters" in captured.err
    assert len(captured.out.splitlines()) == 1
