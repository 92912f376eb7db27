"""``rewardloop import --format``: vendors' payloads from files, through the connectors of the webhooks."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ingestion.connectors import CONNECTORS
from ingestion.connectors.items import Ignored, Recognised
from tests.ingestion.connectors.golden import items
from tests.ingestion.importing import DATA, real
from tests.pipelines.commands import run
from tests.pipelines.test_cli import document

CALLS = [
    {"type": "track", "event": "Email Opened", "userId": "u", "messageId": "m-1", "timestamp": "2026-06-02T08:00:00Z"},
    {"type": "track", "event": "Email Opened", "userId": "u", "messageId": "m-2", "timestamp": "2026-06-02T08:00:01Z"},
    {"type": "track", "event": "Email Opened", "userId": "u", "messageId": "m-3"},
    {"type": "page", "userId": "u"},
    {"type": "track", "event": "Email Opened", "userId": "u", "messageId": "m-4", "timestamp": "1970-01-01T00:00:00Z"},
]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test has an installation of its own."""
    monkeypatch.setenv("REWARDLOOP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REWARDLOOP_LOG_LEVEL", "error")


def lines(path: Path, records: list[Any]) -> str:
    """A gzipped file of JSON lines."""
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, records)).encode()))
    return str(path)


def test_a_dry_run_says_what_the_records_are(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Recognised, ignored and rejected with the reasons; nothing is stored."""
    file = lines(tmp_path / "calls.jsonl.gz", CALLS)
    found = document(capsys, "import", "--format", "segment", "--dry-run", file)
    again = document(capsys, "import", "--format", "segment", "--dry-run", file)

    assert found == again
    (reason,) = found.pop("rejected_because")
    assert "before the year 2000" in reason
    assert found == {
        "dry_run": True,
        "format": "segment",
        "connection": "segment",
        "records": 5,
        "recognised": 2,
        "ignored": 2,
        "rejected": 1,
        "types": {"open": 2},
        "ignored_because": {"no timestamp": 1, "page calls are no events": 1},
    }


def test_the_same_file_again_is_all_duplicates(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An import stores each event once, and puts what is rejected into quarantine."""
    file = lines(tmp_path / "calls.jsonl.gz", CALLS)
    first = document(capsys, "import", "--format", "segment", file)
    second = document(capsys, "import", "--format", "segment", file)
    held = document(capsys, "quarantine", "list")

    assert [(run["applied"], run["pending"], run["duplicate"]) for run in (first, second)] == [(0, 2, 0), (0, 0, 2)]
    assert [(one["source"], one["position"]) for one in held] == [("segment", "segment/event/m-4")]


def test_a_replay_reads_the_vendors_bytes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A quarantined record goes through its connector again, and is refused for the same reason."""
    document(capsys, "import", "--format", "segment", lines(tmp_path / "calls", CALLS))
    (held,) = document(capsys, "quarantine", "list")
    code, printed, _ = run(capsys, "quarantine", "replay", str(held["id"]), "--json")

    assert code == 1
    assert "before the year 2000" in json.loads(printed)["refused"][str(held["id"])]


def test_the_table_names_every_reason(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without --json the same is a table for people."""
    code, printed, _ = run(capsys, "import", "--format", "segment", "--dry-run", lines(tmp_path / "calls", CALLS))

    assert code == 0
    for word in (
        "recognised",
        "page calls are no events",
        "no timestamp",
        "before the year 2000",
        "Nothing was stored",
    ):
        assert word in printed


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "--mapping with a TOML file for a table, or --format"),
        (("--format", "segment", "--mapping", "x.toml"), "--mapping with a TOML file for a table, or --format"),
        (("--format", "segmint"), "There is no format 'segmint'; there are segment"),
        (("--format", "segment", "--connection", "a b"), "cannot be a source"),
        (("--format", "segment"), "cannot be read: No such file"),
    ],
)
def test_a_wrong_call_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    """What to do stands in it."""
    code, _, complaint = run(capsys, "import", *arguments, str(tmp_path / "nothing"))

    assert code == 1
    assert sentence in " ".join(complaint.split())


@pytest.mark.data
@pytest.mark.parametrize("vendor", ["segment", "sendgrid", "shopify", "stripe"])
def test_every_published_sample_is_recognised_or_ignored(capsys: pytest.CaptureFixture[str], vendor: str) -> None:
    """All samples that the vendor publishes end recognised, or ignored with a reason; none is rejected."""
    folder = real(f"vendor/{vendor}")
    found = {
        path.name: document(capsys, "import", "--format", vendor, "--dry-run", str(path))
        for path in sorted(folder.iterdir())
    }

    assert {name: run["rejected_because"] for name, run in found.items() if run["rejected"]} == {}
    assert all(run["records"] == run["recognised"] + run["ignored"] > 0 for run in found.values())


@pytest.mark.data
def test_every_published_cloudevent_is_recognised_or_ignored() -> None:
    """Examples and conformance messages of the specification; its schemas are no events."""
    real("vendor/cloudevents")
    found = []
    for path in sorted((DATA / "vendor" / "cloudevents").iterdir()):
        if not path.name.startswith("schema"):
            found += items("cloudevents", *as_http(path))

    assert {type(item) for item in found} <= {Recognised, Ignored}
    assert len(found) > 15


def as_http(path: Path) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a conformance message, or of a plain example."""
    text = path.read_text()
    if path.suffix == ".txt":
        head, _, body = text.partition("\n\n")
        fields = [line.partition(": ") for line in head.splitlines()[1:]]
        headers = {name.lower(): value for name, _, value in fields}
        return body.encode(), headers | {"content-type": "application/json"}  # a placeholder in the original
    message = json.loads(text)
    if "kafka_value" in message:
        return message["kafka_value"].encode(), message["kafka_headers"]
    return text.encode(), {}


def test_all_formats_are_offered(capsys: pytest.CaptureFixture[str]) -> None:
    """The help names every connector."""
    _, printed, _ = run(capsys, "import", "--help")

    assert all(name in printed for name in CONNECTORS)
