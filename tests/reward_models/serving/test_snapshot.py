"""The snapshot: what is read again when, and what a reader sees."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, delete, event, select, update

from infra import tables
from infra.database import writing
from infra.errors import Unavailable
from infra.secrets import Secrets
from ingestion import store
from ingestion.contents import add_contents, put_campaign, set_approval, start_campaign
from ingestion.events import Batch, Campaign, Content
from ingestion.loops import ModelSettings, parse_definition, put_loop
from ingestion.switches import set_switch
from reward_models import registry
from reward_models.boosted import RewardModel, fit
from reward_models.memory import NOTHING, Day, Memory
from reward_models.serving.decision_log import insert_decisions
from reward_models.serving.ranker import rank
from reward_models.serving.snapshot import SEEK_SECONDS, Served, Snapshots, no_send
from tests.pipelines.api import away
from tests.reward_models.serving.models import registered, trained
from tests.reward_models.serving.worlds import SECRETS, contents, definition, request, snapshot
from tests.reward_models.training import training_set

LOOP = {
    "loop": "mail",
    "metrics": [{"name": "click", "event": "click"}],
    "reward": {"click": 1},
    "approval": "automatic",
    "holdout": 0,
}


@pytest.fixture
def snapshots(any_engine: Engine, tmp_path: Path) -> Snapshots:
    """A refreshed holder over one loop with a running campaign of two contents."""
    with writing(any_engine) as connection:
        put_loop(connection, parse_definition(LOOP), 1)
        put_campaign(connection, Campaign(campaign_id="june", loop_id="mail"))
        copy = [Content(content_id=name, campaign_id="june", slots={"subject": name}) for name in ("a", "b")]
        add_contents(connection, "june", copy, 20_000, 1)
        start_campaign(connection, "june", None, "ann", 1)
    holder = Snapshots(any_engine, tmp_path)
    holder.refresh()
    return holder


def test_nothing_changed_nothing_done(snapshots: Snapshots) -> None:
    """A refresh without a change keeps the very same snapshot."""
    assert snapshots.refresh() is snapshots.refresh()


def test_only_the_changed_part_is_read(snapshots: Snapshots) -> None:
    """New statistics leave the copy as it is: contents are not read again with every batch."""
    before = snapshots.current
    with writing(snapshots.engine) as connection:
        insert_decisions(connection, [rank(before, request("d1"), SECRETS, 500)])
    store.apply(snapshots.engine, Batch(), SECRETS, 2)
    after = snapshots.refresh()

    assert after.campaigns is before.campaigns
    assert after.statistics["june"][""]
    assert (before.stats_version, after.stats_version) == (0, 1)


def test_every_change_is_seen(snapshots: Snapshots, secrets: Secrets) -> None:
    """A new definition, a switch, an approval, a campaign and a content each make a new snapshot."""
    changes: list[Callable[[Connection], object]] = [
        lambda c: put_loop(c, parse_definition({**LOOP, "holdout": 0.5}), 2),
        lambda c: set_switch(c, "mail", True, "", "ann", 2),
        lambda c: set_switch(c, "mail", False, "", "ann", 2),
        lambda c: set_approval(c, "a", "retired", "ann", "", 2),
        lambda c: put_campaign(c, Campaign(campaign_id="july", loop_id="mail")),
        lambda c: add_contents(c, "june", [Content(content_id="c", campaign_id="june", slots={"s": "c"})], 20_000, 2),
    ]
    for change in changes:
        before = snapshots.current
        with writing(snapshots.engine) as connection:
            change(connection)

        assert snapshots.refresh() is not before

    june = snapshots.current.campaigns["june"]
    assert {name: content.approval for name, content in june.contents.items()} == {
        "a": "retired",
        "b": "approved",
        "c": "approved",
    }
    assert snapshots.current.loops["mail"].definition.holdout == 0.5


def test_who_commits_late_is_seen(snapshots: Snapshots) -> None:
    """Of two who approve at once, the one with the lower number of the audit may be stored last; that is a change too."""
    with writing(snapshots.engine) as connection:
        set_approval(connection, "a", "retired", "ann", "", 2)
        kept = connection.execute(select(tables.audit).order_by(tables.audit.c.id.desc()).limit(1)).one()
        connection.execute(delete(tables.audit).where(tables.audit.c.id == kept.id))
        connection.execute(
            update(tables.contents).where(tables.contents.c.content_id == "a").values(approval="approved")
        )
        set_approval(connection, "b", "retired", "bob", "", 2)
    approved(snapshots, {"a": "approved", "b": "retired"})
    with writing(snapshots.engine) as connection:
        connection.execute(tables.audit.insert().values(**kept._asdict()))
        connection.execute(
            update(tables.contents).where(tables.contents.c.content_id == "a").values(approval="retired")
        )
    approved(snapshots, {"a": "retired", "b": "retired"})


def approved(snapshots: Snapshots, expected: dict[str, str]) -> None:
    """After a refresh the approvals of the campaign are these."""
    assert snapshots.refresh().campaigns["june"].approvals == expected


def asked(snapshots: Snapshots, words: str, part: int) -> list[Any]:
    """Of every statement with these words from now on, what the listener is told at this place: 2 its text, 3 its
    parameters."""
    found: list[Any] = []
    event.listen(
        snapshots.engine,
        "before_cursor_execute",
        lambda *about: found.append(about[part]) if words in about[2] else None,
    )
    return found


def copy_read(snapshots: Snapshots) -> list[Any]:
    """Rows of contents that are read whole from now on: the parameters of each statement."""
    return asked(snapshots, "contents.slots", 3)


def test_copy_of_other_campaigns_is_not_read_again(snapshots: Snapshots) -> None:
    """New copy has its own campaign read, whole; others stay the same objects but for what happened to them."""
    with writing(snapshots.engine) as connection:
        put_campaign(connection, Campaign(campaign_id="july", loop_id="mail"))
        add_contents(connection, "july", [Content(content_id="j", campaign_id="july", slots={"s": "j"})], 20_000, 1)
    june = snapshots.refresh().campaigns["june"]
    with writing(snapshots.engine) as connection:
        add_contents(connection, "july", [Content(content_id="k", campaign_id="july", slots={"s": "k"})], 20_000, 2)
        start_campaign(connection, "july", None, "ann", 2)
    read = copy_read(snapshots)
    after = snapshots.refresh()

    assert [list(one.values()) if isinstance(one, dict) else list(one) for one in read] == [["july"]]
    assert list(after.campaigns["july"].contents) == ["j", "k"]
    assert after.campaigns["july"].state == "running"
    assert after.campaigns["june"].contents is june.contents


def test_one_campaign_is_looked_at_alone(snapshots: Snapshots) -> None:
    """What was registered for a question is known at once, by reading its campaign and no other; what is known of the
    others stays, and the next look finds nothing left out."""
    with writing(snapshots.engine) as connection:
        put_campaign(connection, Campaign(campaign_id="july", loop_id="mail"))
    before = snapshots.refresh()
    standing = before.standing(before.loops["mail"], before.campaigns["june"])
    with writing(snapshots.engine) as connection:
        add_contents(connection, "july", [Content(content_id="j", campaign_id="july", slots={"s": "j"})], 20_000, 2)
        set_approval(connection, "a", "retired", "ann", "", 2)
    read = copy_read(snapshots)
    snapshots.look_at("july")
    alone = snapshots.current

    assert len(read) == 1
    assert list(alone.campaigns["july"].contents) == ["j"]
    assert alone.standing(alone.loops["mail"], alone.campaigns["june"]) is standing
    assert alone.campaigns["june"].approvals["a"] == "approved"
    assert snapshots.refresh().campaigns["june"].approvals["a"] == "retired"


def test_drafts_of_a_dry_run_leave_nothing_behind() -> None:
    """Two dry runs with the same name and another text are two texts, and so is what is registered under it later."""
    world = snapshot(loop={"served": Served("v1", trained(), definition()), "champion": "v1"})
    loop, june = world.loops["mail"], world.campaigns["june"]
    served = loop.served
    assert served is not None

    for text in ("Meet the coats", "Twelve boots, all new?"):
        draft = Content(content_id="new", campaign_id="june", slots={"subject": text}, approval="approved")
        seen = world.with_drafts(loop, june, [draft]).loops["mail"].served
        assert seen is not None
        assert np.array_equal(seen.encode([draft]).rows, served.model.prepare([draft]).rows, equal_nan=True)
    registered_later = Content(content_id="new", campaign_id="june", slots={"subject": "A third text"})
    later = served.model.prepare([registered_later])
    assert np.array_equal(served.encode([registered_later]).rows, later.rows, equal_nan=True)


def test_a_reader_keeps_what_it_took(snapshots: Snapshots) -> None:
    """A snapshot that was taken does not change while the next one is swapped in."""
    taken = snapshots.current
    with writing(snapshots.engine) as connection:
        set_switch(connection, "mail", True, "", "ann", 2)
    snapshots.refresh()

    assert (taken.loops["mail"].killed, snapshots.current.loops["mail"].killed) == (False, True)


def test_without_the_database_the_last_snapshot_stays(snapshots: Snapshots) -> None:
    """A failed refresh raises, says why, and leaves the snapshot; the next one that works clears the reason."""
    before = snapshots.current
    with away(snapshots.engine), pytest.raises(Unavailable):
        snapshots.refresh()

    assert snapshots.current is before
    assert "does not answer" in (snapshots.fault or "")
    snapshots.refresh()
    assert snapshots.fault is None


def looks(snapshots: Snapshots) -> list[str]:
    """The statements of all looks from now on, one each."""
    return asked(snapshots, "max(audit.id)", 2)


def test_who_seeks_sees_what_was_there(snapshots: Snapshots) -> None:
    """A campaign that was registered before it is asked for is found, however short ago others looked."""
    for number in range(5):
        name = f"new{number}"
        with writing(snapshots.engine) as connection:
            put_campaign(connection, Campaign(campaign_id=name, loop_id="mail"))

        assert name in snapshots.seek().campaigns


def test_many_who_seek_share_a_look(snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who ask while somebody looks share the next look: a flood of wrong names is not a flood of queries."""
    looked, go, real = [], threading.Event(), snapshots.look

    def look() -> None:
        looked.append(time.monotonic())
        assert go.wait(60)
        real()

    monkeypatch.setattr(snapshots, "look", look)
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(snapshots.seek) for _ in range(20)]
        while not looked or not all(one.running() for one in asked):
            time.sleep(0.01)
        time.sleep(0.1)
        go.set()
        for one in asked:
            one.result()

    assert len(looked) <= 4
    assert all(later - sooner >= SEEK_SECONDS * 0.9 for sooner, later in pairwise(looked))


