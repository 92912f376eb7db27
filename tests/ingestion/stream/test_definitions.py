"""Contents and campaigns that messages name, against what is stored."""

from typing import Any

import pytest
from sqlalchemy import Engine, event, select

from infra import tables
from infra.database import reading, writing
from infra.errors import Unavailable
from infra.secrets import Secrets, Webhook
from infra.settings import Settings
from ingestion import store
from ingestion.contents import end_campaign
from ingestion.events import Decision, Rejected
from ingestion.keys import create_key
from ingestion.ledger import conservation
from ingestion.loops import parse_definition, put_loop
from ingestion.sources import Sources
from ingestion.stream.definitions import place_of, settle
from ingestion.stream.messages import Decoded, Registered, batch_of, decode_record
from tests.ingestion.records import CHOICE, CLICK, COPY, LOOP, NOW, PLACE, SECRETS, record


@pytest.fixture
def loops(any_engine: Engine) -> Engine:
    """A database with loop ``mail`` (manual approval) and loop ``auto`` (automatic)."""
    auto = LOOP.model_dump(mode="json") | {"loop": "auto", "approval": "automatic"}
    with writing(any_engine) as connection:
        put_loop(connection, LOOP, NOW)
        put_loop(connection, parse_definition(auto), NOW)
    return any_engine


def settled(engine: Engine, *messages: tuple[str, dict[str, Any]]) -> list[Decoded]:
    """What records of these topics end as, in one batch that is applied."""
    place = place_of(engine, SECRETS, Settings(kafka_topic_prefix="t"), NOW)
    records = [record(topic, document, offset=offset) for offset, (topic, document) in enumerate(messages)]
    found = settle(engine, records, [decode_record(one, place) for one in records], place)
    store.apply(engine, batch_of(found), SECRETS, NOW)
    return found


def reasons(found: list[Decoded]) -> list[str]:
    """Why records were rejected."""
    return [one.reason for one in found if isinstance(one, Rejected)]


def contents(engine: Engine) -> list[tuple[str, str]]:
    """Stored contents with their approval."""
    c = tables.contents.c
    with reading(engine) as connection:
        return [tuple(row) for row in connection.execute(select(c.content_id, c.approval).order_by(c.content_id))]


JUNE = {**COPY, "loop": "mail"}


def test_a_content_registers_with_its_campaign(loops: Engine) -> None:
    """A content with a loop registers its campaign as a draft, and is approved by the loop's rule."""
    found = settled(
        loops, ("contents", JUNE), ("contents", {**COPY, "campaign": "july", "loop": "auto", "content_id": "b"})
    )
    with reading(loops) as connection:
        campaigns = dict(
            map(tuple, connection.execute(select(tables.campaigns.c.campaign_id, tables.campaigns.c.state)))
        )

    assert found == [Registered("a"), Registered("b")]
    assert contents(loops) == [("a", "draft"), ("b", "approved")]
    assert campaigns == {"june": "draft", "july": "draft"}


def test_the_same_message_again_changes_nothing(loops: Engine) -> None:
    """Reading a content again, in the batch or later, even after its campaign has ended, finds it registered."""
    settled(loops, ("contents", JUNE), ("contents", JUNE))
    with writing(loops) as connection:
        end_campaign(connection, "june", "test", NOW)

    assert settled(loops, ("contents", COPY)) == [Registered("a")]
    assert contents(loops) == [("a", "draft")]


def test_without_an_id_one_is_made_from_the_copy(loops: Engine) -> None:
    """A content without an id is the one with this copy."""
    (first,), (again,) = (settled(loops, ("contents", {**JUNE, "content_id": None})) for _ in "ab")

    assert isinstance(first, Registered)
    assert first == again
    assert first.content_id.startswith("c-")


