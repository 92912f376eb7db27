"""The database: one engine, short transactions, insert-once. SQLite (WAL, synchronous=FULL) and PostgreSQL alike."""

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from sqlalchemy import (
    Connection,
    CursorResult,
    Engine,
    String,
    Table,
    Text,
    and_,
    bindparam,
    create_engine,
    event,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolExhausted
from sqlalchemy.types import TypeDecorator, TypeEngine

from infra.dialect import Run, as_list, elements, listed, part, prepared
from infra.errors import Misconfigured, Unavailable
from infra.exact import teach
from infra.patience import impatient

POOL_SECONDS = 5.0
"""How long a call waits for one of the connections, before it hears that the database does not answer."""
_LINK = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""What libpq is told, unless the URL says otherwise: a network that swallows everything is noticed within a minute."""

JOIN_LOCK = 7_236_411_905
"""Key of the one advisory lock that serialises the join on PostgreSQL (invariant 4)."""

Written = TypeVar("Written")

Row = Mapping[str, Any]
Cells = Mapping[str, Sequence[Any]]
"""Rows by column: the values of each, all of one length."""


class Json(TypeDecorator[Any]):
    """JSON kept as text, keys sorted, so that the same value is the same bytes on every database."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002 (SQLAlchemy names it)
        return _json_text(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002 (SQLAlchemy names it)
        return None if value is None else msgspec.json.decode(value)


class Hash(TypeDecorator[str]):
    """The first half of a SHA-256, as hex: 16 bytes on PostgreSQL (its type ``uuid``), text on SQLite.

    Half the bytes are half the pages of an index that every event searches, and 128 bits never meet by chance. A whole
    digest may be given: it is cut.
    """

    impl = String
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return postgresql.UUID(as_uuid=False)
        return String(HASH_LENGTH)

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 (SQLAlchemy names it)
        return _cut(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 (SQLAlchemy names it)
        return None if value is None else value.replace("-", "")


HASH_LENGTH = 32
"""Characters of a :class:`Hash`."""


def cut(digest: str) -> str:
    """A digest as a :class:`Hash`."""
    return digest[:HASH_LENGTH]


def _cut(digest: str | None) -> str | None:
    return None if digest is None else digest[:HASH_LENGTH]


_encode = msgspec.json.Encoder(order="sorted").encode


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: what digests are taken of."""
    return _encode(value)


def open_database(url: str, patience: float | None = None) -> Engine:
    """An engine for ``url``. Nothing is created: see ``infra.migrations.migrate``. Errors do not show what was stored.

    patience: seconds that PostgreSQL may take to answer one statement; then the connection is given up. None: as long
    as it takes, which is right for what may take long, and wrong for what somebody waits for: a frozen server never
    answers. SQLite waits for its lock so long, 30 seconds without.
    Raises :class:`Misconfigured` for a URL that is neither SQLite nor PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise Misconfigured(
            "REWARDLOOP_DATABASE_URL is no database URL; write one like postgresql://user:password@host/name, "
            "or leave it empty for SQLite under the data folder"
        ) from None
    if parsed.get_backend_name() == "postgresql":
        engine = create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            pool_size=10,
            pool_timeout=POOL_SECONDS,
            hide_parameters=True,
            connect_args={name: value for name, value in _link(patience).items() if name not in parsed.query},
        )
        event.listen(engine, "connect", _prepare_postgresql)
        if patience is not None:
            event.listen(engine, "do_connect", impatient(patience))
        return engine
    if parsed.get_backend_name() != "sqlite":
        raise Misconfigured(
            f"REWARDLOOP_DATABASE_URL: {parsed.get_backend_name()!r} is not supported; use sqlite or postgresql"
        )
    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, connect_args={"timeout": 30, "check_same_thread": False}, hide_parameters=True)
    event.listen(engine, "connect", _prepare_sqlite)
    if patience is not None:
        wait = f"PRAGMA busy_timeout={round(patience * 1_000)}"
        event.listen(engine, "connect", lambda connection, _: connection.execute(wait))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _link(patience: float | None) -> dict[str, int]:
    return _LINK if patience is None else _LINK | {"connect_timeout": max(2, ceil(patience))}


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    """End a transaction that says nothing for a minute: a frozen process would keep the join lock, and everybody, for
    ever. Whoever runs the server may have set another time."""
    connection.execute(
        "SELECT set_config('idle_in_transaction_session_timeout', '60s', false) "
        "WHERE current_setting('idle_in_transaction_session_timeout') = '0'"
    )
    connection.commit()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by us, below
    for pragma in (
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "busy_timeout=30000",
        "cache_size=-65536",
    ):
        connection.execute(f"PRAGMA {pragma}")
    teach(connection)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A write transaction (SQLite: ``BEGIN IMMEDIATE``; PostgreSQL: READ COMMITTED), committed at the end.

    Raises :class:`Unavailable` when the database is away or stays locked.
    """
    with _translated(), engine.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A read transaction. Raises :class:`Unavailable` when the database is away."""
    with _translated(), engine.connect() as connection, connection.begin():
        yield connection


class Pen:
    """For a thread that writes all the time: one statement each, its own transaction, over a connection that is kept.

    Nothing is asked or said around the statement: on PostgreSQL that is one round trip instead of the four of
    :func:`writing`. SQLite has none, so there it is that. One thread uses it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Connection | None = None

    def write(self, work: Callable[[Connection], Written]) -> Written:
        """What ``work`` returns. A kept connection that is gone is made anew, and the work is done again: it must be such
        that twice is as good as once.

        Raises :class:`Unavailable` when the database is away or stays locked.
        """
        if self._engine.dialect.name != "postgresql":
            with writing(self._engine) as connection:
                return work(connection)
        kept = self._connection is not None
        try:
            return self._write(work)
        except Unavailable:
            if not kept:
                raise
            return self._write(work)

    def close(self) -> None:
        """Give the connection back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _write(self, work: Callable[[Connection], Written]) -> Written:
        with _translated():
            if self._connection is None:
                self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            try:
                with self._connection.begin():
                    return work(self._connection)
            except BaseException:
                self.close()
                raise


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        if _is_mistake(error):
            raise
        raise Unavailable(f"The database does not answer: {_first_line(error)}") from error
    except PoolExhausted as error:
        raise Unavailable("The database does not answer: all its connections are in use") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable(f"The database went away: {_first_line(error)}") from error
        raise


def _is_mistake(error: OperationalError) -> bool:
    """SQLite calls a wrong statement operational too; trying it again does not help."""
    code: int = getattr(error.orig, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_ERROR


def _first_line(error: DBAPIError) -> str:
    return re.sub(
        r"://[^@\s]*@", "://***@", str(error.orig).splitlines()[0] if str(error.orig) else type(error).__name__
    )


def lock_join(connection: Connection) -> None:
    """Take the join lock, in a statement of its own, held to the commit (SQLite: BEGIN IMMEDIATE has it already)."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": JOIN_LOCK})


def search_by_keys(connection: Connection) -> None:
    """From here to the commit PostgreSQL finds rows by their keys only, whatever it believes of the sizes of tables.

    A batch asks for thousands of rows among millions. On tables that nobody has analysed yet the planner would rather
    read them whole. Plans are made for the values at hand, and nothing is compiled for them.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(_SEARCH_BY_KEYS)


_SEARCH_BY_KEYS = text(
    "SELECT "
    + ", ".join(
        f"set_config('{name}', '{value}', true)"
        for name, value in (
            *((f"enable_{way}", "off") for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin", "material")),
            *((f"{what}_collapse_limit", "1") for what in ("join", "from")),
            ("plan_cache_mode", "force_custom_plan"),
            ("jit", "off"),
        )
    )
)


def cells_of(rows: Sequence[Row]) -> Cells:
    """Rows by column; the first says which there are."""
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}


def insert_once(connection: Connection, table: Table, rows: Sequence[Row] | Cells) -> None:
    """Insert the rows whose primary key is new; leave the stored ones as they are."""
    if not rows:
        return
    cells = rows if isinstance(rows, Mapping) else cells_of(rows)
    if connection.dialect.name == "postgresql":
        _store(connection, table, cells, "once")
    else:
        statement, columns = _driver_insert(table, tuple(cells))
        connection.exec_driver_sql(statement, list(_values(columns, cells)))


def insert_all(connection: Connection, table: Table, cells: Cells) -> None:
    """Insert rows that nobody else has or inserts, as fast as the database can: PostgreSQL by COPY."""
    if not cells:
        return
    if connection.dialect.name == "postgresql":
        _copy(connection, table, cells)
    else:
        insert_once(connection, table, cells)


def insert_new(connection: Connection, table: Table, rows: Sequence[Row] | Cells) -> set[tuple[Any, ...]]:
    """Like :func:`insert_once`; returns the primary keys that were new, also under concurrent writers."""
    return insert_told(connection, table, rows, _key(table))


def insert_told(
    connection: Connection, table: Table, rows: Sequence[Row] | Cells, told: Sequence[str]
) -> set[tuple[Any, ...]]:
    """Like :func:`insert_new`; of the rows that were new it returns these columns instead of their keys."""
    if not rows:
        return set()
    cells = rows if isinstance(rows, Mapping) else cells_of(rows)
    if connection.dialect.name == "postgresql":
        return set(map(tuple, _store(connection, table, cells, "new", tuple(told)).all()))
    keys = list(zip(*(cells[name] for name in _key(table)), strict=True))
    stored = {tuple(row) for row in _stored_keys(table)(connection, keys=as_list(set(keys)))}
    insert_once(connection, table, cells)
    answers = zip(*(cells[name] for name in told), strict=True)
    return {answer for key, answer in zip(keys, answers, strict=True) if key not in stored}


def new_numbers(connection: Connection, table: Table, count: int) -> list[int]:
    """``count`` numbers, ascending, for new rows of a table whose key counts up; nobody else has or gets them.

    On SQLite only if the rows are inserted before the commit.
    """
    name = _key(table)[0]
    if connection.dialect.name == "postgresql":
        return list(
            connection.execute(_RESERVED, {"table": table.name, "column": name, "count": count}).scalars().all()
        )
    newest = connection.execute(_NEWEST, {"table": table.name}).scalar() or 0
    return list(range(newest + 1, newest + 1 + count))


_RESERVED = text(
    "SELECT nextval(numbers) FROM CAST(pg_get_serial_sequence(:table, :column) AS regclass) AS numbers, "
    "generate_series(1, :count)"
)
_NEWEST = text("SELECT seq FROM sqlite_sequence WHERE name = :table")


def upsert(connection: Connection, table: Table, rows: Sequence[Row] | Cells) -> None:
    """Insert the rows, or replace the columns of the stored ones with the same primary key."""
    _insert_or(connection, table, rows, "replace")


def add_up(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    """Insert the rows, or add their non-key columns to the stored ones with the same primary key."""
    _insert_or(connection, table, rows, "add")


def chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """``items`` in runs of at most ``size``, for statements with a bounded number of parameters."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


Convert = Callable[[Any], Any]
Columns = Sequence[tuple[str, Convert | None]]
"""Names of columns, each with the conversion of its values for the driver."""

OnConflict = Literal["once", "new", "replace", "add"]
"""What happens to a row whose key is stored: nothing (``new``: and the other rows are told), or its columns are
replaced, or added to."""

_POSTGRES: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's
_SQLITE: Dialect = sqlite.dialect()


def _insert_or(connection: Connection, table: Table, rows: Sequence[Row] | Cells, what: OnConflict) -> None:
    if not rows:
        return
    cells = rows if isinstance(rows, Mapping) else cells_of(rows)
    if connection.dialect.name == "postgresql":
        _store(connection, table, cells, what)
    else:
        each = [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
        connection.execute(_on_conflict(sqlite.insert(table), table, tuple(cells), what), each)


def _copy(connection: Connection, table: Table, cells: Cells) -> None:
    cells = {name: values for name, values in cells.items() if table.c[name].server_default or _any_of(values)}
    names = ", ".join(map(connection.dialect.identifier_preparer.quote, cells))
    statement = f"COPY {table.name} ({names}) FROM STDIN"
    cursor = connection.connection.cursor()
    try:
        with cursor.copy(statement) as copy:
            for row in _values(_conversions(table, tuple(cells), _POSTGRES), cells):
                copy.write_row(row)
    except connection.dialect.loaded_dbapi.Error as error:
        raise _as_sqlalchemy(connection, statement, error) from error
    finally:
        cursor.close()


def _any_of(values: Sequence[Any]) -> bool:
    """Whether one of them is something: a column without any need not be named."""
    return values.count(None) < len(values)


def _as_sqlalchemy(connection: Connection, statement: str, error: Any) -> BaseException:
    """An error of the driver as everything else of ours knows errors; a connection that is gone is given up."""
    gone = connection.dialect.is_disconnect(error, connection.connection.dbapi_connection, None)
    if gone:
        connection.invalidate(error)
    base, dialect = connection.dialect.loaded_dbapi.Error, connection.dialect
    ours: BaseException = DBAPIError.instance(
        statement, None, error, base, connection_invalidated=gone, dialect=dialect
    )
    return ours


def _store(
    connection: Connection, table: Table, cells: Cells, what: OnConflict, told: tuple[str, ...] = ()
) -> CursorResult[Any]:
    """Insert out of one JSON parameter, on PostgreSQL: a fifth of the time of a statement per row."""
    rows = as_list(_values(_conversions(table, tuple(cells), _POSTGRES), cells))
    return _insert_listed(table, tuple(cells), what, told)(connection, rows=rows)


def _on_conflict(statement: Any, table: Table, columns: Sequence[str], what: OnConflict) -> Any:
    if what in ("once", "new"):
        return statement.on_conflict_do_nothing(index_elements=_key(table))
    changed = [name for name in columns if name not in _key(table)]
    values = {
        name: table.c[name] + statement.excluded[name] if what == "add" else statement.excluded[name]
        for name in changed
    }
    return statement.on_conflict_do_update(index_elements=_key(table), set_=values)


@cache
def _insert_listed(table: Table, columns: tuple[str, ...], what: OnConflict, told: tuple[str, ...]) -> Run:
    each = elements(bindparam("rows", type_=Text()), "each_row")
    parts = [part(each.c.value, place, _cast(table.c[name].type)) for place, name in enumerate(columns)]
    statement = postgresql.insert(table).from_select(columns, select(*parts).select_from(each), include_defaults=False)
    statement = _on_conflict(statement, table, columns, what)
    return prepared(lambda: statement.returning(*(table.c[name] for name in told)) if told else statement)


def _cast(kind: TypeEngine[Any]) -> TypeEngine[Any] | None:
    """None for texts: casting one to a length would cut it, where storing it is an error."""
    return None if isinstance(kind, String | Json) else kind


def _values(columns: Columns, cells: Cells) -> Iterator[tuple[Any, ...]]:
    """The rows as tuples, converted for the driver."""
    values = (cells[name] if to is None else map(to, cells[name]) for name, to in columns)
    return zip(*values, strict=True)


@cache
def _driver_insert(table: Table, columns: tuple[str, ...]) -> tuple[str, Columns]:
    """Insert-once as SQLite's driver takes it, and the columns of its parameters.

    SQLAlchemy looks at every parameter of every row; that costs as much as storing them.
    """
    statement = sqlite.insert(table).on_conflict_do_nothing(index_elements=_key(table))
    compiled = statement.compile(dialect=_SQLITE, column_keys=list(columns))
    return str(compiled), _conversions(table, tuple(compiled.positiontup or ()), _SQLITE)


@cache
def _conversions(table: Table, columns: tuple[str, ...], dialect: Dialect) -> Columns:
    return [(name, _conversion(table.c[name].type, dialect)) for name in columns]


def _conversion(kind: TypeEngine[Any], dialect: Dialect) -> Convert | None:
    if isinstance(kind, Json):
        return _json_text
    return _cut if isinstance(kind, Hash) else kind.dialect_impl(dialect).bind_processor(dialect)


def _json_text(value: Any) -> str | None:
    return None if value is None else _encode(value).decode()


@cache
def _stored_keys(table: Table) -> Run:
    """Those of the parameter ``keys`` that are stored. On SQLite nobody else writes until the commit."""
    key = list(table.primary_key.columns)
    wanted = listed("keys", **key_kinds(table))
    return prepared(lambda: select(*key).join(wanted, and_(*(column == wanted.c[column.name] for column in key))))


def key_kinds(table: Table) -> dict[str, TypeEngine[Any]]:
    """The columns of the primary key, as :func:`infra.dialect.listed` takes them."""
    return {column.name: _cast(column.type) or Text() for column in table.primary_key.columns}


def _key(table: Table) -> list[str]:
    return [column.name for column in table.primary_key.columns]
