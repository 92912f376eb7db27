"""Retraining without Prefect: what is promoted, what is not, and what a crash leaves behind."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import pytest
from sqlalchemy import Engine, select, update

from infra import tables
from infra.clock import DAY, MICROS
from infra.database import open_database, reading, writing
from infra.errors import BadInput, Conflict, ModelRefused
from infra.leases import Lease, lease
from infra.secrets import Secrets
from infra.settings import Settings
from ingestion.loops import LoopDefinition, load_loop, put_loop
from pipelines import learning, papers
from pipelines.learning import Bench, Run, retrain
from reward_models import bundle as bundles
from reward_models import registry
from reward_models.boosted import fit
from reward_models.gate import judge
from reward_models.loading import load_training_set
from reward_models.registry import Champion, Kind, State, Version
from reward_models.trial import dealt_by_chance, hold, nuisance
from reward_models.verification import Verifier
from tests.pipelines.memory_tracking import MemoryTracking
from tests.pipelines.worlds import NOW, definition, flat, populate

Given = ParamSpec("Given")
Result = TypeVar("Result")
STEPS = ("dataset", "fit", "calibrate", "evaluate", "register", "gate", "promote")


class Crash(Exception):
    """A process that dies, as seen from inside."""


def bench_of(settings: Settings, engine: Engine, now: int = NOW) -> Bench:
    return Bench(settings, engine, lambda: now, MemoryTracking())


@pytest.fixture
def bench(settings: Settings, engine: Engine) -> Bench:
    return bench_of(settings, engine)


@pytest.fixture(scope="module")
def lively_file(migrated_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a small world that has a taste to be learned; copy it, do not open it."""
    path = tmp_path_factory.mktemp("lively") / "lively.db"
    shutil.copy(migrated_file, path)
    engine = open_database(f"sqlite:///{path}")
    populate(engine, Secrets(bytes(range(32)), {1: bytes(range(32, 64))}, {1: bytes(range(64, 96))}))
    engine.dispose()
    return path


