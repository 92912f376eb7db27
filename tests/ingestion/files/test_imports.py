"""Files become facts through the store that live events use; a second time changes nothing."""

import csv
import gzip
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from infra import tables
from infra.database import reading
from infra.errors import BadInput, Conflict
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion import quarantine, store
from ingestion.files import imports
from ingestion.files.imports import Importer, Tally, dry_run, run_import
from ingestion.files.mappings import parse_mapping
from ingestion.ledger import conservation
from ingestion.loops import load_loop
from tests.ingestion.importing import (
    DECISION_COLUMNS,
    FIXTURES,
    NOW,
    RESULT_COLUMNS,
    decisions,
    example,
    real,
    results,
)

CUSTOMERS = FIXTURES / "customers.csv"
HEADLINES = FIXTURES / "headlines.csv"


@pytest.fixture
def importer(any_engine: Engine, secrets: Secrets, settings: Settings) -> Importer:
    """An installation on either database, at a fixed time."""
    return Importer(any_engine, secrets, settings, lambda: NOW)


@pytest.fixture
def on_sqlite(engine: Engine, secrets: Secrets, settings: Settings) -> Importer:
    """An installation on SQLite, at a fixed time."""
    return Importer(engine, secrets, settings, lambda: NOW)


def count(importer: Importer, table: Any) -> int:
    with reading(importer.engine) as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def everything(importer: Importer) -> dict[str, list[Any]]:
    """All facts and outcomes, without the ledger."""
    kept = (tables.campaigns, tables.contents, tables.decisions, tables.events, tables.outcomes, tables.content_stats)
    with reading(importer.engine) as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in (*kept, tables.historical_results)
        }


def file(folder: Path, columns: list[str], *rows: str) -> Path:
    path = folder / "file.csv"
    path.write_text("\n".join([",".join(columns), *rows]) + "\n")
    return path


def outcome_sums(importer: Importer) -> dict[str, int]:
    sums = select(tables.outcomes.c.metric, func.sum(tables.outcomes.c.value)).group_by(tables.outcomes.c.metric)
    with reading(importer.engine) as connection:
        return {metric: int(total) for metric, total in connection.execute(sums)}


def sums_in_the_file() -> dict[str, int]:
    with CUSTOMERS.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return {
        metric: sum(round(float(row[metric]) * 1_000_000) for row in rows)
        for metric in ("visit", "conversion", "spend")
    }


def test_past_decisions_are_joined_with_their_outcomes(importer: Importer) -> None:
    """Every row is a decision with its events, and the join finds each outcome of the file."""
    report = run_import(importer, example("hillstrom"), CUSTOMERS)

    assert report.tally == Tally(applied=120)
    assert count(importer, tables.decisions) == 120
    assert outcome_sums(importer) == sums_in_the_file()


def test_sending_nothing_is_a_candidate_and_no_content(on_sqlite: Importer) -> None:
    """`no_send` is among the candidates of every decision, and is never registered as copy."""
    run_import(on_sqlite, example("hillstrom"), CUSTOMERS)
    with reading(on_sqlite.engine) as connection:
        candidates = connection.scalars(select(tables.decisions.c.candidates)).all()
        contents = connection.scalars(select(tables.contents.c.content_id).order_by(tables.contents.c.content_id)).all()

    ids = {tuple(candidate["content_id"] for candidate in row) for row in candidates}
    assert ids == {("hillstrom-mens", "hillstrom-womens", "no_send")}
    assert contents == ["hillstrom-mens", "hillstrom-womens"]


def test_results_are_pooled_by_copy(importer: Importer) -> None:
    """Every row of a report is kept; rows that share a text within a campaign share the content."""
    report = run_import(importer, example("upworthy"), HEADLINES)
    lines = [line for line in HEADLINES.read_text().splitlines() if line.startswith("test-")]

    assert report.tally == Tally(applied=len(lines))
    assert count(importer, tables.historical_results) == len(lines)
    assert count(importer, tables.contents) == len({tuple(line.split(",")[:2]) for line in lines})


@pytest.mark.parametrize(("name", "path"), [("hillstrom", CUSTOMERS), ("upworthy", HEADLINES)])
def test_a_second_import_changes_nothing(importer: Importer, name: str, path: Path) -> None:
    """The same file again is all duplicates and leaves every fact as it was."""
    first = run_import(importer, example(name), path)
    before = everything(importer)
    second = run_import(importer, example(name), path)

    assert second.tally == Tally(duplicate=first.tally.rows)
    assert everything(importer) == before
    assert conservation(importer.engine) == 0


