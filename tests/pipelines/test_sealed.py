"""What callers see of decisions past retention."""

from pathlib import Path

from infra.clock import parse_time
from infra.database import lock_join, writing
from ingestion.loops import load_loops
from ingestion.retention import seal_before
from tests.pipelines.api import click, define, inside, rank, running, send, trace


def test_events_about_a_sealed_decision_are_known_and_not_used(sqlite_url: str, tmp_path: Path) -> None:
    """One that names it is ignored, one of its customer is shown with the reason; the outcome stays as it was."""
    with running(sqlite_url, tmp_path) as client:
        define(client)
        decision = rank(client, unit="jane")["decision_id"]
        send(client, click("in-time", decision_id=decision))
        before = trace(client, decision)
        with writing(inside(client).serving.engine) as connection:
            lock_join(connection)
            rules = [definition for definition, _ in load_loops(connection).values()]
            decided_at = parse_time(before["decision"]["decided_at"])
            seal_before(connection, rules, decided_at + 1, decided_at)

        named = click("named", decision_id=decision)
        assert send(client, named)["ignored"] == 1
        assert send(client, named)["duplicate"] == 1
        bought = click("late", type="purchase", unit="jane", value="10", currency="EUR")
        assert send(client, bought)["accepted"] == 1
        after = trace(client, decision)

    assert after["outcomes"] == before["outcomes"] != []
    reasons = {event["event_id"]: (event["used"], event["reason"]) for event in after["events"]}
    assert reasons == {"in-time": (True, None), "late": (False, "sealed")}
