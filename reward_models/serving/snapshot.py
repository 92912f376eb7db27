"""What the ranker knows: one immutable snapshot of loops, switches, models, copy and statistics.

A request reads the snapshot once and uses nothing else. A refresh builds the next one from what changed and swaps it
in by one assignment:

1. look: one cheap query over counts, newest versions and the newest batch; nothing changed, nothing done
2. loops and switches, campaigns and contents, content statistics: each read again if its part changed; of the
   suppressed customers those that changed
3. contexts: of the campaign that moved most, what its newest decisions say (``recent.py``); what people and judges think is
   looked for apart from all this, now and then (``listen``)
4. swap: switches and copy hold from here on, whatever the models do
5. models: a new champion is verified in a sacrificial process, which may take its time, and warmed up; then the second
   swap. Refused, the last good one keeps serving

A refused version is tried again after ``RETRY_SECONDS``: its file may have been put right. Who asks for what the
snapshot does not know has it looked for (``seek``); many who ask at once share a look.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, Integer, cast, func, select

from infra import tables, telemetry
from infra.database import reading
from infra.errors import RewardloopError, Unavailable
from infra.logs import log
from ingestion.events import NO_SEND, Content
from ingestion.loops import LoopDefinition, PolicySettings, load_loops, load_version
from ingestion.people.suppressions import changed_since, newest_change
from ingestion.switches import killed_loops
from reward_models import registry
from reward_models.aging import AGELESS
from reward_models.boosted import Encoded, RewardModel, join
from reward_models.contextual import Contextual
from reward_models.opinions import SILENCE, Opinions
from reward_models.policies import in_force, policy_version
from reward_models.posterior import Effects, Prior, content_effects
from reward_models.priors import prior_of
from reward_models.serving.campaigns import Campaign, load_campaign, load_campaigns
from reward_models.serving.hearing import Heard, hear_again
from reward_models.serving.recent import Layer, Looks, exposures_of, load_layer, most_moved
from reward_models.serving.suppressed import Suppressed
from reward_models.statistics import NOTHING, Counts, Statistics, arm_counts, newer_counts

RETRY_SECONDS = 30.0
SEEK_SECONDS = 0.05
"""Least time between two looks for what is not known: a flood of wrong names must not be a flood of queries."""
AWAY_SECONDS = 1.0
"""How long a database that did not answer is not asked again for what is not known."""
WARM_CONTENTS = 2_000
"""Most contents that are encoded before a model serves, so that its first requests do not wait for it."""
LATE_ENTRIES = 10_000
"""Newest entries of the audit that are counted: one with a lower number than another may be stored after it."""
EARLIER = 4
"""Most earlier models kept for replays."""

OPEN_BASELINE: Mapping[str, Any] = {"content_ids": (), "weights": ()}
"""The baseline of a campaign that has none of its own: uniform over the candidates."""


MOST_SETS = 256
"""Sets of candidates that are kept as they are scored."""

_Name = tuple[str, str]
"""Campaign and content."""


@dataclass(frozen=True)
class Served:
    """A verified model. Contents are encoded once and kept, because neither they nor the model change."""

    version: str
    model: RewardModel
    definition: LoopDefinition
    """What it was judged under: what is served is what was gated (invariant 16)."""
    _known: dict[_Name, Encoded] = field(default_factory=dict, repr=False, compare=False)
    _together: dict[tuple[_Name, ...], Encoded] = field(default_factory=dict, repr=False, compare=False)

    def encode(self, contents: Sequence[Content]) -> Encoded:
        """The content part of a score, for registered contents; candidates that come again and again are kept."""
        names = tuple(map(_name, contents))
        found = self._together.get(names)
        if found is None:
            found = self._encoded(contents, names)
            if len(self._together) >= MOST_SETS:
                self._together.clear()
            self._together[names] = found
        return found

    def _encoded(self, contents: Sequence[Content], names: Sequence[_Name]) -> Encoded:
        new = [content for content, name in zip(contents, names, strict=True) if name not in self._known]
        if new:
            prepared = self.model.prepare(new)
            self._known.update({_name(content): prepared.take([place]) for place, content in enumerate(new)})
        return join([self._known[name] for name in names])


@dataclass(frozen=True)
class Loop:
    """A loop as it is served. ``champion`` without ``served``: no usable model, answer the baseline."""

    definition: LoopDefinition
    version: int
    killed: bool = False
    champion: str | None = None
    served: Served | None = None
    fault: str | None = None
    """Why the champion is not the one served."""

    @property
    def model_version(self) -> str:
        """Of the model served; empty for none."""
        return "" if self.served is None else self.served.version

    @property
    def rules(self) -> LoopDefinition:
        """What the model served was judged under: its reward is what it predicts; before the first, the definition."""
        return self.definition if self.served is None else self.served.definition

    @cached_property
    def policy(self) -> PolicySettings:
        """Of the version served; before the first, of the definition."""
        own = self.definition.policy
        return own if self.served is None else in_force(self.served.definition.policy, own)

    @cached_property
    def policy_version(self) -> str:
        """Of the policy."""
        return policy_version(self.policy)

    @property
    def fallback(self) -> str | None:
        """Why the loop answers its baseline, null when it chooses."""
        if self.killed:
            return "the loop was killed"
        if self.champion is not None and self.served is None:
            return self.fault or f"model {self.champion} is not loaded"
        return None


@dataclass(frozen=True)
class Standing:
    """Observed against expected for every content of a campaign: ``index`` of each content in the arrays."""

    index: Mapping[str, int]
    effects: Effects
    contextual: Contextual | None = None


class Mark(NamedTuple):
    """What the database looked like: equal marks, equal contents."""

    loops: tuple[Any, ...] = ()
    copy: tuple[Any, ...] = ()
    models: tuple[Any, ...] = ()
    batch_no: int = -1
    batch_at: int = 0
    """When the newest batch was applied: the time that statistics are looked at."""
    listed: int = 0
    """Number of the last change of the list of the suppressed."""


@dataclass(frozen=True)
class Snapshot:
    """Everything the ranker reads."""

    loops: Mapping[str, Loop] = field(default_factory=dict)
    campaigns: Mapping[str, Campaign] = field(default_factory=dict)
    counts: Counts = NOTHING
    mark: Mark = field(default_factory=Mark)
    layers: Mapping[str, Layer] = field(default_factory=dict)
    """What contexts say, by campaign."""
    suppressed: Suppressed = field(default_factory=Suppressed)
    """Who must not be sent anything."""
    heard: Mapping[str, Heard] = field(default_factory=dict)
    """What people and judges think, by loop."""
    lineups: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)
    """What the ranker keeps of campaigns (``ranker.Lineup``); another snapshot begins anew."""
    _standings: dict[str, Standing] = field(default_factory=dict, repr=False, compare=False)

    @property
    def statistics(self) -> Statistics:
        """Rows of ``content_stats`` by campaign and model version."""
        return self.counts.statistics

    @property
    def stats_version(self) -> int:
        """``batch_no`` of the statistics."""
        return max(self.mark.batch_no, 0)

    def standing(self, loop: Loop, campaign: Campaign) -> Standing:
        """The campaign's posterior, computed once per snapshot."""
        found = self._standings.get(campaign.campaign_id)
        if found is None:
            found = _standing(
                self.statistics,
                loop,
                campaign,
                self.mark.batch_at,
                self._contextual(loop, campaign),
                self._opinions(loop),
            )
            self._standings[campaign.campaign_id] = found
        return found

    def _contextual(self, loop: Loop, campaign: Campaign) -> Contextual | None:
        """Of the decisions of the model that serves now; those of another say nothing of what it leaves unexplained."""
        layer = self.layers.get(campaign.campaign_id)
        return layer.known if layer is not None and layer.version == loop.model_version else None

    def _opinions(self, loop: Loop) -> Opinions:
        heard = self.heard.get(loop.definition.loop)
        return SILENCE if heard is None else heard.opinions

    def with_campaign(self, campaign: Campaign) -> "Snapshot":
        """This snapshot with a campaign as it is now; what is known of others stays."""
        standings = self._standings.copy()
        standings.pop(campaign.campaign_id, None)
        return replace(self, campaigns={**self.campaigns, campaign.campaign_id: campaign}, _standings=standings)

    def with_drafts(self, loop: Loop, campaign: Campaign, drafts: Sequence[Content]) -> "Snapshot":
        """This snapshot as if the drafts were registered; nothing of it is remembered."""
        contents = {content.content_id: content for content in (*campaign.contents.values(), *drafts)}
        state = "running" if loop.definition.approval == "automatic" and campaign.state == "draft" else campaign.state
        joined = replace(campaign, contents=dict(sorted(contents.items())), state=state)
        served = None if loop.served is None else replace(loop.served, _known={}, _together={})
        return replace(
            self,
            loops={**self.loops, loop.definition.loop: replace(loop, served=served)},
            campaigns={**self.campaigns, campaign.campaign_id: joined},
            _standings={},
        )


