"""What messages of topics name, against what is stored: contents are registered, campaigns looked up.

``settle`` stands between ``decode_record``, which knows no database, and ``batch_of``. Contents go in before the batch,
in a transaction of their own, each by the rules of POST /v1/contents: registering is idempotent, so a crash in between
changes nothing. What contradicts the stored campaigns and contents becomes ``Rejected`` like any other bad record.
"""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, Engine, select

from infra import tables
from infra.broker import Record
from infra.clock import HOUR
from infra.database import chunks, reading, writing
from infra.errors import BadInput, Conflict, NotFound
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion.contents import add_contents, put_campaign, read_campaign
from ingestion.events import Decision
from ingestion.loops import load_loops
from ingestion.sources import Sources
from ingestion.stream.messages import ContentMessage, Decoded, Place, Registered, reject
from ingestion.stream.topics import topics


def place_of(engine: Engine, secrets: Secrets, settings: Settings, now: int) -> Place:
    """The place records are decoded at, with the loops as they are now. Raises :class:`Unavailable`."""
    with reading(engine) as connection:
        loops = load_loops(connection)
    return Place(
        secrets,
        Sources(engine, secrets, settings),
        now,
        settings.clock_skew_hours * HOUR,
        topics=topics(settings.kafka_topic_prefix),
        loops=loops,
        text_limit=settings.text_limit_bytes,
        candidate_limit=settings.candidate_limit,
        record_limit=settings.body_limit_bytes,
    )


def settle(engine: Engine, records: Sequence[Record], decoded: Sequence[Decoded], place: Place) -> list[Decoded]:
    """What was decoded, one entry per record: contents registered, and what names an unknown campaign rejected.

    Raises :class:`Unavailable`; calling it again is safe.
    """
    settled = list(decoded)
    copy = [(index, one) for index, one in enumerate(settled) if isinstance(one, ContentMessage)]
    copy.sort(key=lambda pair: pair[1].content.campaign_id)  # each is locked: everybody takes them in this order
    if copy:
        with writing(engine) as connection:
            for index, message in copy:
                settled[index] = _registered(connection, records[index], message, place)
    campaigns = named_campaigns(settled)
    if campaigns:
        with reading(engine) as connection:
            loops = _loops_of(connection, campaigns)
        for index, one in enumerate(settled):
            if isinstance(one, Decision) and (reason := _stranger(one, loops)):
                settled[index] = reject(records[index], place, reason)
    return settled


def named_campaigns(decoded: Iterable[Decoded]) -> list[str]:
    """The campaigns that decisions name, each once, sorted."""
    return sorted({one.campaign_id for one in decoded if isinstance(one, Decision)})


def _stranger(decision: Decision, loops: Mapping[str, str]) -> str | None:
    """Why the decision's campaign cannot be its campaign; None when it can."""
    loop_id = loops.get(decision.campaign_id)
    if loop_id is None:
        return (
            f"No campaign {decision.campaign_id!r}; register it with POST /v1/campaigns or on the contents topic, "
            "then replay the record"
        )
    if loop_id != decision.loop_id:
        return f"Campaign {decision.campaign_id!r} belongs to loop {loop_id!r}, not {decision.loop_id!r}; correct it"
    return None


def _loops_of(connection: Connection, campaigns: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    c = tables.campaigns.c
    for some in chunks(campaigns, 500):
        rows = connection.execute(select(c.campaign_id, c.loop_id).where(c.campaign_id.in_(some)))
        found |= {row.campaign_id: row.loop_id for row in rows}
    return found


def _registered(connection: Connection, record: Record, message: ContentMessage, place: Place) -> Decoded:
    try:
        with connection.begin_nested():
            return Registered(_register(connection, message, place))
    except BadInput as error:
        return reject(record, place, str(error))


def _register(connection: Connection, message: ContentMessage, place: Place) -> str:
    content = message.content
    _put_campaign(connection, message)
    (known,) = add_contents(connection, content.campaign_id, [content], place.text_limit, place.received_at)
    if content.content_id and content.content_id != known.content_id:
        raise Conflict(
            f"The copy of {content.content_id!r} is content {known.content_id!r} of campaign {content.campaign_id!r} "
            "already; name that one"
        )
    return known.content_id


def _put_campaign(connection: Connection, message: ContentMessage) -> None:
    """Register the campaign if it is new; a known one agrees with what the message says of it."""
    campaign = message.campaign
    if campaign is None:
        return
    try:
        stored = read_campaign(connection, campaign.campaign_id)
    except NotFound:
        put_campaign(connection, campaign)
        return
    for name, said in (("loop_id", message.loop), ("brief", message.brief), ("channel", message.channel)):
        if said is not None and getattr(stored, name) != said:
            raise Conflict(
                f"Campaign {campaign.campaign_id!r} exists with another {name.removesuffix('_id')}; "
                "use another campaign id, or leave the field out"
            )
