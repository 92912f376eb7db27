"""Rates between currencies, as facts: what one unit of a currency is worth in another, from a time on.

    parse_rate("0.9231") -> trillionths        exact decimals, never a binary fraction
    known_rates(connection, ...) -> rates      the newest word about each time, or every word there was
    keep_rates(connection, rates, ...)         under a batch and the join lock; only words that are new

A rate holds from its time until the next one of the same two currencies. A correction is another word about the same time, in
a later batch: the newest holds, the older stays, so ``as_of`` a batch finds what was known then. What an import means for
outcomes is in ``ingestion/join/restating.py``; which rate an amount takes in ``ingestion/join/converting.py``.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import BigInteger, Connection, Select, Text, and_, func, select

from infra.clock import DAY, EARLIEST, format_time, parse_time
from infra.database import insert_all
from infra.dialect import as_list, listed, prepared
from infra.errors import BadInput
from infra.exact import PARTS
from infra.tables import exchange_rates

DECIMALS = 12
LARGEST_RATE = 9_000_000
"""In trillionths it just fits a 64-bit integer; no two currencies are further apart."""
MOST = 200_000
"""Most rates of one import: thirty currencies, every day for eighteen years."""
AHEAD = 366 * DAY
"""How far in the future a rate may begin; beyond it is a slip of the pen."""

_RATE = re.compile(rf"\d{{1,7}}(\.\d{{1,{DECIMALS}}})?", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


class Rate(NamedTuple):
    """What one unit of ``from_currency`` is worth in ``to_currency`` from ``valid_from`` (microseconds) on; ``rate`` in
    trillionths."""

    from_currency: str
    to_currency: str
    valid_from: int
    rate: int


class Word(NamedTuple):
    """A stored rate, and who said it when."""

    from_currency: str
    to_currency: str
    valid_from: int
    rate: int
    batch_no: int
    source: str
    imported_by: str
    imported_at: int


def parse_rate(text: str) -> int:
    """A decimal number to trillionths. Raises :class:`BadInput`."""
    text = text.strip()
    if not _RATE.fullmatch(text):
        raise BadInput(
            f"rate {text[:40]!r} is not a plain decimal number with at most {DECIMALS} decimals; write it like 0.9231"
        )
    whole, _, decimals = text.partition(".")
    found = int(whole) * PARTS + int(decimals.ljust(DECIMALS, "0"))
    if not 0 < found <= LARGEST_RATE * PARTS:
        raise BadInput(
            f"rate {text} is not above 0 and at most {LARGEST_RATE}; check which way round the currencies are"
        )
    return found


def format_rate(rate: int) -> str:
    """The shortest text that :func:`parse_rate` reads back."""
    whole, decimals = divmod(rate, PARTS)
    return f"{whole}.{decimals:0{DECIMALS}d}".rstrip("0").rstrip(".")


def read_rate(from_currency: str, to_currency: str, valid_from: str, rate: str, now: int) -> Rate:
    """A rate from its texts. Raises :class:`BadInput` that says what to do."""
    pair = from_currency.strip(), to_currency.strip()
    for currency in pair:
        if not _CURRENCY.fullmatch(currency):
            raise BadInput(f"currency {currency[:40]!r} is not three capital letters like USD (ISO 4217)")
    if pair[0] == pair[1]:
        raise BadInput(f"{pair[0]} is converted to itself; leave the line out")
    return Rate(*pair, _moment(valid_from.strip(), now), parse_rate(rate))


def _moment(text: str, now: int) -> int:
    try:
        found = parse_time(text)
    except (ValueError, OverflowError):
        raise BadInput(
            f"valid_from {text[:40]!r} is not a time; write it like 2026-11-22 or 2026-11-22T14:00:00Z"
        ) from None
    if not EARLIEST <= found <= now + AHEAD:
        raise BadInput(f"valid_from {text} is before 2000 or more than a year ahead; correct it")
    return found


def without_repetitions(numbered: Iterable[tuple[int, Rate]]) -> list[Rate]:
    """Rates, each once, sorted. Two rates for one time, with the numbers of their lines, are a :class:`BadInput`."""
    first: dict[tuple[str, str, int], tuple[int, int]] = {}
    for number, rate in numbered:
        line, said = first.setdefault(rate[:3], (number, rate.rate))
        if said != rate.rate:
            raise BadInput(
                f"{number} says {format_rate(rate.rate)} and {line} says {format_rate(said)} for {rate.from_currency} to "
                f"{rate.to_currency} from {format_time(rate.valid_from)} on; keep one of them"
            )
    return sorted(Rate(*key, said) for key, (_, said) in first.items())


def known_rates(
    connection: Connection, from_currency: str | None = None, to_currency: str | None = None, *, every: bool = False
) -> Iterator[Word]:
    """Stored rates by currencies and time; the newest word about each, or with ``every`` all, the newest of a time first."""
    c = exchange_rates.c
    query = select(*(c[name] for name in Word._fields)).order_by(
        c.from_currency, c.to_currency, c.valid_from, c.batch_no.desc()
    )
    query = query.where(c.from_currency == from_currency) if from_currency else query
    query = query.where(c.to_currency == to_currency) if to_currency else query
    latest: tuple[str, str, int] | None = None
    for row in connection.execute(query):
        word = Word._make(row)
        if every or word[:3] != latest:
            yield word
        latest = word[:3]


def unknown_rates(connection: Connection, rates: Sequence[Rate]) -> list[Rate]:
    """Those of these rates that the table does not say already."""
    said = as_list(rate[:3] for rate in rates)
    stored = {tuple(row[:3]): row.rate for row in _newest(connection, said=said)}
    return [rate for rate in rates if stored.get(rate[:3]) != rate.rate]


def keep_rates(connection: Connection, rates: Sequence[Rate], batch_no: int, source: str, actor: str, now: int) -> None:
    """Store rates under a batch, which nobody else has."""
    told = {"batch_no": batch_no, "source": source, "imported_by": actor, "imported_at": now}
    cells = dict(zip(Rate._fields, zip(*rates, strict=True), strict=True))
    insert_all(connection, exchange_rates, {**cells, **{name: [value] * len(rates) for name, value in told.items()}})


@prepared
def _newest() -> Select[Any]:
    """What is in force for these currencies and times."""
    c = exchange_rates.c
    said = listed("said", from_currency=Text(), to_currency=Text(), valid_from=BigInteger())
    same = and_(*(c[name] == said.c[name] for name in ("from_currency", "to_currency", "valid_from")))
    latest = select(func.max(c.batch_no)).where(same).correlate(said).scalar_subquery()
    found = said.join(exchange_rates, and_(same, c.batch_no == latest))
    return select(c.from_currency, c.to_currency, c.valid_from, c.rate).select_from(found)
