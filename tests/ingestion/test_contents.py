"""Campaigns, contents, approval and frozen baselines."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from sqlalchemy import Engine, func, select

from infra import tables
from infra.database import reading, writing
from infra.errors import BadInput, Conflict, NotFound
from ingestion.contents import (
    TRANSITIONS,
    Registered,
    add_contents,
    end_campaign,
    put_campaign,
    read_campaign,
    set_approval,
    start_campaign,
)
from ingestion.events import Campaign, Content
from ingestion.loops import parse_definition, put_loop

LIMIT = 20_000
LOOP = {"loop": "mail", "metrics": [{"name": "click", "event": "click"}], "reward": {"click": 1}}


def prepare(engine: Engine, **changes: Any) -> None:
    """Loop ``mail`` with the draft campaign ``june``."""
    with writing(engine) as connection:
        put_loop(connection, parse_definition({**LOOP, **changes}), 1)
        put_campaign(connection, Campaign(campaign_id="june", loop_id="mail", brief="sun"))


def copy(text: str, name: str = "", **fields: Any) -> Content:
    """A content of ``june``."""
    return Content(content_id=name, campaign_id="june", slots={"subject": text}, **fields)


def add(engine: Engine, *contents: Content) -> list[Registered]:
    """Register contents in ``june``."""
    with writing(engine) as connection:
        return add_contents(connection, "june", contents, LIMIT, 5)


def move(engine: Engine, content_id: str, approval: Any) -> str:
    """Set a content's approval; returns the one before."""
    with writing(engine) as connection:
        return set_approval(connection, content_id, approval, "ann", "because", 9)


def count(engine: Engine, table: Any) -> int:
    """Rows of a table."""
    with reading(engine) as connection:
        return int(connection.scalar(select(func.count()).select_from(table)) or 0)


def test_an_id_is_made_from_the_copy(any_engine: Engine) -> None:
    """A content without an id gets one that depends on campaign and copy alone, so that registering twice is once."""
    prepare(any_engine)
    first, second = add(any_engine, copy("Hello")), add(any_engine, copy("Hello"))

    assert [one.status for one in first + second] == ["created", "existing"]
    assert first[0].content_id == second[0].content_id
    assert first[0].content_id.startswith("c-")


def test_the_same_copy_twice_in_one_call(any_engine: Engine) -> None:
    """Equal copy in one call is one content."""
    prepare(any_engine)
    answers = add(any_engine, copy("Hello", "x"), copy("Hello", "y"), copy("Hello"))

    assert [(one.content_id, one.status) for one in answers] == [("x", "created"), ("x", "existing"), ("x", "existing")]


def test_the_same_line_of_two_generators(any_engine: Engine) -> None:
    """Copy without an id that the campaign knows is that content, whoever wrote it first; with one it has to be the same."""
    prepare(any_engine)
    (first,) = add(any_engine, copy("Hello", generator="ann"))
    again = add(any_engine, copy("Hello", generator="bob"), copy("Another", generator="bob"))

    assert again[0] == first._replace(status="existing")
    assert again[1].status == "created"
    with pytest.raises(Conflict, match="exists with another generator"):
        add(any_engine, copy("Hello", first.content_id, generator="bob"))


def test_two_writers_of_the_same_copy(any_engine: Engine) -> None:
    """Concurrent registrations of one copy under many ids leave one content, and all are answered its id."""
    prepare(any_engine)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: add(any_engine, copy("Hello", f"x{number}"))[0], range(16)))

    assert len({answer.content_id for answer in answers}) == 1
    assert count(any_engine, tables.contents) == 1


@pytest.mark.parametrize(
    "changed",
    [{"slots": {"subject": "Other"}}, {"features": {"tone": "warm"}}, {"generator": "another"}, {"locale": "de"}],
)
def test_contents_never_change(engine: Engine, changed: dict[str, Any]) -> None:
    """Another body under a known id is refused, whatever field differs, and the call leaves nothing."""
    prepare(engine)
    add(engine, copy("Hello", "x"))
    edited = Content(**{"content_id": "x", "campaign_id": "june", "slots": {"subject": "Hello"}, **changed})
    with pytest.raises(Conflict, match="contents never change"):
        add(engine, copy("New", "y"), edited)

    assert count(engine, tables.contents) == 1