def test_without_the_database_who_seeks_is_told_so(snapshots: Snapshots) -> None:
    """One look finds out; the others are told without another."""
    with away(snapshots.engine), pytest.raises(Unavailable):
        snapshots.seek()
    statements = looks(snapshots)
    with pytest.raises(Unavailable, match="does not answer"):
        snapshots.seek()

    assert statements == []


def test_a_switch_does_not_wait_for_a_model(
    snapshots: Snapshots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a new champion is being verified, which may take a minute, the kill switch works and the old state serves."""
    version = registered(snapshots.engine, tmp_path, trained(), "mail")
    real, begun, go = registry.load_verified, threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        begun.set()
        assert go.wait(60)
        return real(*arguments)

    monkeypatch.setattr(registry, "load_verified", slow)
    with writing(snapshots.engine) as connection:
        registry.promote(connection, "mail", version, registry.NO_CHAMPION, 3, "ann")
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(snapshots.refresh)
        assert begun.wait(60)
        before = snapshots.current.loops["mail"]
        with writing(snapshots.engine) as connection:
            set_switch(connection, "mail", True, "", "ann", 4)
        snapshots.look()
        killed = snapshots.current.loops["mail"]
        go.set()
        loading.result()
    after = snapshots.current.loops["mail"]

    assert (before.champion, before.fallback) == (None, None)
    assert killed.killed
    assert (after.killed, after.model_version) == (True, version)


def test_a_model_is_warm_before_it_serves(
    snapshots: Snapshots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a running campaign asks for was encoded when the first request comes."""
    version = registered(snapshots.engine, tmp_path, trained(), "mail")
    with writing(snapshots.engine) as connection:
        registry.promote(connection, "mail", version, registry.NO_CHAMPION, 3, "ann")
    world = snapshots.refresh()
    monkeypatch.setattr(RewardModel, "encode", lambda *_: pytest.fail("encoded again"))

    assert rank(world, request("d1"), SECRETS, 500).model_version == version


def test_the_look_is_one_read(snapshots: Snapshots) -> None:
    """Looking for changes reads no contents, however many there are."""
    statements: list[str] = []
    event.listen(snapshots.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    snapshots.refresh()

    assert [text for text in statements if tables.contents.c.slots.name in text] == []


def test_the_same_id_in_two_campaigns_is_encoded_twice() -> None:
    """no_send is in every campaign, and each has its own level: what was kept for one is not given to the other."""
    copy = [
        Content(content_id=f"c{index}", campaign_id=campaign, slots={}, features={"size": index})
        for index, campaign in enumerate(("poor", "rich"))
    ]
    known = training_set(
        copy, content=[0, 1] * 200, reward=[0.0, 10.0] * 200, contexts=[{"age": row % 7} for row in range(400)]
    )
    served = Served("v1", fit(known, ModelSettings(rounds=5, min_leaf=5, text=False)), definition())
    levels = [float(served.encode([no_send(campaign)]).mean[0]) for campaign in ("poor", "rich")]

    assert levels[0] < levels[1]


def test_a_new_model_starts_with_what_it_was_judged_on() -> None:
    """Counts of decisions the model was not trained on move its choice before it has made one itself."""
    copy = list(contents(2).values())
    known = training_set(copy, content=[0, 1] * 200, reward=[0.0, 1.0, 1.0, 0.0] * 100)
    model = fit(known, ModelSettings(rounds=5, min_leaf=5, text=False))
    days = (Day("c00", 10, 2_000.0, 900.0, 900.0, 1_000.0), Day("c01", 10, 2_000.0, 1_100.0, 1_100.0, 1_000.0))
    favoured = []
    for memory in (NOTHING, Memory({"june": days})):
        served = Served("v1", replace(model, memory=memory), definition())
        world = snapshot(2, loop={"served": served, "champion": "v1"})
        decision = rank(world, request(), SECRETS, 10)
        favoured.append(decision.candidates[1].policy_p or 0.0)

    assert favoured[0] == pytest.approx(0.5, abs=0.01)
    assert favoured[1] > 0.95