@pytest.fixture
def lively(engine: Engine, lively_file: Path, tmp_path: Path) -> None:
    """The database of this test holds that world."""
    engine.dispose()
    shutil.copy(lively_file, tmp_path / "rewardloop.db")


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier() as verifier:
        yield verifier


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are drawn in ``test_mirror.py``; here they would be half of the time."""
    monkeypatch.setattr(papers, "pictures", lambda *_: {})


@pytest.fixture(autouse=True)
def _one_verifier(monkeypatch: pytest.MonkeyPatch, verifier: Verifier) -> None:
    """One sacrificial process for the whole file: starting it is most of what a retraining of this size takes."""
    monkeypatch.setattr(registry, "load_verified", partial(registry.load_verified, verifier=verifier))


def crash_after(name: str) -> Run:
    """A way of calling steps that dies once the named one is done."""

    def run(step: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
        result = step(*args, **kwargs)
        if step.__name__ == name:
            raise Crash(name)
        return result

    return run


def champion_of(engine: Engine) -> str | None:
    with reading(engine) as connection:
        found = registry.champion(connection, "subjects")
    return found.version if found else None


def versions_of(engine: Engine) -> dict[str, str]:
    with reading(engine) as connection:
        return {each.version: each.state for each in registry.versions(connection, "subjects")}


def redefine(engine: Engine, rules: LoopDefinition) -> None:
    with writing(engine) as connection:
        put_loop(connection, rules, NOW)


def test_a_truly_better_model_is_promoted(bench: Bench, engine: Engine, lively: None) -> None:
    """With a taste to be learned, the first model passes the gate, serves, and is the bundle that was judged."""
    outcome = retrain(bench, "subjects")

    assert (outcome.version, outcome.kind, outcome.state, outcome.champion) == (
        "subjects-1",
        "first",
        "promoted",
        "subjects-1",
    )
    folder = registry.path_of(bench.settings.bundles, "subjects", "subjects-1")
    with reading(engine) as connection:
        stored = registry.version_of(connection, "subjects", "subjects-1")
    assert bundles.digest(bundles.read(folder)) == stored.digest


def test_a_champion_starts_with_the_counts_it_was_judged_on(bench: Bench, engine: Engine, lively: None) -> None:
    """Its bundle holds the sums of the decisions after its cutoff, which it was not trained on, and none from before."""
    retrain(bench, "subjects")
    manifest = bundles.manifest(bundles.read(registry.path_of(bench.settings.bundles, "subjects", "subjects-1")))
    days = [day for remembered in manifest.memory.campaigns.values() for day in remembered]
    with reading(engine) as connection:
        definition, version = load_loop(connection, "subjects")
        whole = load_training_set(connection, definition, version, as_of=manifest.as_of, now=bench.clock())
    judged = dealt_by_chance(whole.subset(whole.decided_at >= manifest.cutoff))

    assert sum(day.exposures for day in days) == len(judged) > 0
    assert sum(day.sum for day in days) == pytest.approx(judged.reward.sum())
    assert min(day.day for day in days) >= manifest.cutoff // DAY


def test_the_gain_that_is_reported_covers_the_truth(bench: Bench, engine: Engine, lively: None) -> None:
    """Knowing the taste is worth 0.15 clicks per decision, less the floor; the interval says so."""
    metrics = retrain(bench, "subjects").metrics

    assert metrics["expected_gain_per_1000_low"] < 147 < metrics["expected_gain_per_1000_high"]
    assert metrics["click_per_1000_baseline_low"] < 150 < metrics["click_per_1000_baseline_high"]


def test_nothing_is_promoted_where_nothing_can_be_gained(bench: Bench, engine: Engine, secrets: Secrets) -> None:
    """In a world without taste the model fails, and the loop goes on without one."""
    populate(engine, secrets, rate=flat)
    outcome = retrain(bench, "subjects")

    assert (outcome.state, outcome.champion) == ("failed", None)
    assert outcome.sentence.startswith("Not promoted: ")


def test_too_little_data_is_refused_with_the_reason(bench: Bench, engine: Engine, secrets: Secrets) -> None:
    """Fewer units than the gate asks for: refused in a sentence, nothing promoted."""
    populate(engine, secrets, decisions=120)
    outcome = retrain(bench, "subjects")

    assert (outcome.state, outcome.champion) == ("refused", None)
    assert "units are too few" in outcome.sentence


def test_a_loop_without_old_decisions_waits(bench: Bench, engine: Engine, secrets: Secrets) -> None:
    """Nothing before the cutoff and no past results: a sentence, and nothing registered."""
    populate(engine, secrets, days=3)
    outcome = retrain(bench, "subjects")

    assert (outcome.state, outcome.version, versions_of(engine)) == ("waiting", None, {})
    assert "nothing to learn from yet" in outcome.sentence


def test_outcomes_that_are_all_alike_teach_nothing(bench: Bench, engine: Engine, secrets: Secrets) -> None:
    """A loop whose metric never fires waits, and the sentence points at the events."""
    populate(engine, secrets, decisions=400, rate=lambda segment, tone: 0.0)
    outcome = retrain(bench, "subjects")

    assert (outcome.state, versions_of(engine)) == ("waiting", {})
    assert "Check that the metrics' events arrive" in outcome.sentence


def test_training_and_judging_share_no_decision(bench: Bench, engine: Engine, secrets: Secrets) -> None:
    """Everything trained on was decided before the cutoff, everything judged at or after it, all of it mature."""
    rules = populate(engine, secrets, decisions=800)
    plan = learning.dataset(bench, "subjects", held(engine))

    assert plan.cutoff == NOW - rules.gate.window - rules.maturity
    assert plan.training.decided_at.max() < plan.cutoff <= plan.judged.decided_at.min()
    assert plan.judged.decided_at.max() + rules.maturity <= NOW


def test_a_split_by_unit_keeps_units_apart(bench: Bench, engine: Engine, secrets: Secrets) -> None:
    """Without times, nobody who was trained on is judged."""
    populate(engine, secrets, rules=definition(gate={"window": "7d", "split": "unit", "min_units": 100}))
    plan = learning.dataset(bench, "subjects", held(engine))

    assert set(plan.training.unit) & set(plan.judged.unit) == set()
    assert retrain(bench_of(bench.settings, engine), "subjects").state == "promoted"


def test_decisions_that_wait_are_trained_on_and_not_judged(bench: Bench, engine: Engine, secrets: Secrets) -> None:
    """Split by unit, decisions of the last day teach by what has come of them; only final ones are judged on."""
    populate(engine, secrets, decisions=800, rules=definition(gate={"window": "7d", "split": "unit", "min_units": 100}))
    plan = learning.dataset(bench, "subjects", held(engine))

    young = NOW - plan.definition.maturity
    assert plan.learned.decided_at.max() > young
    assert max(plan.training.decided_at.max(), plan.judged.decided_at.max()) <= young
    assert len(plan.training) == plan.learned.mature.sum() < len(plan.learned)


def test_the_same_data_makes_the_same_version_once(bench: Bench, engine: Engine, lively: None) -> None:
    """Run twice at one moment: one version, one verdict, one promotion."""
    first, second = retrain(bench, "subjects"), retrain(bench, "subjects")

    assert first == second
    assert versions_of(engine) == {"subjects-1": "promoted"}
    assert audit_of(engine) == ["promote"]


def test_new_data_under_the_same_settings_is_a_refresh(bench: Bench, engine: Engine, lively: None) -> None:
    """A later run of an unchanged loop is judged on non-inferiority against the champion."""
    retrain(bench, "subjects")
    outcome = retrain(bench_of(bench.settings, engine, NOW + DAY), "subjects")

    assert (outcome.version, outcome.kind, outcome.champion) == ("subjects-2", "refresh", "subjects-2")
    assert "at most" in outcome.sentence


def test_other_settings_are_a_change_that_must_win(bench: Bench, engine: Engine, lively: None) -> None:
    """A change without gain leaves the champion serving, and is counted as an attempt."""
    retrain(bench, "subjects")
    states = []
    for rounds in (24, 26):
        redefine(engine, definition(model={"rounds": rounds, "leaves": 7, "min_leaf": 20, "text": False}))
        outcome = retrain(bench, "subjects")
        states.append((outcome.kind, outcome.state, outcome.champion))
    with reading(engine) as connection:
        gate = registry.version_of(connection, "subjects", "subjects-3").gate

    assert states == [("change", "failed", "subjects-1")] * 2
    assert gate is not None
    assert gate["tries"] == 2


def test_another_policy_is_judged_against_the_one_that_serves(bench: Bench, engine: Engine, lively: None) -> None:
    """The same model under a uniform policy is another version; it loses what the champion's own policy earns more."""
    first = retrain(bench, "subjects")
    redefine(engine, definition(policy={"kind": "uniform"}))
    second = retrain(bench, "subjects")
    with reading(engine) as connection:
        stored = registry.version_of(connection, "subjects", "subjects-2")

    assert (first.state, second.kind, second.state) == ("promoted", "change", "failed")
    assert stored.loop_version == 2
    assert stored.gate is not None
    assert stored.gate["estimate"]["high"] < -0.05


