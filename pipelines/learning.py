"""Retraining, step by step: dataset → fit → calibrate → evaluate → register → gate → promote.

1. dataset    as_of = newest batch, cutoff C = now − gate window − maturity: train before C, judge after it
2. fit        the reward model (LightGBM) on decisions before C and past results
3. calibrate  how far its promises were off on decisions after C; the bundle is sealed: digest from memory
4. evaluate   what the frozen policy would have earned after C, against what ran, the baseline, the best content
5. register   report, bundle, row in ``model_versions`` (state ``registered``)
6. gate       the verdict, once per version: ``passed``, ``failed`` or ``refused``
7. promote    compare-and-swap of the champion: exactly the bundle that was gated, or nothing

Steps are plain functions over a ``Bench``. ``retrain`` is the table of contents; the Prefect flow gives it a
``run`` that makes each step a task. One run per loop at a time, by a lease whose token every write checks.

Crashes: nothing serves before step 7, which is one transaction. A version that died after registration is taken up
by the next run if that makes the same bundle, else it stays ``registered`` and is superseded; one that died between
its verdict and its promotion is promoted first by the next run.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ParamSpec, Protocol, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, Engine, func, select

from infra import tables
from infra.clock import Clock, format_time
from infra.database import canonical_json, open_database, reading, writing
from infra.errors import BadInput, EstimateRefused, ModelRefused
from infra.leases import Lease, check, lease
from infra.logs import log
from infra.settings import Settings, clock_of
from infra.tracking import Tracking
from ingestion.events import Content
from ingestion.loops import LoopDefinition, load_loop, load_version
from pipelines import guarding, papers
from pipelines.mirror import keep, mirror, record_of
from pipelines.papers import Evaluation
from reward_models import bundle as bundles
from reward_models import registry
from reward_models.aging import Aging
from reward_models.boosted import RewardModel
from reward_models.boosted import fit as fit_model
from reward_models.calibration import reliability
from reward_models.dataset import TrainingSet
from reward_models.delays import fit_delays
from reward_models.demonstrations.choices import Demonstration, believable, load_demonstrations
from reward_models.demonstrations.prior import widened
from reward_models.demonstrations.teaching import learned_too
from reward_models.embeddings import embed_if_asked
from reward_models.forgetting import half_life
from reward_models.gate import judge
from reward_models.guardrails import vetoed
from reward_models.health import examine
from reward_models.hurdle import foresee
from reward_models.loading import load_training_set
from reward_models.memory import remember
from reward_models.offpolicy import Floor, difference
from reward_models.policies import in_force, policy_version
from reward_models.posterior import ArmCounts
from reward_models.statistics import load_days
from reward_models.trial import GATE_FOLDS, Incumbent, dealt_by_chance, hold, learnable, nuisance, unit_folds

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

JUDGED: tuple[registry.State, ...] = ("passed", "failed", "promoted")
"""States of versions on which error was spent; a refusal looked at no estimate."""


@dataclass(frozen=True)
class Bench:
    """What the steps work with."""

    settings: Settings
    engine: Engine
    clock: Clock
    tracking: Tracking


@dataclass(frozen=True)
class Plan:
    """What is trained on and judged on, and by which rules. ``champion``: what is judged against."""

    lease: Lease
    definition: LoopDefinition
    now: int
    as_of: int
    cutoff: int
    config_digest: str
    kind: registry.Kind
    tries: int
    """This is the k-th change that is judged since the last one that was promoted; 1 is the first."""
    champion: registry.Champion | None
    by_champion: npt.NDArray[np.bool_]
    """Which of the decisions it judges the champion made."""
    learned: TrainingSet
    """What the model is fitted to: ``training``, and decisions that wait for their outcome (deferred, or of the units
    that are trained on)."""
    training: TrainingSet
    judged: TrainingSet
    baselines: Mapping[str, Mapping[str, Any]]
    daily: Sequence[ArmCounts] = ()
    """Counts per day before the cutoff, of every campaign: they tell how fast contents change."""
    shown: Sequence[Demonstration] = ()
    """What marketers chose before the cutoff."""
    believed_of: Sequence[Content] = ()
    """The contents that their choices say something about."""

    @property
    def loop_id(self) -> str:
        """The loop."""
        return self.definition.loop

    @property
    def serving(self) -> str | None:
        """The version that serves while the run is on."""
        return self.champion.version if self.champion else None


@dataclass(frozen=True)
class Sealed:
    """A model with its bundle, the digest taken from memory, and how its promises held after the cutoff."""

    model: RewardModel
    bundle: bundles.Bundle
    digest: str
    later_error: float | None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended. ``state``: ``promoted``, ``passed`` (waits for approval), ``failed``, ``refused``, ``waiting``."""

    loop_id: str
    version: str | None
    kind: str
    state: str
    sentence: str
    champion: str | None
    description: str = ""
    metrics: dict[str, float] = {}


