"""The API as a whole: decisions, events, copy, loops, over HTTP."""

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from infra import tables
from infra.database import reading, writing
from ingestion.files.imports import Importer, run_import
from ingestion.ledger import conservation
from ingestion.tokens import make_token
from tests.ingestion.importing import FIXTURES, example
from tests.pipelines.api import LOOP, away, click, define, inside, ok, rank, refused, running, send, trace


@pytest.fixture
def client(sqlite_url: str, tmp_path: Path) -> Iterator[TestClient]:
    """The API on an empty SQLite database."""
    with running(sqlite_url, tmp_path / "home") as client:
        yield client


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def any_client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TestClient]:
    """The API on an empty database of either kind."""
    with running(request.getfixturevalue(f"{request.param}_url"), tmp_path / "home") as client:
        yield client


def wait_for(condition: Callable[[], Any], seconds: float = 5.0) -> Any:
    """What the condition answers once it is true; fails after ``seconds``."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


def rows(client: TestClient, table: Any) -> int:
    """How many rows a table has."""
    with reading(inside(client).serving.engine) as connection:
        return int(connection.scalar(select(func.count()).select_from(table)) or 0)


def probabilities(client: TestClient) -> dict[str, float]:
    """What the policy would draw with now."""
    answer = rank(client, dry_run=True, explain=True)
    return {candidate["content_id"]: candidate["policy_p"] for candidate in answer["candidates"]}


class TestDecisions:
    """Rank, store, answer."""

    def test_the_whole_walk(self, any_client: TestClient) -> None:
        """A choice, a click by its token and a purchase by its customer end as one reward with the reasons."""
        define(any_client)
        answer = rank(any_client, decision_id="d1", unit="jane", context={"age": 31})
        counts = send(
            any_client,
            click("e1", token=answer["token"]),
            click("e2", type="purchase", unit="jane", value="49.90", currency="EUR"),
            click("e3", type="purchase", unit="jane", value="10", currency="USD"),
        )
        found = trace(any_client, "d1")
        chosen = answer["ranked"][0]["content_id"]

        assert counts == {"accepted": 3, "duplicate": 0, "pending": 0, "ignored": 0, "rejected": []}
        assert [(o["content_id"], o["metric"], o["value"]) for o in found["outcomes"]] == [
            (chosen, "click", 1.0),
            (chosen, "revenue", 49.9),
        ]
        assert [(e["event_id"], e["method"], e["used"], e["reason"]) for e in found["events"]] == [
            ("e1", "token", True, None),
            ("e2", "last_touch", True, None),
            ("e3", "last_touch", False, "other_currency"),
        ]
        assert found["rewards"] == [{"content_id": chosen, "reward": 1.0, "mature": False}]
        assert (found["replay"]["choice"], found["replay"]["scores"]) == ("exact", "exact")

    def test_the_default_reward_is_for_mature_silence(self, client: TestClient) -> None:
        """A decision without events earns nothing until its outcome is final, then the default reward."""
        define(client, default_reward=-1, lateness=0, metrics=[{"name": "click", "event": "click", "window": 1}])
        rank(client, decision_id="d1")
        early = trace(client, "d1")["rewards"][0]
        late = wait_for(lambda: [one for one in trace(client, "d1")["rewards"] if one["mature"]])[0]

        assert (early["reward"], early["mature"], late["reward"]) == (0.0, False, -1.0)

    def test_a_customer_is_known_across_a_rotation(self, sqlite_url: str, tmp_path: Path) -> None:
        """After the unit secret was rotated the customer's purchase credits the decision before it, a redelivered one
        stays a duplicate, a decision keeps its token, and nobody moves in or out of the holdout."""
        bought = click("e2", type="purchase", unit="jane", value="20", currency="EUR")
        with running(sqlite_url, tmp_path / "home") as client:
            define(client, holdout=0.5)
            before = rank(client, decision_id="d1", unit="jane")
            send(client, early := click("e1", type="purchase", unit="jane", value="10", currency="EUR"))
        path = tmp_path / "home" / "secrets.json"
        stored = json.loads(path.read_text())
        stored["units"]["2"] = "22" * 32
        path.write_text(json.dumps(stored))
        with running(sqlite_url, tmp_path / "home") as client:
            counts = send(client, bought, early, click("e3", token=before["token"]))
            found = trace(client, "d1")
            again = rank(client, decision_id="d1", unit="jane")
            after = rank(client, decision_id="d2", unit="jane")
            units = [trace(client, name)["decision"]["unit"][:3] for name in ("d1", "d2")]

        assert (counts["accepted"], counts["duplicate"], counts["pending"]) == (2, 1, 0)
        assert {one["metric"]: one["value"] for one in found["outcomes"]} == {"click": 1.0, "revenue": 30.0}
        assert again == before
        assert after["group"] == before["group"]
        assert units == ["u1:", "u2:"]

    def test_a_forgotten_customer_is_ignored(self, client: TestClient) -> None:
        """Events about somebody who asked to be deleted are answered as ignored, and not stored."""
        define(client)
        serving = inside(client).serving
        with writing(serving.engine) as connection:
            unit = serving.secrets.unit("jane")
            connection.execute(tables.forgotten_units.insert().values(unit=unit, forgotten_at=0))
        counts = send(client, click("e1", unit="jane"), click("e2", unit="june"))

        assert counts == {"accepted": 0, "duplicate": 0, "pending": 1, "ignored": 1, "rejected": []}
        assert rows(client, tables.events) == 1

    def test_a_repeated_id_gets_the_stored_answer(self, any_client: TestClient) -> None:
        """The same body under the same id is answered from the stored row, also after the world has changed."""
        define(any_client)
        first = rank(any_client, decision_id="d1", unit="jane", slots=2)
        ok(any_client.post("/v1/contents/a/approval", json={"approval": "retired"}))
        ok(any_client.post("/v1/contents/b/approval", json={"approval": "retired"}))

        assert rank(any_client, decision_id="d1", unit="jane", slots=2) == first
        assert rank(any_client, decision_id="d1", unit="jane", slots=2, explain=True)["ranked"] == first["ranked"]
        assert rows(any_client, tables.decisions) == 1

    def test_another_body_under_a_stored_id_is_a_conflict(self, client: TestClient) -> None:
        """One id names one request."""
        define(client)
        rank(client, decision_id="d1", unit="jane")
        body = {"loop": "mail", "campaign": "june", "decision_id": "d1", "unit": "john"}

        assert "is stored with another body" in refused(client.post("/v1/rank", json=body), 409)

    def test_a_race_for_one_id(self, any_client: TestClient) -> None:
        """Of many concurrent bodies under one id one is stored; it alone is answered, the others are conflicts."""
        define(any_client)

        def ask(number: int) -> tuple[int, str]:
            body = {"loop": "mail", "campaign": "june", "decision_id": "d1", "context": {"n": number % 2}}
            answer = any_client.post("/v1/rank", json=body)
            return answer.status_code, answer.json().get("ranked", [{}])[0].get("content_id")

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(16)))

        assert sorted(status for status, _ in answers) == [200] * 8 + [409] * 8
        assert len({content for status, content in answers if status == 200}) == 1
        assert rows(any_client, tables.decisions) == 1

    def test_a_made_id_is_a_token_s_decision(self, client: TestClient) -> None:
        """Without an id one is made, and the token names it."""
        define(client)
        answer = rank(client)
        send(client, click("e1", token=answer["token"]))

        assert trace(client, answer["decision_id"])["events"][0]["method"] == "token"

    def test_decisions_count_without_events(self, any_client: TestClient) -> None:
        """A stored decision becomes an exposure within seconds, although no event comes."""
        define(any_client)
        rank(any_client, candidates=["a"])

        results = wait_for(lambda: ok(any_client.get("/v1/campaigns/june/results"))["contents"])

        assert [(one["content_id"], one["exposures"], one["share"]) for one in results] == [("a", 1, 1.0)]

    def test_clicks_shift_the_choice_within_seconds(self, client: TestClient) -> None:
        """Between two retrains the probabilities follow the clicks, without a restart."""
        define(client)
        before = probabilities(client)
        for number in range(40):
            rank(client, decision_id=f"a{number}", candidates=["a"])
            rank(client, decision_id=f"b{number}", candidates=["b"])
        send(client, *(click(f"e{number}", decision_id=f"b{number}") for number in range(20)))

        after = wait_for(lambda: (found := probabilities(client))["b"] > 0.9 and found)

        assert before == {"a": 0.5, "b": 0.5}
        assert after["a"] >= 0.01

    def test_imported_decisions_are_traced(self, client: TestClient) -> None:
        """A decision that came from a file has a trace like one that was ranked, by the id the import gave it."""
        wired = inside(client).serving
        importer = Importer(wired.engine, wired.secrets, wired.settings, wired.clock)
        run_import(importer, example("hillstrom"), FIXTURES / "customers.csv")

        assert trace(client, "hillstrom/1")["decision"]["group"] == "treatment"
        assert "No decision 'hillstrom/0'" in refused(client.get("/v1/decisions/hillstrom/0"), 404)

    def test_nothing_is_sent_before_it_is_decided(self, client: TestClient) -> None:
        """An activation dated long before its decision, or after now, is refused, and the decision stays open."""
        define(client)
        rank(client, decision_id="d1", defer_activation=True)
        early = client.post("/v1/decisions/d1/activate", json={"occurred_at": "2001-01-01T00:00:00Z"})
        late = client.post("/v1/decisions/d1/activate", json={"occurred_at": "2130-01-01T00:00:00Z"})

        assert "is before the decision" in refused(early, 422)
        assert "is not in the past" in refused(late, 422)
        assert trace(client, "d1")["started_at"] is None

    def test_deferred_decisions_count_once_activated(self, client: TestClient) -> None:
        """A deferred decision is no exposure and earns nothing until it was really sent; sending twice is once."""
        define(client)
        rank(client, decision_id="d1", defer_activation=True)
        rank(client, decision_id="d2")
        wait_for(lambda: all(trace(client, name)["counted"] for name in ("d1", "d2")))
        before = ok(client.get("/v1/campaigns/june/results"))["exposures"]
        first = ok(client.post("/v1/decisions/d1/activate"))
        second = ok(client.post("/v1/decisions/d1/activate", json={}))

        assert before == 1
        assert (first["state"], second["state"]) == ("applied", "duplicate")
        assert first["activated_at"] == second["activated_at"] == trace(client, "d1")["started_at"]
        assert ok(client.get("/v1/campaigns/june/results"))["exposures"] == 2

    def test_the_kill_switch_works_at_once(self, client: TestClient) -> None:
        """The answer after the switch is the baseline's, and the one after it is taken back is the policy's."""
        define(client)
        killed = ok(client.post("/v1/loops/mail/kill", json={"reason": "odd copy", "actor": "ann"}))
        during = rank(client)
        ok(client.post("/v1/loops/mail/kill", json={"killed": False}))

        assert killed == {"loop": "mail", "killed": True}
        assert during["learning_mode"] == "fallback"
        assert rank(client)["learning_mode"] == "online"

    def test_a_switch_thrown_elsewhere_is_seen(self, client: TestClient) -> None:
        """A switch set in the database by another process takes effect at the next refresh."""
        define(client)
        with inside(client).serving.engine.begin() as connection:
            row = {"loop_id": "mail", "killed": True, "reason": "", "changed_at": 1}
            connection.execute(tables.loop_switches.insert().values(**row))

        wait_for(lambda: rank(client)["learning_mode"] == "fallback")

    def test_without_the_database_the_baseline_is_answered(self, client: TestClient) -> None:
        """With the database away the answer is the baseline, 200, not durable, without a token, and stored nowhere."""
        define(client)
        serving = inside(client).serving
        with away(serving.engine, serving.decisions.engine):
            answer = rank(client, decision_id="d1", unit="jane")
            ready = client.get("/readyz")
            events = client.post("/v1/events", json={"events": [click("e1", decision_id="d1")]})

        assert (answer["durable"], answer["token"], answer["learning_mode"]) == (False, None, "fallback")
        assert answer["ranked"][0]["propensity"] == 0.5
        assert (ready.status_code, ready.json()["status"], ready.json()["database"]) == (200, "degraded", "away")
        assert "does not answer" in refused(events, 503)
        assert events.headers["retry-after"] == "1"
        assert rows(client, tables.decisions) == 0
        assert rank(client, decision_id="d1", unit="jane")["durable"]

    def test_the_log_alone_away(self, client: TestClient) -> None:
        """If only the write fails, the answer is the baseline too."""
        define(client)
        with away(inside(client).serving.decisions.engine):
            answer = rank(client)

        assert (answer["durable"], answer["token"], answer["learning_mode"]) == (False, None, "fallback")

    def test_an_unknown_campaign_without_the_database(self, client: TestClient) -> None:
        """What only the database could know is not denied while it is away: try again."""
        define(client)
        serving = inside(client).serving
        with away(serving.engine, serving.decisions.engine, serving.snapshots.engine):
            answer = client.post("/v1/rank", json={"loop": "mail", "campaign": "july"})

        assert "does not answer" in refused(answer, 503)

    def test_dry_runs_store_nothing(self, client: TestClient) -> None:
        """A dry run answers what would be chosen, with its drafts, and leaves no trace."""
        define(client)
        draft = {"slots": {"subject": "A brand-new line"}}
        answer = rank(client, dry_run=True, candidates=["a", draft])

        assert (answer["durable"], answer["token"], len(answer["ranked"])) == (False, None, 2)
        assert (rows(client, tables.decisions), rows(client, tables.contents)) == (0, 2)

    def test_positions_beyond_the_slots_are_sorted_and_not_drawn(self, client: TestClient) -> None:
        """The answer lists every candidate; only the drawn ones have a propensity."""
        define(client)
        drafts = [{"id": f"n{number}", "slots": {"subject": f"New line {number}"}} for number in range(3)]
        answer = rank(client, candidates=["a", "b", *drafts], slots=2)

        assert [one["position"] for one in answer["ranked"]] == [1, 2, 3, 4, 5]
        assert [one["propensity"] is None for one in answer["ranked"]] == [False, False, True, True, True]


class TestDrafts:
    """Candidates given inline."""

    def test_automatic_loops_admit_them(self, any_client: TestClient) -> None:
        """A draft is registered by its copy and ranked at once; the same copy again is the same content."""
        define(any_client)
        draft = {"slots": {"subject": "Fresh from the generator"}}
        first = rank(any_client, candidates=[draft])
        second = rank(any_client, candidates=[draft])

        assert first["ranked"][0]["content_id"] == second["ranked"][0]["content_id"]
        assert rows(any_client, tables.contents) == 3

    def test_manual_loops_exclude_them(self, client: TestClient) -> None:
        """In a loop with manual approval a draft is registered, and left out with the reason."""
        define(client)
        ok(client.put("/v1/loops/mail", json=LOOP | {"approval": "manual"}))
        answer = rank(client, candidates=["a", {"id": "n1", "slots": {"subject": "Not seen by anybody"}}])

        assert answer["excluded"] == [{"content_id": "n1", "reason": "not approved: draft"}]
        assert [one["content_id"] for one in answer["ranked"]] == ["a"]

    def test_the_first_drafts_start_an_empty_campaign(self, client: TestClient) -> None:
        """A campaign registered without copy starts with the drafts of its first choice; they are its baseline."""
        define(client)
        ok(client.post("/v1/campaigns", json={"campaign": "july", "loop": "mail"}))
        rank(
            client,
            campaign="july",
            candidates=[{"id": "x", "slots": {"subject": "Xs"}}, {"id": "y", "slots": {"subject": "Ys"}}],
        )
        july = next(one for one in ok(client.get("/v1/campaigns?loop=mail"))["campaigns"] if one["campaign"] == "july")

        assert (july["state"], july["baseline"]["content_ids"]) == ("running", ["x", "y"])

    def test_an_id_with_other_copy_is_a_conflict(self, client: TestClient) -> None:
        """Contents never change: another text under a known id is refused, and the decision is not stored."""
        define(client)
        body = {"loop": "mail", "campaign": "june", "candidates": [{"id": "a", "slots": {"subject": "Edited"}}]}

        assert "contents never change" in refused(client.post("/v1/rank", json=body), 409)
        assert rows(client, tables.decisions) == 0


class TestEvents:
    """Events over HTTP."""

    def test_each_event_stands_alone(self, any_client: TestClient) -> None:
        """Good, repeated, early and unusable events of one batch are told apart; nothing is lost."""
        define(any_client)
        rank(any_client, decision_id="d1")
        good = click("e1", decision_id="d1")
        answer = send(any_client, good, good, click("e2", decision_id="later"), click("e3"), "nonsense")

        assert (answer["accepted"], answer["duplicate"], answer["pending"]) == (1, 1, 1)
        assert [(one["index"], one["event_id"]) for one in answer["rejected"]] == [(3, "e3"), (4, None)]
        assert rows(any_client, tables.quarantine) == 2
        assert conservation(inside(any_client).serving.engine) == 0

    def test_a_pending_event_finds_its_decision(self, client: TestClient) -> None:
        """A click that arrives before its decision is credited once the decision is stored."""
        define(client)
        assert send(client, click("e1", decision_id="d1"))["pending"] == 1
        rank(client, decision_id="d1")

        assert wait_for(lambda: trace(client, "d1")["outcomes"])[0]["metric"] == "click"

    def test_another_body_under_one_event_id(self, client: TestClient) -> None:
        """The first body of an event id is the fact; the other is rejected and kept in quarantine."""
        define(client)
        rank(client, decision_id="d1")
        first = click("e1", decision_id="d1", occurred_at="2026-01-01T00:00:00Z")
        send(client, first)
        answer = send(client, first | {"occurred_at": "2026-01-02T00:00:00Z"})

        assert "is stored with another body" in answer["rejected"][0]["reason"]
        assert rows(client, tables.quarantine) == 1

    def test_rejected_events_resent_are_held_once(self, client: TestClient) -> None:
        """A sender that repeats an unusable event does not fill the quarantine."""
        for _ in range(3):
            assert len(send(client, {"event_id": "e1", "type": "click"})["rejected"]) == 1

        assert rows(client, tables.quarantine) == 1

    def test_a_token_of_another_installation(self, client: TestClient) -> None:
        """A forged or foreign token is rejected with its reason."""
        define(client)
        serving = inside(client).serving
        forged = make_token(serving.secrets, "d1")[:-1] + "!"

        assert "was not signed by this installation" in send(client, click("e1", token=forged))["rejected"][0]["reason"]

    def test_feedback(self, client: TestClient) -> None:
        """Feedback is stored once per id, and its value must fit its kind."""
        define(client)
        body = {"feedback_id": "f1", "kind": "preference", "value": {"winner": "a", "loser": "b"}, "loop": "mail"}

        assert ok(client.post("/v1/feedback", json=body))["status"] == "created"
        assert ok(client.post("/v1/feedback", json=body))["status"] == "existing"
        changed = body | {"value": {"winner": "b", "loser": "a"}}
        assert "exists with another body" in refused(client.post("/v1/feedback", json=changed), 409)
        for value, kind, status in (({"stars": 3}, "rating", 422), ({"winner": "a", "loser": "zz"}, "preference", 404)):
            refused(client.post("/v1/feedback", json={"kind": kind, "value": value}), status)
        assert rows(client, tables.feedback) == 1


class TestCopy:
    """Campaigns, contents, approval, loops."""

    def test_approval_and_the_frozen_baseline(self, any_client: TestClient) -> None:
        """In a manual loop only approved copy is ranked; the baseline is what was approved at the start, for good."""
        ok(any_client.put("/v1/loops/mail", json=LOOP | {"approval": "manual"}))
        contents = [{"id": name, "slots": {"subject": f"Line {name}"}} for name in "abc"]
        campaign = {"campaign": "june", "loop": "mail"}
        created = ok(any_client.post("/v1/campaigns", json=campaign | {"contents": contents}))
        too_early = any_client.post("/v1/campaigns", json=campaign | {"state": "running"})
        for name in "ab":
            ok(any_client.post(f"/v1/contents/{name}/approval", json={"approval": "approved"}))
        started = ok(any_client.post("/v1/campaigns", json=campaign | {"state": "running"}))
        ok(any_client.post("/v1/contents/c/approval", json={"approval": "approved"}))
        later = ok(any_client.get("/v1/campaigns"))["campaigns"][0]

        assert created["state"] == "draft"
        assert "has no approved content" in refused(too_early, 422)
        assert started["baseline"] == {
            "version": 1,
            "kind": "uniform",
            "content_ids": ["a", "b"],
            "weights": [0.5, 0.5],
        }
        assert later["baseline"] == started["baseline"]
        assert len(rank(any_client)["ranked"]) == 3

    def test_a_named_control_is_the_baseline(self, client: TestClient) -> None:
        """The control is a point mass; another control for a running campaign is refused."""
        define(client)
        contents = [{"id": name, "slots": {"subject": f"July {name}"}} for name in ("x", "y")]
        body = {"campaign": "july", "loop": "mail", "contents": contents, "control": "y"}
        campaign = ok(client.post("/v1/campaigns", json=body))

        assert campaign["baseline"] == {"version": 1, "kind": "control", "content_ids": ["y"], "weights": [1.0]}
        assert ok(client.post("/v1/campaigns", json=body))["baseline"] == campaign["baseline"]
        again = {"campaign": "july", "loop": "mail", "control": "x", "state": "running"}
        assert "its baseline is frozen" in refused(client.post("/v1/campaigns", json=again), 409)

    def test_the_same_copy_is_one_content(self, any_client: TestClient) -> None:
        """Copy that the campaign knows is answered with the content it is, under whatever id it comes again."""
        define(any_client)
        body = {"campaign": "june", "contents": [{"id": "copy-of-a", "slots": {"subject": "Line a"}}] * 2}

        assert [one["content_id"] for one in ok(any_client.post("/v1/contents", json=body))["contents"]] == ["a", "a"]
        assert rows(any_client, tables.contents) == 2

    def test_an_edit_is_a_new_content(self, client: TestClient) -> None:
        """Other copy under a known id is refused, and nothing of the call is stored."""
        define(client)
        new = [{"id": "c", "slots": {"subject": "New"}}, {"id": "a", "slots": {"subject": "Line a, edited"}}]

        assert "contents never change" in refused(
            client.post("/v1/contents", json={"campaign": "june", "contents": new}), 409
        )
        assert rows(client, tables.contents) == 2

    def test_approval_steps(self, client: TestClient) -> None:
        """Approved copy can be retired and come back; it cannot be rejected after the fact."""
        define(client)
        retire = ok(
            client.post("/v1/contents/a/approval", json={"approval": "retired", "reason": "old", "actor": "ann"})
        )

        assert retire == {"content_id": "a", "before": "approved", "approval": "retired"}
        assert "can become approved, not rejected" in refused(
            client.post("/v1/contents/a/approval", json={"approval": "rejected"}), 409
        )
        assert rank(client)["ranked"][0]["content_id"] == "b"
        with reading(inside(client).serving.engine) as connection:
            audit = connection.execute(select(tables.audit).where(tables.audit.c.subject == "a")).one()
        assert (audit.actor, audit.details["reason"]) == ("ann", "old")

    def test_lists_are_paged(self, client: TestClient) -> None:
        """Pages follow each other by id, without gaps, to the end."""
        define(client)
        first = ok(client.get("/v1/contents?campaign=june&limit=1"))
        second = ok(client.get(f"/v1/contents?campaign=june&limit=1&after={first['next']}"))

        assert [page["contents"][0]["content_id"] for page in (first, second)] == ["a", "b"]
        assert (first["next"], second["next"]) == ("a", None)

    def test_changing_a_metric_scores_history_again(self, any_client: TestClient) -> None:
        """After a change of the definition the outcomes are those of the new one; no fact is touched."""
        define(any_client)
        rank(any_client, decision_id="d1")
        send(any_client, *(click(f"e{n}", decision_id="d1") for n in range(3)))
        before = trace(any_client, "d1")["outcomes"][0]["value"]
        changed = LOOP | {"metrics": [{"name": "click", "event": "click", "aggregate": "count"}]}
        version = ok(any_client.put("/v1/loops/mail", json=changed))["version"]

        assert (before, version) == (1.0, 2)
        assert trace(any_client, "d1")["outcomes"][0]["value"] == 3.0
        assert ok(any_client.put("/v1/loops/mail", json=changed))["version"] == 2
        assert ok(any_client.get("/v1/loops"))["loops"][0]["version"] == 2

    def test_a_campaign_registered_elsewhere_is_found(self, client: TestClient) -> None:
        """A campaign that another process registered is ranked at once: the ranker looks once more before a 404."""
        define(client)
        inside(client).serving.snapshots.current = type(inside(client).serving.snapshots.current)()

        assert rank(client)["durable"]