@pytest.mark.parametrize("chunk", [1, 7, 50])
def test_chunks_make_no_difference(
    on_sqlite: Importer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """However the rows are cut into transactions, the facts are the same."""
    monkeypatch.setattr(imports, "CHUNK", chunk)
    run_import(on_sqlite, example("hillstrom"), CUSTOMERS)

    assert count(on_sqlite, tables.decisions) == 120
    assert outcome_sums(on_sqlite) == sums_in_the_file()


def test_an_import_that_was_cut_off_goes_on(on_sqlite: Importer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a crash the next run starts behind the last chunk that was remembered, and ends with the same facts."""
    monkeypatch.setattr(imports, "CHUNK", 40)
    calls = 0
    apply = store.apply

    def crash_on_third(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return apply(*arguments, **named)

    monkeypatch.setattr(store, "apply", crash_on_third)
    with pytest.raises(KeyboardInterrupt):
        run_import(on_sqlite, example("hillstrom"), CUSTOMERS)
    report = run_import(on_sqlite, example("hillstrom"), CUSTOMERS)

    assert (report.resumed_at, report.tally) == (80, Tally(applied=40))
    assert count(on_sqlite, tables.decisions) == 120


def test_a_chunk_that_was_applied_but_not_remembered(on_sqlite: Importer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash between applying a chunk and remembering it applies the chunk again, which changes nothing."""
    monkeypatch.setattr(imports, "CHUNK", 60)
    remember = imports._remember

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(imports, "_remember", crash)
    with pytest.raises(KeyboardInterrupt):
        run_import(on_sqlite, example("hillstrom"), CUSTOMERS)
    monkeypatch.setattr(imports, "_remember", remember)
    report = run_import(on_sqlite, example("hillstrom"), CUSTOMERS)

    assert report.tally == Tally(applied=60, duplicate=60)


def test_unreadable_rows_are_kept_with_their_reason(importer: Importer, tmp_path: Path) -> None:
    """A row that cannot be used is in quarantine with its bytes and a reason; the others are imported."""
    path = file(
        tmp_path,
        DECISION_COLUMNS,
        "ann,A,2026-01-05T09:00:00Z,41,Bonn,19.99",
        "bob,B,2026-01-05T09:00:00Z,41,Bonn,",
        "eve,A,2026-01-05T09:00:00Z,41,Bonn,-5",
        "dan,A",
    )
    report = run_import(importer, parse_mapping(decisions()), path)
    again = run_import(importer, parse_mapping(decisions()), path)
    held = quarantine.list_held(importer.engine)

    assert (report.tally, again.tally) == (Tally(applied=1, quarantined=3), Tally(duplicate=4))
    assert sorted(record.position for record in held) == ["2", "3", "4"]
    raw = {record.position: quarantine.show(importer.engine, importer.secrets, record.id).raw for record in held}
    assert raw["3"] == b"eve,A,2026-01-05T09:00:00Z,41,Bonn,-5"
    assert conservation(importer.engine) == 0


def test_a_dry_run_counts_and_stores_nothing(on_sqlite: Importer, tmp_path: Path) -> None:
    """A dry run says how many rows are recognised, ignored and rejected, and why; the database stays empty."""
    mapping = parse_mapping(results(ignore=[{"column": "fault", "equals": "2"}]))
    path = file(tmp_path, RESULT_COLUMNS, "t,a,10,1,0", "t,b,10,99,0", "t,c,10,98,0", "t,d,10,1,2", ",e,10,1,0")
    report = dry_run(on_sqlite, mapping, path)

    assert report.tally == Tally(applied=1, ignored=1, quarantined=3)
    assert {(c.rows, c.first_row, c.example) for c in report.complaints.values()} == {
        (2, 2, "clicks is '99', more than the 10 exposures; check the columns"),
        (1, 5, "test is empty"),
    }
    assert [count(on_sqlite, table) for table in (tables.loops, tables.imports, tables.batches)] == [0, 0, 0]


def test_a_wrong_column_leaves_nothing_half_written(on_sqlite: Importer) -> None:
    """A file without a mapped column is refused before anything is stored."""
    with pytest.raises(BadInput, match="Columns found: recency"):
        run_import(on_sqlite, example("upworthy"), CUSTOMERS)

    assert [count(on_sqlite, table) for table in (tables.loops, tables.imports)] == [0, 0]


@pytest.mark.parametrize("moment", ["2130-01-01T00:00:00Z", "1970-01-01T00:00:00Z"])
def test_an_invented_time_is_in_the_past(on_sqlite: Importer, tmp_path: Path, moment: str) -> None:
    """An invented time that no past decision can have is refused before anything is stored."""
    document = decisions()
    document["decisions"] |= {"decided_at": {"invented": moment}}
    file = tmp_path / "customers.csv"
    file.write_text(",".join(DECISION_COLUMNS))

    with pytest.raises(BadInput, match="give a time between the year 2000 and now"):
        run_import(on_sqlite, parse_mapping(document), file)
    assert count(on_sqlite, tables.imports) == count(on_sqlite, tables.loops) == 0


def test_a_gzipped_file_that_was_cut_leaves_nothing_half_written(on_sqlite: Importer, tmp_path: Path) -> None:
    """A download that stopped early is refused whole: its rows would be facts of a file that nobody has."""
    cut = tmp_path / "cut.csv.gz"
    cut.write_bytes(gzip.compress(CUSTOMERS.read_bytes())[:-40])

    with pytest.raises(BadInput, match="ended before the end-of-stream marker"):
        run_import(on_sqlite, example("hillstrom"), cut)
    assert count(on_sqlite, tables.imports) == count(on_sqlite, tables.decisions) == 0


def test_a_name_belongs_to_one_file_and_mapping(on_sqlite: Importer, tmp_path: Path) -> None:
    """Another file, or other columns, under the name of an import are refused; a new reward is not."""
    document = results()
    path = file(tmp_path, RESULT_COLUMNS, "t,a,10,1,0")
    run_import(on_sqlite, parse_mapping(document), path)
    document["loop"] |= {"reward": {"click": 2}}
    run_import(on_sqlite, parse_mapping(document), path)
    with reading(on_sqlite.engine) as connection:
        definition, version = load_loop(connection, "news")

    assert (version, definition.reward) == (2, {"click": 2.0})
    with pytest.raises(Conflict, match="another mapping"):
        run_import(on_sqlite, parse_mapping(document | {"channel": "web"}), path)
    path.write_text(path.read_text() + "t,b,10,1,0\n")
    with pytest.raises(Conflict, match="another file"):
        run_import(on_sqlite, parse_mapping(document), path)


def test_one_campaign_one_loop(on_sqlite: Importer, tmp_path: Path) -> None:
    """Results for a campaign of another loop are refused."""
    path = file(tmp_path, RESULT_COLUMNS, "t,a,10,1,0")
    run_import(on_sqlite, parse_mapping(results()), path)
    other = results(**{"import": "second"})
    other["loop"] |= {"loop": "other"}

    with pytest.raises(Conflict, match="Campaign 't' belongs to loop 'news'"):
        run_import(on_sqlite, parse_mapping(other), path)


def test_one_id_for_two_texts(on_sqlite: Importer, tmp_path: Path) -> None:
    """Where a file gives one content id to two texts, or two ids to one text, the text decides."""
    document = results()
    document["results"] |= {"content": "fault", "untrusted": None}
    path = file(tmp_path, RESULT_COLUMNS, "t,a,10,1,id-1", "t,b,10,1,id-1", "t,a,10,2,id-2", "u,a,10,2,id-1")
    run_import(on_sqlite, parse_mapping(document), path)
    with reading(on_sqlite.engine) as connection:
        ids = connection.scalars(
            select(tables.historical_results.c.content_id).order_by(tables.historical_results.c.row)
        ).all()
        texts = connection.execute(select(tables.contents.c.content_id, tables.contents.c.slots)).all()

    assert ids[0] == ids[2] == "id-1"
    assert len({ids[0], ids[1], ids[3]}) == 3
    assert {row.slots["headline"] for row in texts if row.content_id == ids[1]} == {"b"}


def test_gzip_makes_no_difference(on_sqlite: Importer, tmp_path: Path) -> None:
    """A gzipped file is imported like the plain one."""
    (tmp_path / "headlines.csv.gz").write_bytes(gzip.compress(HEADLINES.read_bytes()))
    zipped = dry_run(on_sqlite, example("upworthy"), tmp_path / "headlines.csv.gz")

    assert zipped == dry_run(on_sqlite, example("upworthy"), HEADLINES)


@pytest.mark.data
def test_the_real_headlines(on_sqlite: Importer) -> None:
    """All 22,666 rows of 4,873 tests are imported, and the second time all are known."""
    path = real("upworthy/upworthy_exploratory.csv.gz")
    first = run_import(on_sqlite, example("upworthy"), path)
    second = run_import(on_sqlite, example("upworthy"), path)

    assert (first.tally, second.tally) == (Tally(applied=22_666), Tally(duplicate=22_666))
    assert count(on_sqlite, tables.campaigns) == 4_873


@pytest.mark.data
def test_the_real_customers(on_sqlite: Importer) -> None:
    """All 64,000 rows are imported, every arm has the published mean in every digit, and the second time all are known."""
    path = real("hillstrom/hillstrom.csv")
    first = run_import(on_sqlite, example("hillstrom"), path)
    means = arm_means(on_sqlite)
    second = run_import(on_sqlite, example("hillstrom"), path)

    assert (first.tally, second.tally) == (Tally(applied=64_000), Tally(duplicate=64_000))
    assert means == {
        "hillstrom-mens": ("21,307", "18.276 %", "1.253 %", "1.4226"),
        "hillstrom-womens": ("21,387", "15.140 %", "0.884 %", "1.0772"),
        "no_send": ("21,306", "10.617 %", "0.573 %", "0.6528"),
    }


def arm_means(importer: Importer) -> dict[str, tuple[str, ...]]:
    """Exposures and means per content, from the running statistics."""
    stats = tables.content_stats.c
    query = select(stats.content_id, stats.metric, func.sum(stats.exposures), func.sum(stats.sum)).group_by(
        stats.content_id, stats.metric
    )
    with reading(importer.engine) as connection:
        found = {(row[0], row[1]): (int(row[2]), int(row[3]) / 1e6 / int(row[2])) for row in connection.execute(query)}
    return {
        content: (
            f"{found[content, 'visit'][0]:,}",
            f"{found[content, 'visit'][1]:.3%}".replace("%", " %"),
            f"{found[content, 'conversion'][1]:.3%}".replace("%", " %"),
            f"{found[content, 'spend'][1]:.4f}",
        )
        for content in sorted({key[0] for key in found})
    }
