"""What is kept for a time only: the further fields of events.

    clear_fields(engine, before) -> how many events          fields of events that arrived before a time are emptied

An event's further fields (``events.raw``: the page of a click, the client that made it) explain and help to find machines;
the join never reads them. So they may go, and outcomes, sums and training sets stay what they are to the last digit.

What else expires has its own place: bytes of quarantined records (``ingestion/quarantine.py``), audiences of sends
(``pipelines/audiences/folders.py``), topics (``ingestion/stream/topics.py``). Decisions, events and ``event_keys`` stay: outcomes
are recomputed from them.
"""

from sqlalchemy import Engine, select, update

from infra.clock import DAY
from infra.database import reading, writing
from infra.tables import events

SOME = 20_000
"""Events per transaction: whoever applies batches meanwhile waits for one of these at most."""


def clear_fields(engine: Engine, before: int) -> int:
    """Empty the further fields of events that arrived before ``before``, microseconds; returns how many had any.

    Interrupted and called again, it goes on. Numbers of events count up with their arrival, so what is old is at the front.
    """
    cleared, place = 0, 0
    while True:
        with reading(engine) as connection:
            query = select(events.c.event_no, events.c.received_at, events.c.raw).where(events.c.event_no > place)
            rows = connection.execute(query.order_by(events.c.event_no).limit(SOME)).all()
        due = [row.event_no for row in rows if row.received_at < before and row.raw]
        for start in range(0, len(due), 500):
            with writing(engine) as connection:
                connection.execute(update(events).where(events.c.event_no.in_(due[start : start + 500])).values(raw={}))
        cleared += len(due)
        if len(rows) < SOME or all(row.received_at >= before for row in rows):
            return cleared
        place = rows[-1].event_no


def oldest_kept(now: int, days: int) -> int:
    """Events that arrived before this time lose their further fields; with 0 days none ever does."""
    return now - days * DAY if days else 0
