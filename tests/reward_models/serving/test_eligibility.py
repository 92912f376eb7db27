"""Suppression and frequency caps, for many customers at once, out of a real store."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from infra.database import reading, writing
from infra.secrets import Secrets
from ingestion.events import Batch, Placement
from ingestion.loops import LoopDefinition, parse_definition, put_loop
from ingestion.metrics import format_duration
from ingestion.people.suppressions import EVERY_LOOP, suppress
from ingestion.sending import FrequencyCap
from ingestion.store import apply
from reward_models.serving import eligibility
from reward_models.serving.eligibility import OPEN, SLACK, Capped, Sent, capped, reached, suppressed
from tests.ingestion.join.test_join_histories import LOOP, SECOND, decision, event
from tests.ingestion.join.test_join_plans import plan
from tests.ingestion.test_store import stored_by_the_api

NOW = 1_000 * SECOND


def loop(*caps: dict[str, Any]) -> LoopDefinition:
    """The loop with these caps."""
    return parse_definition(LOOP.model_dump(mode="json") | {"frequency": list(caps)})


def shows(*names: str) -> tuple[Placement, ...]:
    return tuple(Placement(position=place, content_id=name) for place, name in enumerate(names, 1))


def asked(
    engine: Engine, definition: LoopDefinition, *units: str, campaign: str = "spring", now: int = NOW
) -> dict[str, Capped]:
    """What is capped of customers who are known under one hash each."""
    with reading(engine) as connection:
        return capped(connection, definition, campaign, {unit: (unit,) for unit in units or ("u1:ann",)}, now)


@pytest.fixture
def database(any_engine: Engine) -> Engine:
    """An empty store with the loop."""
    with writing(any_engine) as connection:
        put_loop(connection, LOOP, 0)
    return any_engine


def test_who_is_suppressed(database: Engine) -> None:
    """Customers are found under any of their hashes, in every loop or in their own; others are left out."""
    with writing(database) as connection:
        suppress(connection, ["u1:ann"], EVERY_LOOP, "unsubscribe", 1)
        suppress(connection, ["u1:bob"], "emails", "complaint", 1)
    units = {"u2:ann": ("u2:ann", "u1:ann"), "u2:bob": ("u2:bob", "u1:bob"), "u2:eve": ("u2:eve", "u1:eve")}
    with reading(database) as connection:
        assert suppressed(connection, "emails", units) == {"u2:ann": "unsubscribe", "u2:bob": "complaint"}
        assert suppressed(connection, "push", units) == {"u2:ann": "unsubscribe"}


def test_sends_are_counted_before_and_after_their_batch(database: Engine, secrets: Secrets) -> None:
    """A decision counts at once when it was stored, and no more once a batch has counted it."""
    rule = loop({"most": 2, "window": "60s"})
    stored_by_the_api(database, [decision("d1", 950), decision("d2", 990), decision("d3", 990, unit="u1:bob")])
    reason = "frequency cap: at most 2 sends in 1m"
    expected = {"u1:ann": Capped(reason, 1_010 * SECOND)}
    assert asked(database, rule, "u1:ann", "u1:bob") == expected

    apply(database, Batch(), secrets, NOW)
    assert asked(database, rule, "u1:ann", "u1:bob") == expected


def test_only_what_was_really_sent_counts(database: Engine, secrets: Secrets) -> None:
    """A deferred decision counts from its activation, sending nothing never, and what lies before the window no more."""
    made = [
        decision("later", 990, deferred=True),
        decision("never", 990, deferred=True, unit="u1:bob"),
        decision("nothing", 990, chosen=shows("no_send"), unit="u1:bob"),
        decision("before", 930, unit="u1:bob"),
        decision("elsewhere", 990, loop_id="push", unit="u1:bob"),
    ]
    rule = loop({"most": 1, "window": "60s"})
    apply(database, Batch(decisions=tuple(made)), secrets, NOW)
    assert asked(database, rule, "u1:ann", "u1:bob") == {}

    apply(database, Batch(events=(event("a", "activation", 995, decision_id="later"),)), secrets, NOW)
    assert asked(database, rule, "u1:ann", "u1:bob")["u1:ann"].until == 1_055 * SECOND


def test_a_late_activation_counts_from_when_it_was(database: Engine, secrets: Secrets) -> None:
    """The window is that of the send, not of the decision: one that was made long before and sent now counts."""
    now = 2 * SLACK
    made = decision("early", (now - SLACK) // SECOND + 10, deferred=True)
    sent = event("a", "activation", now // SECOND - 1, decision_id="early")
    apply(database, Batch(decisions=(made,), events=(sent,)), secrets, now)

    assert "u1:ann" in asked(database, loop({"most": 1, "window": "60s"}), now=now)


def test_each_content_and_campaign_alone(database: Engine, secrets: Secrets) -> None:
    """A cap per content bars the contents that reached it, wherever in the slate they stood; one per campaign its own."""
    slate = decision("d1", 980, chosen=shows("a", "b", "not shown"), constraints={"slots": 2})
    made = (slate, decision("d2", 990, chosen=shows("b", "not shown"), campaign_id="summer"))
    apply(database, Batch(decisions=made), secrets, NOW)
    words = "frequency cap: at most 2 sends of this content in 1h"
    each = loop({"most": 2, "window": "1h", "per": "content"})
    assert asked(database, each) == {"u1:ann": Capped(contents=(("b", words),))}

    of_campaign = loop({"most": 1, "window": "1h", "per": "campaign"})
    assert asked(database, of_campaign)["u1:ann"].everything == "frequency cap: at most 1 sends of the campaign in 1h"
    assert asked(database, of_campaign, campaign="autumn") == {}


def test_loops_without_caps_read_nothing() -> None:
    """Whoever does not use caps does not pay for them: no connection is needed."""
    assert capped(None, LOOP, "spring", {"u1:ann": ("u1:ann",)}, NOW) == {}  # type: ignore[arg-type]


def test_customers_are_found_by_index(engine: Engine) -> None:
    """Sends are searched by customer and time, counted ones and others, however many decisions are stored."""
    steps = [step for step in plan(engine, eligibility._decided.__wrapped__) if " decisions " in step]
    used = {index for step in steps for index in ("ix_decisions_unit ", "ix_decisions_waiting ") if index in f"{step} "}

    assert [step.startswith("SEARCH") for step in steps] == [True, True]
    assert used == {"ix_decisions_unit ", "ix_decisions_waiting "}
    assert [step for step in plan(engine, eligibility._listed.__wrapped__) if "SCAN suppressions" in step] == []


SENDS = st.lists(
    st.builds(Sent, st.integers(1, 20), st.sampled_from(["x", "y"]), st.frozensets(st.sampled_from("abc"), min_size=1)),
    max_size=8,
)
CAPS = st.lists(
    st.builds(
        lambda most, window, per: FrequencyCap(most=most, window=format_duration(window * SECOND), per=per),
        st.integers(1, 3),
        st.integers(1, 15),
        st.sampled_from(["loop", "campaign", "content"]),
    ),
    max_size=3,
)


@settings(max_examples=150, deadline=None)
@given(CAPS, SENDS)
def test_caps_by_the_book(caps: list[FrequencyCap], sends: list[Sent]) -> None:
    """What is capped is what a plain count says, and nothing is capped any more when it is said to be free again."""
    sends = [sent._replace(started_at=sent.started_at * SECOND) for sent in sends]
    now = 20 * SECOND
    found = reached(caps, sends, "x", now)

    for content in "abc":
        assert (content in dict(found.contents)) == any(
            cap.per == "content" and count(cap, sends, now, content=content) >= cap.most for cap in caps
        )
    assert (found.everything is not None) == any(
        cap.per != "content" and count(cap, sends, now) >= cap.most for cap in caps
    )
    if found.until is not None:
        assert found.until > now
        assert reached(caps, sends, "x", found.until).everything is None
    assert caps or found == OPEN


def count(cap: FrequencyCap, sends: list[Sent], now: int, content: str = "") -> int:
    """Sends within the window of a cap, of its kind."""
    return sum(
        sent.started_at + cap.window > now
        and (cap.per != "campaign" or sent.campaign_id == "x")
        and (cap.per != "content" or content in sent.contents)
        for sent in sends
    )