def test_limits_of_copy(engine: Engine) -> None:
    """Text is measured in bytes; too long or empty copy and the reserved id are refused."""
    prepare(engine)
    add(engine, copy("ü" * 10_000))
    for content, sentence in (
        (copy("ü" * 10_001), "holds 20002 bytes of text; the limit is 20000: shorten it"),
        (copy(" "), "at least one slot with text"),
        (copy("x", "no_send"), "is reserved for sending nothing"),
    ):
        with pytest.raises(BadInput, match=sentence):
            add(engine, content)


def test_every_step_of_approval(engine: Engine) -> None:
    """Exactly the steps in the table are possible, each audited; the same state again is no step."""
    prepare(engine)
    for before in TRANSITIONS:
        for after in TRANSITIONS:
            name = f"{before}-{after}"
            add(engine, copy(name, name))
            with writing(engine) as connection:
                row = tables.contents.c.content_id == name
                connection.execute(tables.contents.update().where(row).values(approval=before))
            if after == before or after in TRANSITIONS[before]:
                assert move(engine, name, after) == before
            else:
                with pytest.raises(Conflict, match=f"is {before} and can become"):
                    move(engine, name, after)

    assert count(engine, tables.audit) == sum(map(len, TRANSITIONS.values()))


def test_the_baseline_is_frozen_at_the_start(any_engine: Engine) -> None:
    """Uniform over what is approved when the campaign starts; starting again changes nothing."""
    prepare(any_engine)
    add(any_engine, copy("A", "a"), copy("B", "b"), copy("C", "c"))
    move(any_engine, "a", "approved")
    move(any_engine, "b", "approved")
    for _ in range(2):
        with writing(any_engine) as connection:
            start_campaign(connection, "june", None, "ann", 9)
        move(any_engine, "c", "approved")

    with reading(any_engine) as connection:
        stored = read_campaign(connection, "june")
    assert (stored.state, stored.baseline["content_ids"], stored.baseline["weights"]) == (
        "running",
        ["a", "b"],
        [0.5, 0.5],
    )


def test_sending_nothing_may_be_the_control(engine: Engine) -> None:
    """no_send is a control where the loop allows it, and only there."""
    prepare(engine, no_send=True)
    with writing(engine) as connection:
        start_campaign(connection, "june", "no_send", "ann", 9)
        assert read_campaign(connection, "june").baseline["content_ids"] == ["no_send"]


def test_campaigns_that_cannot_start(engine: Engine) -> None:
    """Without approved copy, with an unapproved control, or after its end, a campaign does not start."""
    prepare(engine)
    add(engine, copy("A", "a"))
    for control, sentence in (
        (None, "has no approved content"),
        ("a", "is no approved content"),
        ("no_send", "is no approved"),
    ):
        with pytest.raises(BadInput, match=sentence), writing(engine) as connection:
            start_campaign(connection, "june", control, "ann", 9)
    with writing(engine) as connection:
        end_campaign(connection, "june", "ann", 9)
    with pytest.raises(Conflict, match="has ended"), writing(engine) as connection:
        start_campaign(connection, "june", None, "ann", 9)
    with pytest.raises(Conflict, match="takes no more contents"):
        add(engine, copy("B"))


def test_a_campaign_keeps_its_loop(engine: Engine) -> None:
    """A known campaign under another loop, brief or channel is a conflict; an unknown one is not found."""
    prepare(engine)
    known = Campaign(campaign_id="june", loop_id="mail", brief="sun")
    for changed in ({"loop_id": "push"}, {"brief": "rain"}, {"brief": "sun", "channel": "sms"}):
        with pytest.raises(Conflict, match="exists with another"), writing(engine) as connection:
            put_campaign(connection, msgspec.structs.replace(known, **changed))
    with pytest.raises(NotFound, match="register it"), writing(engine) as connection:
        start_campaign(connection, "july", None, "ann", 9)
