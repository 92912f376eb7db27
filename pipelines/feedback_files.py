"""Feedback out of files: every row is something that a person said, kept once.

read_rows(path, loop_id, reader) -> number and body of each row        ``reader``: of the columns, then of a row, what it says
import_rows(workspace, path, loop_id, rows, ...)                       store them; the same file again changes nothing
"""

import hashlib
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


def import_rows(
    workspace: Workspace, path: Path, loop_id: str, rows: Iterator[Row], what: str, after: str, as_json: bool
) -> None:
    """Store what rows say, in batches, and print how many were new. ``after``: the command that goes on."""
    counts = {"rows": 0, "new": 0, "already there": 0}
    with reading(workspace.engine) as connection:
        load_loop(connection, loop_id)
    with progress() as bar:
        task = bar.add_task(f"reading {path.name}", total=None)
        for batch in _batches(rows):
            with writing(workspace.engine) as connection:
                for number, body in batch:
                    new = _add(connection, path, number, body, workspace)
                    counts["new" if new else "already there"] += 1
            counts["rows"] += len(batch)
            bar.update(task, completed=counts["rows"])
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


def _add(connection: Connection, path: Path, number: int, body: FeedbackBody, workspace: Workspace) -> bool:
    """The id is made of what is said and of the row, so a file can be imported twice."""
    said = f"{path.name}\x00{number}\x00{body.model_dump_json()}"
    feedback_id = f"file-{hashlib.sha256(said.encode()).hexdigest()[:40]}"
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
