"""The audit: its lines are found again, and nothing changes one."""

import re
from pathlib import Path

from sqlalchemy import Engine

from infra.database import reading, writing
from ingestion.audit import Entry, read_audit, record

ROOT = Path(__file__).parents[2]
CHANGES = re.compile(
    r"\b(update|delete|upsert)\(\s*(connection,\s*)?(\w+\.)*audit\b|\baudit\.(update|delete)\(|"
    r"(update|delete\s+from)\s+\"?audit\b",
    re.IGNORECASE,
)


def test_lines_are_found_by_who_what_and_when(any_engine: Engine) -> None:
    """The newest lines that fit are read, oldest first; a key's name finds what persons did with it, no other key's."""
    with writing(any_engine) as connection:
        for at, (actor, action, subject) in enumerate(
            [
                ("console: ann", "promote", "mail-1"),
                ("console: bob", "kill", "mail"),
                ("console2: ann", "kill", "push"),
                ("conso%", "unkill", "mail"),
            ]
        ):
            record(connection, actor, action, subject, {"n": at}, at)
    with reading(any_engine) as connection:
        every = read_audit(connection)
        assert [entry.at for entry in every] == [0, 1, 2, 3]
        assert every[0] == Entry(every[0].id, 0, "console: ann", "promote", "mail-1", {"n": 0})
        assert [entry.at for entry in read_audit(connection, limit=2)] == [2, 3]
        assert [entry.at for entry in read_audit(connection, action="kill")] == [1, 2]
        assert [entry.at for entry in read_audit(connection, subject="mail", since=2)] == [3]
        assert [entry.at for entry in read_audit(connection, actor="console")] == [0, 1]
        assert [entry.at for entry in read_audit(connection, actor="conso%")] == [3]


def test_no_statement_changes_a_line() -> None:
    """Nowhere in the product is a line of the audit updated or deleted; lines are only inserted."""
    sources = [
        path
        for package in ("infra", "ingestion", "reward_models", "pipelines")
        for path in (ROOT / package).rglob("*.py")
        if "migrations" not in path.parts
    ]
    assert [path.name for path in sources if CHANGES.search(path.read_text())] == []
    assert len(sources) > 100
    inserts = [path.name for path in sources if re.search(r"\baudit\.insert\(", path.read_text())]
    assert inserts == ["audit.py"]
    for change in ("update(tables.audit)", "delete(audit)", "tables.audit.update()", 'text("DELETE FROM audit")'):
        assert CHANGES.search(change), change
