"""What every command stands on: settings, database, secrets, clock and the two consoles, opened in one place.

Results go to stdout, progress and errors to stderr, so that ``--json`` output can be piped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from infra.clock import Clock
from infra.database import open_database
from infra.errors import Unavailable
from infra.logs import configure_logs
from infra.migrations import migrate
from infra.secrets import Secrets, load_secrets
from infra.settings import Settings, clock_of, load_settings

OK = 0
FAILED = 1
"""Bad input or a bad setting: the sentence on stderr says what to do."""
USAGE = 2
GATE_REFUSED = 3
"""The gate refused or failed a version: nothing was promoted."""
UNAVAILABLE = 4
"""A dependency does not answer; the same command may succeed later."""

_PIPED_WIDTH = 160

LoopArgument = Annotated[str, typer.Argument(help="The loop's id.", show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


@dataclass(frozen=True)
class Workspace:
    """An opened installation. The database is at the newest schema."""

    settings: Settings
    engine: Engine
    secrets: Secrets
    clock: Clock


def open_workspace() -> Workspace:
    """Open the installation the environment names; the embedded mode makes what is missing.

    Raises :class:`Misconfigured` for a bad setting, :class:`Unavailable` when the database is away.
    """
    settings = load_settings()
    configure_logs(settings.log_level)
    settings.home.mkdir(parents=True, exist_ok=True)
    engine = open_database(settings.database)
    try:
        migrate(engine)
    except OperationalError as error:
        raise Unavailable(f"The database does not answer: {error.orig}") from error
    return Workspace(settings, engine, load_secrets(settings), clock_of(settings))


def out() -> Console:
    """The console of results: stdout. Made when used, so that a redirected stdout is the one written to."""
    return Console()


def err() -> Console:
    """The console of progress and errors: stderr."""
    return Console(stderr=True)


def print_json(document: Any) -> None:
    """One JSON document on stdout, indented, keys in the order given."""
    typer.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], numbers: Sequence[int] = ()) -> None:
    """A table on stdout; ``numbers`` are the indices of right-aligned columns. Lines are never cut when piped."""
    table = Table(title=_plain(title), title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_plain, row))
    console = out()
    (console if console.is_terminal else Console(width=_PIPED_WIDTH)).print(table)


def printable(text: str) -> str:
    """What others sent, for a terminal: nothing in it moves the cursor or changes colours."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)


def _plain(cell: Any) -> Text:
    """A cell as it is written: brackets are no markup."""
    return Text(printable(str(cell)))


def progress() -> Progress:
    """A progress bar on stderr, silent when stderr is no terminal."""
    console = err()
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    )
