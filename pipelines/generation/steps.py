"""The generate flow's steps: brief → prompts → generations → guardrails → scores → approval → campaign.

1. read      the brief, the loop's rules, what earlier copy earned, customers of late, the model that serves
2. order     which prompts write how much: the prompt policy over what their copy earned; winners and losers as examples
3. write     generations, within the budget
4. check     guardrails; copy that the campaign knows is left out; how near the rest is to brief and prompt (``nearness.py``)
5. score     the best of N by the reward model, guarded (``best_of.py``); where it knows nothing, any that pass, by lot
6. register  everything with its verdicts: what is kept is approved or waits, by the loop's approval; the rest is rejected
             and says why. A draft campaign with approved copy starts
7. rate      what is kept, by a judge where one is configured, with what is left of the budget (``rating.py``)
8. mirror    the run and its prompts, to MLflow

Plain functions; ``generate`` is the table of contents, the Prefect flow gives it a ``run``. Nothing is stored before
step 6, which is one transaction; a run that dies before it has cost money and changed nothing. A run repeated after
step 6 writes other copy: it is asked for again.
"""

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Connection, Row, select

from infra import tables
from infra.database import reading, writing
from infra.errors import BadInput, ModelRefused, Unavailable
from infra.logs import log
from infra.settings import Settings
from ingestion.contents import add_contents, admit, judge, read_campaign, start_campaign
from ingestion.copy.guardrails import Verdict, passed, text_of
from ingestion.events import Content
from ingestion.loops import LoopDefinition, PolicySettings, load_loop
from pipelines.generation.best_of import Guard, Kept, Weighed, keep, weigh
from pipelines.generation.budget import Budget
from pipelines.generation.endpoint import endpoint_of
from pipelines.generation.generators import Draft, Generator, Order, Written
from pipelines.generation.language_model import LanguageModel
from pipelines.generation.nearness import measured
from pipelines.generation.outcome import KeptCopy, Made, PromptShare, Wish
from pipelines.generation.past import Past, allot, losers, past_of, prompt_shares, winners
from pipelines.generation.prompts import HOUSE, Prompt, newest, put_prompt
from pipelines.generation.purse import purse
from pipelines.generation.rating import Judge, judge_of, store_ratings
from pipelines.generation.telling import mirror
from pipelines.generation.templated import TemplateGenerator
from pipelines.learning import Bench, Run, call
from reward_models import registry
from reward_models.boosted import RewardModel
from reward_models.embeddings import embedder_of
from reward_models.support import Support, fit_support

ACTOR = "generate"
CUSTOMERS = 200
"""Contexts of the newest decisions that copy is scored for."""
MOST = 500
"""Drafts in one run."""
PROMPTS = PolicySettings(kind="posterior", damping=1.0, floor=0.01, uniform_slice=0.1)
"""How prompts are chosen: Thompson sampling, and a tenth of the drafts by any of them."""


@dataclass(frozen=True)
class Brief:
    """What step 1 read."""

    wish: Wish
    seed: int
    definition: LoopDefinition
    campaign: Row[Any]
    prompts: tuple[Prompt, ...]
    past: Sequence[Past]
    contexts: Sequence[Mapping[str, Any]]
    model: RewardModel | None
    model_version: str | None
    support: Support | None