class Run(Protocol):
    """How a step is called; Prefect makes a task of it."""

    def __call__(
        self, step: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        """Call ``step``."""


def call(step: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
    """Call a step as it is."""
    return step(*args, **kwargs)


def open_bench(settings: Settings) -> Bench:
    """The bench of an installation whose database is at the newest schema."""
    return Bench(settings, open_database(settings.database), clock_of(settings), Tracking(settings))


def retrain(bench: Bench, loop_id: str, run: Run = call) -> Outcome:
    """The whole of it, for one loop. Raises :class:`Conflict` while another run of the loop is alive."""
    with lease(bench.engine, f"retrain:{loop_id}") as held:
        plan = run(dataset, bench, loop_id, held)
        if (reason := nothing_to_learn(plan)) is not None:
            return _waiting(plan, reason)
        model = run(fit, plan)
        sealed = run(calibrate, plan, model)
        evaluation = run(evaluate, bench, plan, sealed)
        version = run(register, bench, plan, sealed, evaluation)
        run(gate, bench, plan, version, evaluation)
        run(promote, bench, plan, version)
    return outcome_of(bench, loop_id, version)


def nothing_to_learn(plan: Plan) -> str | None:
    """Why no model can be trained yet, in a sentence; None when one can."""
    if learnable(plan.training):
        return None
    if not len(plan.training) and not len(plan.training.history):
        return (
            f"Loop {plan.loop_id!r} has no matured decision from before {format_time(plan.cutoff)} and no past results: "
            f"nothing to learn from yet. Decisions count once they are older than the gate's window and the metrics' "
            f"maturity together; or import past results"
        )
    return (
        f"Loop {plan.loop_id!r}: every matured decision from before {format_time(plan.cutoff)} has the same reward: "
        f"nothing to learn from yet. Check that the metrics' events arrive"
    )


def dataset(bench: Bench, loop_id: str, held: Lease) -> Plan:
    """Step 1. A version whose promotion was cut short is promoted first: it is then the one to beat."""
    now = bench.clock()
    _finish(bench, loop_id, held, now)
    embed_if_asked(bench.settings, bench.engine, loop_id, now)
    with reading(bench.engine) as connection:
        definition, loop_version = load_loop(connection, loop_id)
        as_of = connection.execute(select(func.max(tables.batches.c.batch_no))).scalar() or 0
        valued = None if definition.gate.split == "unit" else definition.cutoff(now)
        whole = load_training_set(
            connection, definition, loop_version, as_of=as_of, now=now, censored=True, choices_since=valued
        )
        champion = registry.champion(connection, loop_id)
        earlier_versions = _versions(connection, loop_id)
        baselines = _baselines(connection, loop_id)
        its_own = _made_by(connection, loop_id, champion)
    cutoff, earlier = _split(definition, whole, now)
    with reading(bench.engine) as connection:
        daily = load_days(connection, loop_id, definition.reward, cutoff)
        shown = load_demonstrations(connection, loop_id, cutoff)
        believed_of = believable(connection, loop_id) if shown else []
    judged = dealt_by_chance(whole.subset(~earlier & whole.mature))
    learned = whole.subset(earlier)
    digest = config_digest(definition)
    return Plan(
        lease=held,
        definition=definition,
        now=now,
        as_of=as_of,
        cutoff=cutoff,
        config_digest=digest,
        kind=kind_of(digest, champion, earlier_versions),
        tries=tries_of(earlier_versions) + 1,
        champion=champion,
        by_champion=np.array([decision in its_own for decision in judged.decision_id], dtype=np.bool_),
        learned=learned,
        training=learned.matured(),
        judged=judged,
        baselines=baselines,
        daily=daily,
        shown=shown,
        believed_of=believed_of,
    )


def fit(plan: Plan) -> RewardModel:
    """Step 2, with how counts age: how late outcomes are, and how fast contents change; and with what marketers' choices
    imply, which weighs less the more outcomes there are."""
    delays = fit_delays(plan.learned, plan.definition)
    outcomes = foresee(plan.learned, delays, plan.definition)
    believed = learned_too(outcomes, plan.shown, plan.believed_of)
    model = widened(fit_model(believed.training, plan.definition.model), believed.share)
    return replace(model, aging=Aging(half_life(plan.daily), delays))


def calibrate(plan: Plan, model: RewardModel) -> Sealed:
    """Step 3. Slope and intercept were fitted out of fold; here they meet decisions the model never saw. Their counts
    are what it starts with once it serves."""
    judged = plan.judged
    error = None
    if len(judged):
        promised = model.rows(judged.contexts, [judged.contents[index] for index in judged.content])
        error, _ = reliability(promised, judged.reward, np.ones(len(judged)))
        model = replace(model, memory=remember(judged, promised, plan.definition.reward))
    bundle = bundles.pack(model, cutoff=plan.cutoff, configuration=plan.config_digest)
    return Sealed(model, bundle, bundles.digest(bundle), error)


def config_digest(definition: LoopDefinition) -> str:
    """SHA-256 of what is learned and how: the same means that a new version is a refresh."""
    learned = {"metrics", "refund_horizon", "reward", "default_reward", "model", "no_send"}
    document = definition.model_dump(mode="json", include=learned)
    return hashlib.sha256(canonical_json([document, policy_version(definition.policy)])).hexdigest()


def _split(definition: LoopDefinition, whole: TrainingSet, now: int) -> tuple[int, npt.NDArray[np.bool_]]:
    """The cutoff, and which rows are trained on; the rest is judged on."""
    if definition.gate.split == "unit":
        return now, unit_folds(whole, GATE_FOLDS) != 0
    cutoff = definition.cutoff(now)
    return cutoff, whole.decided_at < cutoff


def _made_by(connection: Connection, loop_id: str, champion: registry.Champion | None) -> set[str]:
    if champion is None:
        return set()
    c = tables.decisions.c
    return set(
        connection.scalars(select(c.decision_id).where(c.loop_id == loop_id, c.model_version == champion.version))
    )


def _baselines(connection: Connection, loop_id: str) -> dict[str, dict[str, Any]]:
    c = tables.campaigns.c
    rows = connection.execute(select(c.campaign_id, c.baseline).where(c.loop_id == loop_id))
    return {row.campaign_id: row.baseline for row in rows}


def kind_of(digest: str, champion: registry.Champion | None, versions: Sequence[registry.Version]) -> registry.Kind:
    """``first`` without a champion, ``refresh`` of a champion with the same configuration, else ``change``."""
    if champion is None:
        return "first"
    serving = next(version for version in versions if version.version == champion.version)
    return "refresh" if serving.config_digest == digest else "change"


def tries_of(versions: Sequence[registry.Version]) -> int:
    """How many changes were judged since the last change that was promoted. ``versions``: oldest first."""
    tries = 0
    for version in versions:
        if version.kind != "refresh" and version.state in JUDGED:
            tries = 0 if version.state == "promoted" else tries + 1
    return tries


def evaluate(bench: Bench, plan: Plan, sealed: Sealed) -> Evaluation:
    """Step 4. Nuisance models are fitted on earlier decisions of other units; with a split by unit the model's own are.
    A log that is not healthy is not evaluated."""
    if not len(plan.judged):
        return Evaluation(None, {}, None, "no decision with a known probability has matured after the cutoff.")
    if (unfit := _unfit(bench, plan)) is not None:
        return Evaluation(None, {}, None, unfit, unfit)
    q_models = (
        [(np.ones(len(plan.judged), dtype=np.bool_), sealed.model)]
        if plan.definition.gate.split == "unit"
        else nuisance(plan.training, plan.judged, plan.definition)
    )
    champion = _incumbent(bench, plan)
    rules = plan.definition
    trial = hold(plan.judged, plan.baselines, sealed.model, rules.policy, q_models, champion, rules.limits)
    evidence = trial.logged("challenger", "running" if plan.champion else "baseline")
    try:
        return Evaluation(evidence, trial.values(), difference(evidence, floor=floor_of(plan.definition)), "")
    except EstimateRefused as error:
        return Evaluation(evidence, trial.values(), None, str(error))


def _unfit(bench: Bench, plan: Plan) -> str | None:
    """Why the log after the cutoff (with a split by unit: all of it) cannot be believed; None: it can."""
    since = None if plan.definition.gate.split == "unit" else plan.cutoff
    with reading(bench.engine) as connection:
        return examine(connection, plan.definition, as_of=plan.as_of, now=plan.now, since=since).refused


def _incumbent(bench: Bench, plan: Plan) -> Incumbent | None:
    """The champion; None without one, if it made all decisions, or if its files are refused: then what was stored is
    what ran."""
    if plan.champion is None or plan.by_champion.all():
        return None
    folder = registry.path_of(bench.settings.bundles, plan.loop_id, plan.champion.version)
    with reading(bench.engine) as connection:
        judged_under = load_version(connection, plan.loop_id, plan.champion.loop_version)
    settings = in_force(judged_under.policy, plan.definition.policy)
    try:
        model = registry.load_verified(folder, plan.champion.digest)
        with reading(bench.engine) as connection:
            model = registry.with_vectors(connection, model, plan.loop_id, plan.champion.version)
        return Incumbent(model, settings, plan.by_champion)
    except ModelRefused as error:
        log.warning("the champion cannot be loaded", loop=plan.loop_id, reason=str(error))
        return None


def floor_of(definition: LoopDefinition) -> Floor:
    """The least evidence of a loop's gate."""
    return Floor(definition.gate.min_units, definition.gate.min_effective)


def register(bench: Bench, plan: Plan, sealed: Sealed, evaluation: Evaluation) -> str:
    """Step 5. The same bundle again is the same version. The row comes first: files without a row belong to nobody."""
    _keep_papers(bench, plan, sealed, evaluation)
    with writing(bench.engine) as connection:
        check(connection, plan.lease)
        known = {version.digest: version.version for version in _versions(connection, plan.loop_id)}
        version = known.get(sealed.digest) or registry.next_version(connection, plan.loop_id)
        registry.register(
            connection,
            plan.loop_id,
            version,
            digest=sealed.digest,
            config_digest=plan.config_digest,
            loop_version=plan.training.loop_version,
            as_of=plan.as_of,
            cutoff=plan.cutoff,
            kind=plan.kind,
            now=plan.now,
        )
    bundles.write(sealed.bundle, registry.path_of(bench.settings.bundles, plan.loop_id, version))
    mirror(bench.settings, bench.engine, bench.tracking, plan.loop_id)
    return version


def gate(bench: Bench, plan: Plan, version: str, evaluation: Evaluation) -> None:
    """Step 6. A version is judged once: what was taken up after its verdict keeps it. Guardrails may veto."""
    with reading(bench.engine) as connection:
        watched = guarding.watched(connection, plan.definition, plan.now)
    expected = guarding.of_challenger(plan.definition, plan.judged, evaluation.evidence, floor_of(plan.definition))
    guards = (*watched, *expected)
    judged = judge(evaluation.evidence, plan.definition.gate, plan.kind, plan.tries, evaluation.unfit)
    verdict = vetoed(judged, guards)
    report = asdict(verdict) | {"champion": plan.serving, "judged": len(plan.judged)}
    report["guardrails"] = [asdict(guard) for guard in guards]
    with writing(bench.engine) as connection:
        check(connection, plan.lease)
        guarding.fall_back(connection, plan.definition, watched, plan.now)
        if registry.version_of(connection, plan.loop_id, version).state == "registered":
            registry.settle(connection, plan.loop_id, version, verdict.state, report)
    mirror(bench.settings, bench.engine, bench.tracking, plan.loop_id)


def promote(bench: Bench, plan: Plan, version: str) -> None:
    """Step 7. Nothing happens unless the version passed, and was approved where the loop asks for that."""
    _promote(bench, plan.lease, plan.definition, version, plan.now)
    mirror(bench.settings, bench.engine, bench.tracking, plan.loop_id)


def approve(bench: Bench, loop_id: str, version: str | None, actor: str) -> Outcome:
    """A person's yes: promote the version that passed last, or a named one; an earlier champion is the way back."""
    with lease(bench.engine, f"retrain:{loop_id}") as held, writing(bench.engine) as connection:
        check(connection, held)
        load_loop(connection, loop_id)
        chosen = version or _newest_passed(connection, loop_id)
        now = bench.clock()
        champion = registry.champion(connection, loop_id)
        registry.approve(connection, loop_id, chosen, actor, "approved", now)
        _check_files(bench, registry.version_of(connection, loop_id, chosen))
        registry.promote(connection, loop_id, chosen, champion.revision if champion else 0, now, actor)
    mirror(bench.settings, bench.engine, bench.tracking, loop_id)
    return outcome_of(bench, loop_id, chosen)


def outcome_of(bench: Bench, loop_id: str, version: str) -> Outcome:
    """How things stand with a version, from the database and its papers."""
    with reading(bench.engine) as connection:
        stored = registry.version_of(connection, loop_id, version)
        champion = registry.champion(connection, loop_id)
    serving = champion.version if champion else None
    record = record_of(bench.settings, stored, serving)
    return Outcome(
        loop_id=loop_id,
        version=version,
        kind=stored.kind,
        state=stored.state,
        sentence=(stored.gate or {}).get("sentence", ""),
        champion=serving,
        description=record.description if record else "",
        metrics=dict(record.figures) if record else {},
    )


def _keep_papers(bench: Bench, plan: Plan, sealed: Sealed, evaluation: Evaluation) -> None:
    about = (plan.definition, plan.training, plan.judged, sealed.model)
    metrics = papers.figures(*about, sealed.later_error, evaluation)
    parameters = papers.parameters_of(plan.definition, format_time(plan.cutoff), format_time(plan.now))
    report = papers.report(*about, metrics, evaluation, parameters, plan.kind, plan.serving)
    keep(bench.settings, sealed.digest, report, papers.pictures(*about, evaluation))


def _waiting(plan: Plan, reason: str) -> Outcome:
    return Outcome(
        loop_id=plan.loop_id, version=None, kind=plan.kind, state="waiting", sentence=reason, champion=plan.serving
    )


def _finish(bench: Bench, loop_id: str, held: Lease, now: int) -> None:
    """Promote the newest version if it passed against what still serves: a run died before it could."""
    with reading(bench.engine) as connection:
        definition, _ = load_loop(connection, loop_id)
        versions = _versions(connection, loop_id)
    if versions and versions[-1].state == "passed":
        _promote(bench, held, definition, versions[-1].version, now)


def _promote(bench: Bench, held: Lease, definition: LoopDefinition, version: str, now: int) -> None:
    """One transaction: the lease, the champion that was judged against, the digest, then the swap."""
    with writing(bench.engine) as connection:
        check(connection, held)
        stored = registry.version_of(connection, definition.loop, version)
        champion = registry.champion(connection, definition.loop)
        serving = champion.version if champion else None
        against = (stored.gate or {}).get("champion")
        if stored.state != "passed" or against != serving or (definition.gate.approval and not stored.approved):
            return
        _check_files(bench, stored)
        revision = champion.revision if champion else registry.NO_CHAMPION
        registry.promote(connection, definition.loop, version, revision, now, "retrain")


def _check_files(bench: Bench, stored: registry.Version) -> None:
    """What is promoted is what was gated. Raises :class:`ModelRefused` when the files are others."""
    folder = registry.path_of(bench.settings.bundles, stored.loop_id, stored.version)
    if bundles.digest(bundles.read(folder)) != stored.digest:
        raise ModelRefused(f"The files in {folder} are not those that were judged; move the folder away and retrain")


def _newest_passed(connection: Connection, loop_id: str) -> str:
    passed = [version.version for version in _versions(connection, loop_id) if version.state == "passed"]
    if not passed:
        raise BadInput(f"Loop {loop_id!r} has no version that passed the gate and waits; name one that served before")
    return passed[-1]


def _versions(connection: Connection, loop_id: str) -> list[registry.Version]:
    """Oldest first, by number: on a simulated clock several may have one time."""
    return sorted(registry.versions(connection, loop_id), key=lambda each: int(each.version.rsplit("-", 1)[1]))