def test_a_loop_that_asks_for_approval_waits_for_it(bench: Bench, engine: Engine, secrets: Secrets) -> None:
    """A passed version serves only after a person said yes, and who said it is kept."""
    gate = {"window": "7d", "min_units": 100, "min_effective": 50, "approval": True}
    populate(engine, secrets, rules=definition(gate=gate))
    waiting = retrain(bench, "subjects")
    again = retrain(bench, "subjects")
    assert [(each.state, each.champion) for each in (waiting, again)] == [("passed", None)] * 2

    approved = learning.approve(bench, "subjects", None, "ann")
    assert (approved.state, approved.champion) == ("promoted", "subjects-1")
    assert audit_of(engine) == ["approve", "promote"]


def test_a_version_that_did_not_pass_cannot_be_promoted_by_hand(bench: Bench, engine: Engine, secrets: Secrets) -> None:
    """The gate is not a suggestion: failed versions stay out, and nothing is written."""
    populate(engine, secrets, rate=flat)
    retrain(bench, "subjects")

    with pytest.raises(BadInput, match="has no version that passed"):
        learning.approve(bench, "subjects", None, "ann")
    with pytest.raises(BadInput, match="only a version that passed"):
        learning.approve(bench, "subjects", "subjects-1", "ann")
    assert (champion_of(engine), audit_of(engine)) == (None, [])


def test_an_earlier_champion_is_the_way_back(bench: Bench, engine: Engine, lively: None) -> None:
    """Promoting a version that served before puts it back."""
    retrain(bench, "subjects")
    retrain(bench_of(bench.settings, engine, NOW + DAY), "subjects")
    outcome = learning.approve(bench, "subjects", "subjects-1", "ann")

    assert (outcome.champion, champion_of(engine)) == ("subjects-1", "subjects-1")


