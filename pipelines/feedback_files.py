"""Feedback out of files: every row is something that a person said, kept once.

read_rows(path, loop_id, reader) -> number and body of each row        ``reader``: of the columns, then of a row, what it says
store_rows(workspace, path, loop_id, rows, told) -> counts             store them; the same row again changes nothing
import_rows(workspace, path, loop_id, rows, ...)                       the same, and print what became of it

A row is known by what it says, wherever it stands and whatever the file is called; of equal rows in one file each counts.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection

from infra.database import reading, writing
from infra.errors import BadInput
from ingestion.feedback import add_feedback
from ingestion.files.tables import open_table
from ingestion.http.bodies import FeedbackBody
from ingestion.loops import load_loop
from pipelines.commands.workspace import Workspace, out, print_json, print_table, progress

MOST_ROWS = 1_000_000
_BATCH = 500

Row = tuple[int, FeedbackBody]
Reader = Callable[[list[str]], Callable[[Mapping[str, str]], dict[str, Any]]]


def read_rows(path: Path, loop_id: str, reader: Reader) -> Iterator[Row]:
    """Every row of a CSV or Parquet table; ``annotator`` is read where it is there. Raises :class:`BadInput`, naming the row."""
    with open_table(path) as table:
        read = reader(table.columns)
        for number, row in enumerate(table.rows, start=1):
            if number > MOST_ROWS:
                raise BadInput(f"{path} has more than {MOST_ROWS:,} rows; give it in parts")
            if len(row) != len(table.columns):
                raise BadInput(f"{path}, row {number:,}: {len(row)} cells for {len(table.columns)} columns")
            yield number, _body(path, number, loop_id, dict(zip(table.columns, row, strict=True)), read)


def store_rows(
    workspace: Workspace, path: Path, loop_id: str, rows: Iterator[Row], told: Callable[[int], None]
) -> dict[str, int]:
    """Store what rows say, in batches, and count them; ``told`` hears after each batch how many were read."""
    counts = {"rows": 0, "new": 0, "already there": 0}
    with reading(workspace.engine) as connection:
        load_loop(connection, loop_id)
    seen = Counter[bytes]()
    for batch in _batches(rows):
        with writing(workspace.engine) as connection:
            for number, body in batch:
                new = _add(connection, path, number, body, _id_of(body, seen), workspace)
                counts["new" if new else "already there"] += 1
        counts["rows"] += len(batch)
        told(counts["rows"])
    return counts


def import_rows(
    workspace: Workspace, path: Path, loop_id: str, rows: Iterator[Row], what: str, after: str, as_json: bool
) -> None:
    """Store what rows say and print how many were new. ``after``: the command that goes on."""
    with progress() as bar:
        task = bar.add_task(f"reading {path.name}", total=None)
        counts = store_rows(workspace, path, loop_id, rows, lambda read: bar.update(task, completed=read))
    if as_json:
        print_json(counts)
    else:
        print_table(f"{what} from {path.name}", list(counts), [[f"{n:,}" for n in counts.values()]], range(3))
        out().print(f"Next: {after}", highlight=False)


def _body(
    path: Path, number: int, loop_id: str, row: Mapping[str, str], read: Callable[[Mapping[str, str]], dict[str, Any]]
) -> FeedbackBody:
    try:
        said = read(row) | {"source": "HUMAN", "loop": loop_id}
        return FeedbackBody.model_validate(said | {"annotator": row.get("annotator", "").strip() or None})
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"{path}, row {number:,}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except BadInput as error:
        raise BadInput(f"{path}, row {number:,}: {error}") from None


def _id_of(body: FeedbackBody, seen: Counter[bytes]) -> str:
    """Made of what is said and of how often it was said before, so a table can be imported again when rows were added."""
    said = hashlib.sha256(body.model_dump_json().encode())
    seen[said.digest()] += 1
    said.update(f"\x00{seen[said.digest()]}".encode())
    return f"file-{said.hexdigest()[:40]}"


def _add(
    connection: Connection, path: Path, number: int, body: FeedbackBody, feedback_id: str, workspace: Workspace
) -> bool:
    try:
        return add_feedback(connection, feedback_id, body, workspace.settings.text_limit_bytes, workspace.clock())
    except BadInput as error:
        raise BadInput(f"{path}, row {number:,}: {error}") from None


def _batches(rows: Iterator[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    for row in rows:
        batch.append(row)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