class Refusal(NamedTuple):
    """A model version that did not pass, and when to try it again (machine's monotonic seconds)."""

    version: str
    reason: str
    retry_at: float


class Snapshots:
    """The holder of the current snapshot. ``refresh`` from any thread; readers take ``current`` and keep it."""

    def __init__(self, engine: Engine, bundles: Path) -> None:
        self.engine = engine
        self.bundles = bundles
        self.current = Snapshot()
        self.loaded = False
        """Whether the database was ever read."""
        self.fault: str | None = None
        """Why the last refresh failed; null when it did not."""
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._seeking = threading.Lock()
        self._sought_at = -float("inf")
        self._champions: Mapping[str, tuple[registry.Champion, LoopDefinition]] = {}
        """Of the newest look, each with the definition it was judged under."""
        self._refused: dict[str, Refusal] = {}
        self._earlier: dict[str, RewardModel] = {}
        self._looks = Looks()

    def refresh(self) -> Snapshot:
        """Look for changes and swap in what is new, models too. Raises ``Unavailable`` when the database is away."""
        self.look()
        with self._loading:
            for name, (champion, judged) in self._champions.items():
                if name in self.current.loops and self._must_load(self.current.loops[name], champion):
                    self._load(name, champion, judged)
        return self.current

    def seek(self) -> Snapshot:
        """A snapshot that is at least as new as this call, without waiting for models.

        Raises ``Unavailable`` when the database is away.
        """
        asked_at = time.monotonic()
        with self._seeking:
            now = time.monotonic()
            if self.fault is not None and now < self._sought_at + AWAY_SECONDS:
                raise Unavailable(self.fault)
            if self._sought_at < asked_at:
                time.sleep(max(0.0, self._sought_at + SEEK_SECONDS - now))
                self._sought_at = time.monotonic()
                self.look()
        return self.current

    def look(self) -> None:
        """Look for changes and swap in what is new, but for models that are not loaded yet: those wait for
        :meth:`refresh`. Raises ``Unavailable`` when the database is away."""
        with self._lock:
            try:
                self.current = self._next(self.current)
            except RewardloopError as error:
                self.fault = str(error)
                raise
            self.loaded, self.fault = True, None
            telemetry.refreshed_at.set_to_current_time()

    def look_at(self, campaign_id: str) -> None:
        """Read one campaign and its copy again, whatever else there is. Raises ``Unavailable`` when the database is
        away."""
        with self._lock:
            with reading(self.engine) as connection:
                campaign = load_campaign(connection, campaign_id)
            if campaign is not None:
                self.current = self.current.with_campaign(campaign)

    def listen(self) -> Snapshot:
        """Look for what people and judges think, and swap it in; slow where much was said. Raises ``Unavailable`` when the
        database is away."""
        current = self.current
        running = {one.campaign_id: one.loop_id for one in current.campaigns.values() if one.state == "running"}
        rules = {name: loop.rules for name, loop in current.loops.items()}
        with reading(self.engine) as connection:
            heard = hear_again(connection, rules, running, current.stats_version, current.heard)
        if heard != current.heard:
            with self._lock:
                self.current = replace(self.current, heard=heard, _standings={})
        return self.current

    def model(self, connection: Connection, loop_id: str, version: str) -> RewardModel:
        """Any version of a loop's model: the one in memory, else verified from disk.

        Raises :class:`ModelRefused` when its files do not pass, :class:`NotFound` for an unknown version.
        """
        loop = self.current.loops.get(loop_id)
        if loop is not None and loop.served is not None and loop.served.version == version:
            return loop.served.model
        digest = registry.version_of(connection, loop_id, version).digest
        if digest not in self._earlier:
            if len(self._earlier) >= EARLIER:
                self._earlier.clear()
            model = registry.load_verified(registry.path_of(self.bundles, loop_id, version), digest)
            self._earlier[digest] = registry.with_vectors(connection, model, loop_id, version)
        return self._earlier[digest]

    def _next(self, old: Snapshot) -> Snapshot:
        with reading(self.engine) as connection:
            mark = _look(connection)
            if mark == old.mark:
                return old
            definitions = load_loops(connection)
            killed = killed_loops(connection)
            champions = registry.champions(connection)
            judged = {name: load_version(connection, name, one.loop_version) for name, one in champions.items()}
            campaigns = load_campaigns(connection, old.campaigns) if mark.copy != old.mark.copy else old.campaigns
            counts = newer_counts(connection, old.counts)
            suppressed = old.suppressed
            for changed in changed_since(connection, old.mark.listed) if mark.listed != old.mark.listed else ():
                suppressed = suppressed.changed(changed)
        self._champions = {name: (champion, judged[name]) for name, champion in champions.items()}
        loops = {
            name: self._with_model(Loop(definition, version, name in killed), champions.get(name), old.loops.get(name))
            for name, (definition, version) in definitions.items()
        }
        new = Snapshot(loops, campaigns, counts, mark, old.layers, suppressed, old.heard)
        return self._with_layer(new) if self._looks.due() else new

    def with_layer_of(self, snapshot: Snapshot, campaign_id: str) -> Snapshot:
        """The snapshot with this campaign's layer of contexts fitted from its decisions as they are now."""
        campaign = snapshot.campaigns[campaign_id]
        loop = snapshot.loops[campaign.loop_id]
        if not loop.rules.model.contexts or not campaign.contents:
            return snapshot
        model = None if loop.served is None else loop.served.model
        contents = [*campaign.contents.values(), no_send(campaign_id)]
        exposures = exposures_of(snapshot.statistics.get(campaign_id, {}).get(loop.model_version, ()))
        with reading(self.engine) as connection:
            layer = load_layer(connection, loop.rules, model, loop.model_version, contents, exposures)
        return replace(snapshot, layers={**snapshot.layers, campaign_id: layer}, _standings={})

    def _with_layer(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot with one layer fitted again, if the counts of a campaign have moved."""
        versions = {
            name: snapshot.loops[one.loop_id].model_version
            for name, one in snapshot.campaigns.items()
            if one.state == "running"
            and one.loop_id in snapshot.loops
            and snapshot.loops[one.loop_id].rules.model.contexts
        }
        moved = most_moved(snapshot.statistics, versions, snapshot.layers)
        if moved is None:
            return snapshot
        self._looks.looked()
        return self.with_layer_of(snapshot, moved)

    def _with_model(self, loop: Loop, champion: registry.Champion | None, before: Loop | None) -> Loop:
        """The loop with the model that is loaded; one that must be loaded first changes nothing yet."""
        if champion is None:
            return loop
        name, before = loop.definition.loop, before or loop
        refusal = self._refused.get(name)
        if before.served is not None and before.served.version == champion.version:
            self._refused.pop(name, None)
            return replace(loop, champion=champion.version, served=before.served)
        if refusal is not None and refusal.version == champion.version:
            return replace(loop, champion=champion.version, served=before.served, fault=refusal.reason)
        return replace(loop, champion=before.champion, served=before.served, fault=before.fault)

    def _must_load(self, loop: Loop, champion: registry.Champion) -> bool:
        if loop.served is not None and loop.served.version == champion.version:
            return False
        refusal = self._refused.get(loop.definition.loop)
        return refusal is None or refusal.version != champion.version or time.monotonic() >= refusal.retry_at

    def _load(self, name: str, champion: registry.Champion, judged: LoopDefinition) -> None:
        try:
            model = registry.load_verified(registry.path_of(self.bundles, name, champion.version), champion.digest)
            with reading(self.engine) as connection:
                model = registry.with_vectors(connection, model, name, champion.version)
        except RewardloopError as error:
            telemetry.model_load_failures.labels(type(error).__name__).inc()
            log.error("model_refused", loop=name, version=champion.version, reason=str(error))
            refusal = Refusal(champion.version, str(error), time.monotonic() + RETRY_SECONDS)
            self._refused[name] = refusal
            self._swap(name, champion, {"fault": refusal.reason})
            return
        self._refused.pop(name, None)
        served = Served(champion.version, model, judged)
        warm(self.current, name, served)
        last_good = self.current.loops[name].served
        if not self._swap(name, champion, {"served": served, "fault": None}):
            return
        if last_good is not None:
            telemetry.model_info.remove(name, last_good.version)
        telemetry.model_info.labels(name, champion.version).set(1)
        telemetry.model_slow.labels(name).set(model.trees is None)
        log.info("model_loaded", loop=name, version=champion.version, fast=model.trees is not None)

    def _swap(self, name: str, champion: registry.Champion, changes: Mapping[str, Any]) -> bool:
        """Let the loop serve, or say why it does not; False: another champion was seen meanwhile."""
        with self._lock:
            if self._champions[name][0] != champion:
                return False
            loop = replace(self.current.loops[name], champion=champion.version, **changes)
            self.current = replace(self.current, loops={**self.current.loops, name: loop}, _standings={})
            return True


def warm(snapshot: Snapshot, loop_id: str, served: Served) -> None:
    """Encode what running campaigns of the loop will be asked for, before the model is asked."""
    left = WARM_CONTENTS
    for campaign in snapshot.campaigns.values():
        if campaign.loop_id != loop_id or campaign.state != "running":
            continue
        contents = [content for content in campaign.contents.values() if content.approval == "approved"]
        if served.definition.no_send and contents:
            contents = sorted([*contents, no_send(campaign.campaign_id)], key=lambda content: content.content_id)
        if not contents or len(contents) > left:
            continue
        left -= len(contents)
        encoded = served.encode(contents)
        served.model.score({}, encoded)


def _name(content: Content) -> _Name:
    """What tells a content from all others: ``no_send`` is in every campaign, each with its own level."""
    return content.campaign_id, content.content_id


def no_send(campaign_id: str) -> Content:
    """The reserved content that sends nothing, as a candidate of this campaign."""
    return Content(content_id=NO_SEND, campaign_id=campaign_id, slots={}, approval="approved")


def _look(connection: Connection) -> Mark:
    """Counts and newest versions: every change moves one of them. Approvals and states move the audit."""
    loops, switches, audit = tables.loops.c, tables.loop_switches.c, tables.audit.c
    killed = func.sum(cast(switches.killed, Integer))
    batches = tables.batches.c
    newest = connection.execute(select(batches.batch_no, batches.at).order_by(batches.batch_no.desc()).limit(1)).first()
    newest_entry = connection.scalar(select(func.coalesce(func.max(audit.id), 0))) or 0
    return Mark(
        loops=(
            connection.scalar(select(func.count(loops.version))),
            *connection.execute(select(func.count(), killed, func.max(switches.changed_at))).one(),
        ),
        copy=(
            connection.scalar(select(func.count(tables.contents.c.content_id))),
            connection.scalar(select(func.count(tables.campaigns.c.campaign_id))),
            newest_entry,
            connection.scalar(select(func.count()).where(audit.id > newest_entry - LATE_ENTRIES)),
        ),
        models=tuple(connection.execute(select(func.count(), func.sum(tables.champions.c.revision))).one()),
        batch_no=newest.batch_no if newest else 0,
        batch_at=newest.at if newest else 0,
        listed=newest_change(connection),
    )


def _standing(
    statistics: Statistics,
    loop: Loop,
    campaign: Campaign,
    now: int,
    contextual: Contextual | None,
    opinions: Opinions,
) -> Standing:
    """Observed against expected, from the decisions that the served model made and those it was judged on: those of
    others would count twice.

    The reward is the one it predicts. If a metric of that was changed since, counts and predictions are of different
    things: then the prediction stands alone.
    """
    ids = sorted({*campaign.contents, NO_SEND})
    rules = loop.rules
    counts = statistics.get(campaign.campaign_id, {}).get(loop.model_version, ())
    rows = counts if all(rules.metric(name) in loop.definition.metrics for name in rules.reward) else ()
    prior = Prior(0.0) if loop.served is None else prior_of(loop.served.model, campaign.campaign_id)
    prior = replace(prior, said=opinions.of(campaign.campaign_id, ids))
    aging = AGELESS if loop.served is None else loop.served.model.aging
    seen = arm_counts(rows, ids, rules.reward, aging, now)
    if contextual is not None:
        seen = replace(seen, expected=seen.expected + seen.exposures * contextual.usual_of(ids))
    if loop.served is not None:
        seen = seen + loop.served.model.memory.counts(campaign.campaign_id, ids, aging.at(now))
    return Standing(
        {content_id: index for index, content_id in enumerate(ids)}, content_effects(seen, prior), contextual
    )
