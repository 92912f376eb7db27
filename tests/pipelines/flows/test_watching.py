"""What the watch finds in worlds with a known fault, and that it is quiet in one without."""

from dataclasses import replace

import msgspec
import numpy as np
from sqlalchemy import Engine, delete

from infra import tables
from infra.clock import DAY, HOUR
from infra.database import writing
from infra.secrets import Secrets
from infra.settings import Settings
from pipelines.flows.steps import watching
from pipelines.flows.steps.watching import LOOKS, Finding, Seen, Watched, gather, keep, paper_of, report
from pipelines.learning import Bench
from reward_models.contexts import Contexts
from tests.pipelines.flows.world import LOOP, bench_of
from tests.pipelines.worlds import NOW, populate


def look_over(seen: Seen) -> dict[str, Finding]:
    return {finding.what: finding for look in LOOKS for finding in look(seen)}


def test_a_sound_loop_is_fine_and_every_fault_is_found_in_its_place(bench: Bench) -> None:
    """Nothing to act on in a sound loop; other customers, a broken promise and a changed ledger are each found alone."""
    seen = gather(bench, LOOP, 28)
    sound = look_over(seen)
    assert {finding.severity for finding in sound.values()} == {"fine"}, sound
    assert {"health: join", "promises", "customers", "novelty", "freshness: events", "ledger"} <= set(sound)

    strangers = Contexts.of([{"segment": "stranger"}] * len(seen.recent))
    [moved] = watching.contexts(replace(seen, recent=replace(seen.recent, contexts=strangers)))
    assert (moved.what, moved.severity) == ("customers", "look")
    assert "segment is another population" in moved.sentence

    silent = replace(seen.recent, reward=np.zeros(len(seen.recent)))
    [broken] = watching.promises(replace(seen, recent=silent))
    assert broken.severity == "look"
    assert "and 0 arrived" in broken.sentence

    with writing(bench.engine) as connection:
        line = tables.batches
        connection.execute(line.update().values(read=line.c.read + 1))
    assert {finding.what: finding.severity for finding in watching.ledger(seen)}["ledger"] == "act"


def test_events_that_stop_while_decisions_go_on_ask_to_act(bench: Bench) -> None:
    """A silence of the events alone is a broken pipe; of both, a loop that rests."""
    resting = gather(replace(bench, clock=lambda: NOW + 6 * DAY), LOOP, 28)
    assert [finding.severity for finding in watching.freshness(resting)] == ["look", "look"]

    with writing(bench.engine) as connection:
        late = tables.events.c.received_at >= NOW - 2 * DAY
        connection.execute(delete(tables.events).where(late))
    busy = gather(bench, LOOP, 28)
    assert {finding.what: finding.severity for finding in watching.freshness(busy)} == {
        "freshness: decisions": "fine",
        "freshness: events": "act",
    }


def test_a_damaged_champion_asks_to_act(bench: Bench) -> None:
    """A champion whose files were changed is found by the watch too."""
    [file] = (bench.settings.bundles / LOOP / f"{LOOP}-1").glob("*.txt")
    file.write_bytes(file.read_bytes() + b" ")

    [found] = watching.promises(gather(bench, LOOP, 28))
    assert found.severity == "act"
    assert "cannot be loaded" in found.sentence


def test_a_loop_without_a_model_is_quiet(engine: Engine, secrets: Secrets, settings: Settings) -> None:
    """Before the first model there is nothing to hold to its promises, and no finding to act on."""
    populate(engine, secrets, decisions=50, days=1)

    found = look_over(gather(bench_of(settings, engine), LOOP, 28))
    assert found["promises"].sentence == "No model serves yet: the baseline does."
    assert "act" not in {finding.severity for finding in found.values()}


def test_the_paper_tells_the_worst_first_and_only_act_is_an_alarm() -> None:
    """Findings are ordered by severity; `act` raises the alarm, `look` does not; copy in them is no Markdown."""
    bad = Finding(what="ledger", severity="act", sentence="3 records are in no state.")
    odd = Finding(what="novelty", severity="look", sentence="*Buy* <b>now</b>")
    fine = Finding(what="quarantine", severity="fine", sentence="0 of 10.")

    told = paper_of(Watched(loop_id=LOOP, at="", findings=(odd, fine)))
    assert (told.state, told.alarm, told.sentence) == ("look", False, odd.sentence)
    assert "<b>" not in told.text
    assert r"\*Buy\*" in told.text
    assert paper_of(Watched(loop_id=LOOP, at="", findings=(odd, bad))).alarm


def test_what_was_found_is_kept_for_whoever_has_no_prefect(bench: Bench) -> None:
    """The file holds the findings, the worst first, and a second look replaces it."""
    seen = gather(bench, LOOP, 28)
    for severity in ("fine", "look"):
        keep(bench, report(seen, [Finding(what="x", severity=severity, sentence="y")]))

    files = list((bench.settings.home / "watch").iterdir())
    assert [file.name for file in files] == [f"{LOOP}.json"]
    assert msgspec.json.decode(files[0].read_bytes(), type=Watched).severity == "look"


def test_a_pause_is_odd_only_when_it_is_longer_than_any_before() -> None:
    """An hour is never odd, and a pause is measured against the longest of the period."""
    assert not watching._Silence(newest=0, now=HOUR, longest=1).odd
    assert watching._Silence(newest=0, now=HOUR + 1, longest=1).odd
    assert not watching._Silence(newest=0, now=9 * DAY, longest=5 * DAY).odd
