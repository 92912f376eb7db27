"""HTTP in and out: rates between currencies (``ingestion/exchange.py``). Needs a key with the scope ``admin``."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AfterValidator, Field

from infra.clock import format_time
from infra.database import reading
from infra.errors import BadInput
from ingestion.exchange import Rate, Word, format_rate, known_rates, read_rate, without_repetitions
from ingestion.fields import Body, Moment, storable
from ingestion.http.access import actor
from ingestion.http.problems import responses
from ingestion.http.wiring import Wired
from ingestion.join.restating import import_rates
from ingestion.metrics import Currency

router = APIRouter(prefix="/v1")

MOST = 1_000
"""Most rates of one call, and of one answer."""

Decimal = Annotated[str, Field(min_length=1, max_length=20, description="A decimal as text, like `0.9231`: exact.")]
Source = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(storable)]


class RateBody(Body):
    """What one unit of a currency is worth in another, from a time on until the next time of the two."""

    from_currency: Currency = Field(description="One unit of this")
    to_currency: Currency = Field(description="… is worth `rate` units of this")
    valid_from: Moment = Field(description="… from this time on.")
    rate: Decimal


class RatesBody(Body):
    """Rates to import, all or none."""

    rates: Annotated[list[RateBody], Field(min_length=1, max_length=MOST, description="At most 1,000.")]
    source: Source = Field("api", description="Where they are from.")


class ImportedAnswer(Body):
    """What changed."""

    new: int = Field(description="Rates that were not known.")
    known: int = Field(description="Rates that were.")
    restated: int = Field(description="Decisions whose outcomes were computed anew.")
    batch_no: int | None = Field(description="The batch that brought the new ones; null without any.")


class StoredRate(RateBody):
    """A rate, and who said it."""

    batch_no: int = Field(
        description="The batch that brought it: a training set as of an earlier one does not know it."
    )
    source: str = Field(description="Where it is from.")
    imported_by: str = Field(description="Whose key or command brought it.")
    imported_at: str = Field(description="When it was brought.")


class RatesAnswer(Body):
    """Rates by currencies and time."""

    rates: list[StoredRate] = Field(description="The newest 1,000 that hold, in the order of their times.")


@router.post(
    "/exchange-rates", tags=["operations"], summary="Import exchange rates", responses=responses(400, 413, 415)
)
def post_exchange_rates(body: RatesBody, wired: Wired) -> ImportedAnswer:
    """Import rates, and restate the outcomes that they change. The same again changes nothing.

    Amounts in another currency count in metrics with `convert`, at the rate of their time. A rate for a time that is known
    corrects it.
    """
    now = wired.clock()
    found = import_rates(wired.engine, _read(body, now), body.source, actor("api"), now)
    wired.changed()
    return ImportedAnswer(new=found.new, known=found.known, restated=found.restated, batch_no=found.batch_no)


@router.get("/exchange-rates", tags=["operations"], summary="List exchange rates", responses=responses(400))
def get_exchange_rates(
    wired: Wired,
    from_currency: Annotated[Currency, Query(description="What amounts are in.")],
    to_currency: Annotated[Currency, Query(description="What metrics count in.")],
) -> RatesAnswer:
    """The newest 1,000 rates that hold between two currencies."""
    with reading(wired.engine) as connection:
        words = list(known_rates(connection, from_currency, to_currency))
    return RatesAnswer(rates=[_stored(word) for word in words[-MOST:]])


def _read(body: RatesBody, now: int) -> list[Rate]:
    found = []
    for number, one in enumerate(body.rates):
        try:
            found.append((number, read_rate(one.from_currency, one.to_currency, one.valid_from, one.rate, now)))
        except BadInput as error:
            raise BadInput(str(error), f"/rates/{number}") from None
    try:
        return without_repetitions(found)
    except BadInput as error:
        raise BadInput(f"rate {error}", "/rates") from None


def _stored(word: Word) -> StoredRate:
    return StoredRate(
        from_currency=word.from_currency,
        to_currency=word.to_currency,
        valid_from=format_time(word.valid_from),
        rate=format_rate(word.rate),
        batch_no=word.batch_no,
        source=word.source,
        imported_by=word.imported_by,
        imported_at=format_time(word.imported_at),
    )