def test_what_contradicts_is_rejected(loops: Engine) -> None:
    """Another body, the same copy under another id, an unknown or ended campaign, another loop: quarantine, no crash."""
    settled(loops, ("contents", {**JUNE, "brief": "June"}))
    found = settled(
        loops,
        ("contents", {**COPY, "slots": {"subject": "Other"}}),
        ("contents", {**COPY, "content_id": "b"}),
        ("contents", {**COPY, "campaign": "may"}),
        ("contents", {**JUNE, "loop": "auto"}),
        ("contents", {**JUNE, "brief": "July"}),
        ("contents", {**COPY, "content_id": "no_send"}),
        ("contents", {**COPY, "slots": {"subject": "x" * 20_001}}),
    )

    assert [reason[:60] for reason in reasons(found)] == [
        "Content 'a' exists with another slots; contents never change",
        "The copy of 'b' is content 'a' of campaign 'june' already; n",
        "No campaign 'may'; register it with POST /v1/campaigns",
        "Campaign 'june' exists with another loop; use another campai",
        "Campaign 'june' exists with another brief; use another campa",
        "'no_send' is reserved for sending nothing; give the content ",
        "Slot 'subject' holds 20001 bytes of text; the limit is 20000",
    ]
    assert contents(loops) == [("a", "draft")]
    assert conservation(loops) == 0


def test_a_refused_content_leaves_no_campaign(loops: Engine) -> None:
    """What is refused leaves nothing behind."""
    settled(loops, ("contents", {**JUNE, "content_id": "no_send"}))

    with reading(loops) as connection:
        assert connection.execute(select(tables.campaigns)).all() == []


def test_a_decision_names_a_known_campaign_of_its_loop(loops: Engine) -> None:
    """A decision is taken when its campaign is known, by this very batch too; else it is rejected, with what to do."""
    found = settled(
        loops,
        ("decisions", CHOICE),
        ("contents", JUNE),
        ("decisions", {**CHOICE, "decision_id": "d2", "campaign": "may"}),
        ("decisions", {**CHOICE, "decision_id": "d3", "loop": "auto"}),
        ("events", CLICK),
    )

    assert isinstance(found[0], Decision)
    assert reasons(found) == [
        "No campaign 'may'; register it with POST /v1/campaigns or on the contents topic, then replay the record",
        "Campaign 'june' belongs to loop 'mail', not 'auto'; correct it",
    ]
    with reading(loops) as connection:
        stored = connection.execute(select(tables.decisions)).one()
        outcome = connection.execute(select(tables.outcomes)).one()
    assert (stored.decision_id, stored.loop_version, stored.group, stored.batch_no) == ("d1", 1, "treatment", 1)
    assert (outcome.decision_id, outcome.content_id, outcome.metric) == ("d1", "a", "click")
    assert conservation(loops) == 0


def test_without_the_database_nothing_is_settled(loops: Engine) -> None:
    """An absent database raises, so that the worker tries again; nothing is rejected for it."""
    one = record("decisions", CHOICE)

    def fail(_: Any) -> None:
        raise Unavailable("away")

    event.listen(loops, "begin", fail)
    try:
        with pytest.raises(Unavailable):
            settle(loops, [one], [decode_record(one, PLACE)], PLACE)
    finally:
        event.remove(loops, "begin", fail)


def test_sources_of_topics(any_engine: Engine) -> None:
    """A topic takes events of the listed sources, webhook connections, the redirect, and whoever was given a key."""
    secrets = Secrets(b"m" * 32, {1: b"u" * 32}, {1: b"t" * 32}, webhooks={"eu-shop": Webhook("shopify", ("k",))})
    sources = Sources(any_engine, secrets, Settings(sources=("http", "crm")))
    assert tuple(sources) == ("http", "crm", "eu-shop", "redirect")

    with writing(any_engine) as connection:
        create_key(connection, secrets, "newsletter", ["events"], [], "1/second", NOW)
    assert "newsletter" in sources
    assert "another" not in sources
    assert sources[0] == "http"