def test_files_that_were_changed_are_not_promoted(bench: Bench, engine: Engine, lively: None) -> None:
    """What is promoted is what was gated: another digest on disk stops the promotion."""

    def tamper(step: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
        if step.__name__ == "promote":
            model = registry.path_of(bench.settings.bundles, "subjects", "subjects-1") / "model.txt"
            model.write_bytes(model.read_bytes() + b" ")
        return step(*args, **kwargs)

    with pytest.raises(ModelRefused, match="not those that were judged"):
        retrain(bench, "subjects", run=tamper)
    assert champion_of(engine) is None


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_after_any_step_leaves_the_loop_as_it_was_and_the_next_run_finishes(
    bench: Bench, engine: Engine, lively: None, step: str
) -> None:
    """Until the promotion is done nothing serves; a run at a later moment ends with a champion and one pointer."""
    with pytest.raises(Crash):
        retrain(bench, "subjects", run=crash_after(step))
    assert champion_of(engine) == ("subjects-1" if step == "promote" else None)

    outcome = retrain(bench_of(bench.settings, engine, NOW + 1_000), "subjects")
    assert outcome.state == "promoted"
    assert outcome.champion == outcome.version == champion_of(engine)


@pytest.mark.parametrize("step", ["register", "gate"])
def test_a_crash_leaves_the_champion_serving(bench: Bench, engine: Engine, lively: None, step: str) -> None:
    """A loop with a champion keeps it when its next retraining dies before the promotion."""
    retrain(bench, "subjects")
    later = bench_of(bench.settings, engine, NOW + DAY)
    with pytest.raises(Crash):
        retrain(later, "subjects", run=crash_after(step))

    assert champion_of(engine) == "subjects-1"


def test_a_version_that_died_before_its_promotion_is_promoted_first(bench: Bench, engine: Engine, lively: None) -> None:
    """It passed against what still serves: the next run promotes it, then judges its own against it."""
    with pytest.raises(Crash):
        retrain(bench, "subjects", run=crash_after("gate"))
    assert versions_of(engine) == {"subjects-1": "passed"}

    outcome = retrain(bench_of(bench.settings, engine, NOW + 1_000), "subjects")
    assert (outcome.version, outcome.kind) == ("subjects-2", "refresh")
    assert versions_of(engine)["subjects-1"] == "promoted"


KILL = """
import os, signal, sys
from functools import partial
from infra.clock import MICROS
from infra.leases import lease
from infra.settings import Settings
from infra.database import open_database
from pathlib import Path
from pipelines import learning
from tests.pipelines.memory_tracking import MemoryTracking
from tests.pipelines.worlds import NOW

home, fatal = Path(sys.argv[1]), sys.argv[2]
learning.lease = partial(lease, length=MICROS)

def run(step, *args):
    result = step(*args)
    if step.__name__ == fatal:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

settings = Settings(home=home)
bench = learning.Bench(settings, open_database(settings.database), lambda: NOW, MemoryTracking())
learning.retrain(bench, "subjects", run=run)
"""


@pytest.mark.stack
@pytest.mark.parametrize("step", ["evaluate", "register", "gate", "promote"])
def test_a_killed_process_leaves_a_loop_that_the_next_run_finishes(
    bench: Bench, engine: Engine, lively: None, step: str
) -> None:
    """SIGKILL after a step that matters: no half-served model, the lease runs out, the next run promotes."""
    root = Path(__file__).parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", KILL, str(bench.settings.home), step],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        timeout=120,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert champion_of(engine) == ("subjects-1" if step == "promote" else None)

    outcome = retrain(bench_of(bench.settings, engine, NOW + 1_000), "subjects")
    assert (outcome.state, outcome.champion) == ("promoted", outcome.version)


def test_a_run_that_lost_its_lease_writes_nothing(bench: Bench, engine: Engine, lively: None) -> None:
    """A run that was overtaken while it trained is stopped at its first write."""

    def overtaken(step: Callable[Given, Result], *args: Given.args, **kwargs: Given.kwargs) -> Result:
        if step.__name__ == "register":
            with writing(engine) as connection:
                connection.execute(update(tables.leases).values(token=tables.leases.c.token + 1))
        return step(*args, **kwargs)

    with pytest.raises(Conflict, match="taken over"):
        retrain(bench, "subjects", run=overtaken)
    assert versions_of(engine) == {}


def test_a_promotion_does_not_need_mlflow_and_is_mirrored_later(bench: Bench, engine: Engine, lively: None) -> None:
    """With tracking away the model is promoted all the same; the next run logs what was missed."""
    tracking: Any = bench.tracking
    tracking.away = True
    assert retrain(bench, "subjects").champion == "subjects-1"
    assert tracking.records == {}

    tracking.away = False
    retrain(bench, "subjects")
    assert tracking.records["subjects-1"].tags["rewardloop.state"] == "promoted"
    assert tracking.aliases == {"champion": "subjects-1"}


def test_an_unchanged_version_is_logged_once(bench: Bench, engine: Engine, lively: None) -> None:
    """A version is logged when it is registered and when its state changes, not at every look."""
    retrain(bench, "subjects")
    tracking: Any = bench.tracking
    before = list(tracking.logged)
    retrain(bench, "subjects")

    assert tracking.logged == before


def test_only_one_run_of_a_loop_at_a_time(bench: Bench, engine: Engine, secrets: Secrets) -> None:
    """While a living run holds the loop's lease, a second one is told to wait, and writes nothing."""
    populate(engine, secrets, decisions=200)

    with (
        lease(engine, "retrain:subjects", length=MICROS),
        pytest.raises(Conflict, match="is running already"),
    ):
        retrain(bench, "subjects")
    assert versions_of(engine) == {}


@pytest.mark.slow
def test_null_worlds_are_promoted_at_the_stated_rate(engine: Engine, secrets: Secrets, settings: Settings) -> None:
    """Of 40 worlds without taste at most five are promoted: α₁ = 6·0.05/π² = 3 % each. One declared seed."""
    rules = populate(engine, secrets, decisions=1_500)
    plan = learning.dataset(bench_of(settings, engine), "subjects", held(engine))
    rng = np.random.default_rng(20_260_101)
    promoted = 0
    for _ in range(40):
        training, judged = (
            replace(part, reward=(rng.random(len(part)) < 0.15).astype(float)) for part in (plan.training, plan.judged)
        )
        model = fit(training, rules.model)
        trial = hold(judged, plan.baselines, model, rules.policy, nuisance(training, judged, rules))
        promoted += judge(trial.logged("challenger", "baseline"), rules.gate, "first").state == "passed"

    assert promoted <= 5


def test_kinds() -> None:
    """No champion: first. The champion's configuration: refresh. Another: change."""
    versions = [version("subjects-1", "promoted", config="a")]
    champion = Champion("subjects-1", 1, "d", 1)

    assert learning.kind_of("a", None, versions) == "first"
    assert learning.kind_of("a", champion, versions) == "refresh"
    assert learning.kind_of("b", champion, versions) == "change"


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([], 0),
        ([("first", "failed"), ("first", "refused"), ("first", "registered")], 1),
        ([("first", "failed"), ("first", "promoted")], 0),
        ([("first", "promoted"), ("change", "failed"), ("refresh", "promoted"), ("change", "failed")], 2),
        ([("first", "promoted"), ("change", "passed")], 1),
    ],
)
def test_attempts_count_since_the_last_promoted_change(history: list[tuple[Kind, State]], expected: int) -> None:
    """Judged changes count; refusals, half-registered ones and refreshes do not; a promoted change starts anew."""
    versions = [version(f"subjects-{i}", state, kind) for i, (kind, state) in enumerate(history, 1)]

    assert learning.tries_of(versions) == expected


def test_the_configuration_digest_covers_what_is_learned_and_how() -> None:
    """Model, policy and reward settings change it; holdout and gate do not."""
    same = learning.config_digest(definition())

    assert learning.config_digest(definition(holdout=0.5, gate={"alpha": 0.01})) == same
    for change in ({"model": {"rounds": 9}}, {"policy": {"damping": 0.5}}, {"reward": {"click": 2.0}}):
        assert learning.config_digest(definition(**change)) != same


def held(engine: Engine) -> Lease:
    """A lease as a run would hold it."""
    with writing(engine) as connection:
        connection.execute(tables.leases.insert().values(name="x", holder="test", token=1, expires_at=0))
    return Lease("x", "test", 1)


def version(name: str, state: State, kind: Kind = "first", config: str = "a") -> Version:
    return Version(
        loop_id="subjects",
        version=name,
        digest="d",
        config_digest=config,
        loop_version=1,
        as_of=1,
        cutoff=0,
        state=state,
        kind=kind,
        tracking_run=None,
        gate=None,
        approvals=[],
        created_at=0,
    )


def audit_of(engine: Engine) -> list[str]:
    with reading(engine) as connection:
        return list(connection.scalars(select(tables.audit.c.action).order_by(tables.audit.c.id)))