@dataclass(frozen=True)
class Plan:
    """What step 2 ordered. ``shares``: of each prompt of the brief."""

    orders: tuple[Order, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Checked:
    """A draft that the campaign did not know, as its content, with its verdicts."""

    draft: Draft
    content: Content
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Scored:
    """What step 5 decided: places among the checked drafts that passed. ``weighed``: None without a model."""

    kept: tuple[Kept, ...]
    weighed: Weighed | None


def generate(
    bench: Bench, wish: Wish, generator: Generator | None = None, run: Run = call, judge: Judge | None = None
) -> Made:
    """The whole of it. Raises :class:`BadInput` for a wish that cannot be, :class:`Conflict` where the loop has spent its
    month, :class:`Unavailable` when nobody writes."""
    with purse(bench.engine, bench.settings, loop_of(bench, wish.campaign_id), bench.clock) as budget:
        writer, rater = generator or generator_of(bench.settings, budget), judge or judge_of(bench.settings, budget)
        brief = run(read, bench, wish)
        plan = run(order, brief)
        written = run(write, writer, plan)
        checked = run(check, bench, brief, written)
        scored = run(score, brief, checked)
        made = run(register, bench, brief, plan, writer.name, written, checked, scored)
        if rater is not None and made.kept:
            made = run(rate, bench, brief, made, checked, rater)
    run(mirror, bench, made, tuple(one.prompt for one in plan.orders))
    return made


def loop_of(bench: Bench, campaign_id: str) -> str:
    """The loop of a campaign. Raises :class:`NotFound`."""
    with reading(bench.engine) as connection:
        return str(read_campaign(connection, campaign_id).loop_id)


def generator_of(settings: Settings, budget: Budget) -> Generator:
    """The language model of the settings, within the run's budget; without one, templates."""
    endpoint = endpoint_of(settings)
    return TemplateGenerator() if endpoint is None else LanguageModel(endpoint, budget)


def read(bench: Bench, wish: Wish) -> Brief:
    """Step 1. An installation without prompts gets those of the house."""
    _check(wish)
    with writing(bench.engine) as connection:
        if not newest(connection):
            for one in HOUSE:
                put_prompt(connection, one.prompt_id, one.template, one.strategy, one.parameters, bench.clock(), ACTOR)
    with reading(bench.engine) as connection:
        campaign = read_campaign(connection, wish.campaign_id)
        definition, _ = load_loop(connection, campaign.loop_id)
        champion = registry.champion(connection, campaign.loop_id)
        past, contexts = past_of(connection, definition), _contexts(connection, campaign.loop_id)
        prompts = _asked_for(newest(connection), wish.prompts)
    if campaign.state == "ended":
        raise BadInput(f"Campaign {wish.campaign_id!r} has ended and takes no more copy; register a new one")
    model = None if champion is None else _model(bench, campaign.loop_id, champion)
    return Brief(
        wish=wish,
        seed=secrets.randbelow(2**31) if wish.seed is None else wish.seed,
        definition=definition,
        campaign=campaign,
        prompts=prompts,
        past=past,
        contexts=contexts or ({},),
        model=model,
        model_version=champion.version if champion and model else None,
        support=None if model is None else fit_support([text_of(one.content) for one in past]),
    )


def order(brief: Brief) -> Plan:
    """Step 2."""
    wish, rng = brief.wish, np.random.default_rng(brief.seed)
    shares = prompt_shares(brief.past, brief.prompts, PROMPTS)
    counts = allot(shares, wish.count * wish.candidates, rng)
    won, lost = winners(brief.past, wish.examples), losers(brief.past, wish.examples)
    orders = tuple(
        Order(
            prompt=prompt,
            count=count,
            seed=int(rng.integers(2**31)),
            brief=brief.campaign.brief,
            channel=brief.campaign.channel,
            slots=wish.slots,
            locale=wish.locale,
            rules=brief.definition.copy_rules,
            winners=won,
            losers=lost,
        )
        for prompt, count in zip(brief.prompts, counts, strict=True)
        if count
    )
    return Plan(orders, tuple(shares.tolist()))


def write(generator: Generator, plan: Plan) -> Written:
    """Step 3. Raises :class:`Unavailable` where the generator did not answer at all."""
    written = generator.write(plan.orders)
    for reason in written.failures:
        log.warning("copy_not_written", generator=generator.name, reason=reason)
    if not written.drafts and written.away:
        raise Unavailable(f"The generator {generator.name} does not answer: {'; '.join(written.failures[:3])}")
    return written


def check(bench: Bench, brief: Brief, written: Written) -> list[Checked]:
    """Step 4. Each copy once."""
    new: dict[str, tuple[Draft, Content]] = {}
    for draft in written.drafts:
        content = draft.content(brief.campaign.campaign_id)
        new.setdefault(content.fingerprint, (draft, content))
    with reading(bench.engine) as connection:
        known = _fingerprints(connection, brief.campaign.campaign_id)
        drafts = [pair for print_, pair in new.items() if print_ not in known]
        limit, now = bench.settings.text_limit_bytes, bench.clock()
        admitted = [
            admit(brief.definition, brief.campaign.campaign_id, content, limit, now)
            for _, content in drafts
            if max(len(text.encode()) for text in content.slots.values()) <= limit
        ]
        judged = judge(connection, brief.definition, brief.campaign, admitted)
    by_print = {content.fingerprint: draft for draft, content in drafts}
    prompts = [by_print[content.fingerprint].prompt for content, _ in judged]
    past = [text_of(one.content) for one in brief.past]
    contents = measured(
        [content for content, _ in judged], prompts, brief.campaign.brief, past, embedder_of(bench.settings)
    )
    verdicts = [verdicts for _, verdicts in judged]
    return [Checked(by_print[one.fingerprint], one, said) for one, said in zip(contents, verdicts, strict=True)]


def score(brief: Brief, checked: Sequence[Checked]) -> Scored:
    """Step 5. Only copy that passed is looked at. Of copy that is all too unlike what results are known of, as in the first
    campaign about something new, the model knows nothing: then the lot decides, too."""
    good = [one.content for one in checked if passed(one.verdicts)]
    some = np.random.default_rng(brief.seed).permutation(len(good))[: brief.wish.count]
    by_lot = tuple(Kept(int(place), "best") for place in some)
    if brief.model is None or not good:
        return Scored(by_lot, None)
    guard = Guard()
    weighed = weigh(brief.model, brief.support, good, brief.contexts, guard)
    known = [text_of(one.content) for one in brief.past]
    return Scored(tuple(keep(weighed, brief.wish.count, known, guard)) or by_lot, weighed)


def register(
    bench: Bench,
    brief: Brief,
    plan: Plan,
    generator: str,
    written: Written,
    checked: Sequence[Checked],
    scored: Scored,
) -> Made:
    """Step 6, one transaction."""
    good = [one for one in checked if passed(one.verdicts)]
    why = {kept.place: kept.why for kept in scored.kept}
    said = {one.content.fingerprint: [_not_looked_at(one)] for one in checked if not passed(one.verdicts)}
    said |= {one.content.fingerprint: [_word(scored, place, why.get(place))] for place, one in enumerate(good)}
    now = bench.clock()
    with writing(bench.engine) as connection:
        limit = bench.settings.text_limit_bytes
        contents = [one.content for one in checked]
        answers = add_contents(connection, brief.campaign.campaign_id, contents, limit, now, said)
        approval = {answer.content_id: answer.approval for answer in answers}
        state = read_campaign(connection, brief.campaign.campaign_id).state
        if state == "draft" and "approved" in approval.values():
            start_campaign(connection, brief.campaign.campaign_id, None, ACTOR, now)
    kept = tuple(_kept(good[one.place], one, scored.weighed, approval) for one in scored.kept)
    waiting = sum(one.approval == "draft" for one in kept)
    return Made(
        loop_id=brief.definition.loop,
        campaign_id=brief.campaign.campaign_id,
        state="nothing" if not kept else "waiting" if waiting else "approved",
        sentence=_sentence(brief, written, checked, good, kept, waiting),
        ordered=sum(one.count for one in plan.orders),
        written=len(written.drafts),
        known=len(written.drafts) - len(checked),
        passed=len(good),
        kept=kept,
        broken=dict(Counter(verdict.rule for one in checked for verdict in one.verdicts if not verdict.passed)),
        prompts=_prompt_shares(brief, plan, written, good, scored),
        examples=sum(len(one.winners) + len(one.losers) for one in plan.orders[:1]),
        model_version=brief.model_version,
        generator=generator,
        tokens=written.tokens,
        micros=written.micros,
        currency=written.currency,
        failures=written.failures,
    )


def rate(bench: Bench, brief: Brief, made: Made, checked: Sequence[Checked], judge: Judge) -> Made:
    """Step 7: evidence for or against a judge, and a start for new copy once the judge was right elsewhere. A judge that does
    not answer, or cannot be paid, stops nothing."""
    kept = {one.content_id for one in made.kept}
    contents = [one.content for one in checked if one.content.content_id in kept]
    answers = judge.rate(brief.campaign.brief, contents)
    with writing(bench.engine) as connection:
        store_ratings(connection, made.loop_id, judge.name, contents, answers, bench.clock())
    failures = dict.fromkeys(f"not rated: {one.reason}" for one in answers if one.state != "answered")
    return msgspec.structs.replace(
        made,
        rated=sum(one.state == "answered" for one in answers),
        tokens=made.tokens + sum(one.tokens.total for one in answers),
        micros=made.micros + sum(one.micros for one in answers),
        currency=judge.budget.price.currency,
        failures=(*made.failures, *failures),
    )


def _check(wish: Wish) -> None:
    if wish.count < 1 or wish.candidates < 1 or wish.count * wish.candidates > MOST:
        raise BadInput(
            f"{wish.count} contents out of {wish.candidates} drafts each are {wish.count * wish.candidates} drafts; a run "
            f"writes 1 to {MOST}"
        )
    if not wish.slots or len(set(wish.slots)) < len(wish.slots):
        raise BadInput("Name at least one slot, and each slot once")


def _asked_for(prompts: Sequence[Prompt], names: Sequence[str]) -> tuple[Prompt, ...]:
    known = {prompt.prompt_id: prompt for prompt in prompts}
    if unknown := [name for name in names if name not in known]:
        raise BadInput(f"No prompt {unknown[0]!r}; there are {', '.join(sorted(known))}")
    return tuple(known[name] for name in names) if names else tuple(prompts)


def _model(bench: Bench, loop_id: str, champion: registry.Champion) -> RewardModel | None:
    """The model that serves; None, with a warning, where its files are refused."""
    try:
        return registry.load_verified(
            registry.path_of(bench.settings.bundles, loop_id, champion.version), champion.digest
        )
    except ModelRefused as error:
        log.warning("copy_is_not_scored", loop=loop_id, reason=str(error))
        return None


def _contexts(connection: Connection, loop_id: str) -> list[Mapping[str, Any]]:
    c = tables.decisions.c
    query = select(c.context).where(c.loop_id == loop_id).order_by(c.decided_at.desc(), c.decision_id).limit(CUSTOMERS)
    return list(connection.scalars(query))


def _fingerprints(connection: Connection, campaign_id: str) -> set[str]:
    c = tables.contents.c
    return set(connection.scalars(select(c.fingerprint).where(c.campaign_id == campaign_id)))


def _not_looked_at(one: Checked) -> Verdict:
    broken = ", ".join(verdict.rule for verdict in one.verdicts if not verdict.passed)
    return Verdict("best_of", False, f"not looked at: it breaks {broken}")


def _word(scored: Scored, place: int, why: str | None) -> Verdict:
    """What best-of-N says of a draft that passed the rules."""
    if scored.weighed is None:
        told = "no model has been promoted yet: kept by lot" if why else "not kept by lot; no model compares them yet"
        return Verdict("best_of", why is not None, told)
    low, distance = float(scored.weighed.low[place]), float(scored.weighed.distance[place])
    if why and distance > scored.weighed.limit:
        return Verdict(
            "best_of", True, f"kept by lot: all are too unlike known copy to compare; distance {distance:.2f}"
        )
    if why == "unlike":
        return Verdict("best_of", True, f"kept for being unlike the others; lower bound {low:.4g}")
    if why == "best":
        return Verdict("best_of", True, f"lower bound {low:.4g}, distance {distance:.2f}")
    if distance > scored.weighed.limit:
        limit = scored.weighed.limit
        return Verdict(
            "best_of", False, f"too unlike the copy that results are known of: distance {distance:.2f} of {limit:.2f}"
        )
    return Verdict("best_of", False, f"others promise more; lower bound {low:.4g}")


def _kept(one: Checked, kept: Kept, weighed: Weighed | None, approval: Mapping[str, str]) -> KeptCopy:
    return KeptCopy(
        content_id=one.content.content_id,
        text=text_of(one.content),
        prompt=one.draft.prompt.name,
        approval=approval.get(one.content.content_id, one.content.approval),
        why=kept.why,
        expected=None if weighed is None else float(weighed.expected[kept.place]),
        low=None if weighed is None else float(weighed.low[kept.place]),
    )


def _prompt_shares(
    brief: Brief, plan: Plan, written: Written, good: Sequence[Checked], scored: Scored
) -> tuple[PromptShare, ...]:
    wrote = Counter(draft.prompt.name for draft in written.drafts)
    passing = Counter(one.draft.prompt.name for one in good)
    keeping = Counter(good[one.place].draft.prompt.name for one in scored.kept)
    return tuple(
        PromptShare(
            name=prompt.name,
            probability=share,
            written=wrote[prompt.name],
            passed=passing[prompt.name],
            kept=keeping[prompt.name],
        )
        for prompt, share in zip(brief.prompts, plan.shares, strict=True)
    )


def _sentence(
    brief: Brief,
    written: Written,
    checked: Sequence[Checked],
    good: Sequence[Checked],
    kept: Sequence[KeptCopy],
    waiting: int,
) -> str:
    """What happened, for people."""
    if not written.drafts:
        return f"Nothing was written: {'; '.join(written.failures[:3]) or 'nothing was ordered'}."
    known = len(written.drafts) - len(checked)
    told = f"{len(written.drafts)} drafts"
    told += f", {known} of them known already" if known else ""
    told += f"; {len(good)} pass the rules, {len(kept)} are kept"
    told += "" if brief.model else " without a model to compare them"
    if not kept:
        return f"{told}: nothing was added to campaign {brief.campaign.campaign_id}."
    if waiting:
        return f"{told}; {waiting} wait for approval."
    return f"{told} and approved by the loop's rule."
