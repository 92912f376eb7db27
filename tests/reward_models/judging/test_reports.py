"""A judge against the simulator's customers, whose taste is known: found out from logged decisions, by segment and group."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from ingestion.events import Content
from pipelines.simulator import World, draw_customers, true_values
from pipelines.templates import write_drafts
from reward_models.dataset import TrainingSet
from reward_models.judging.ratings import Rating
from reward_models.judging.reports import judged
from tests.reward_models.training import training_set

CAMPAIGNS, EACH, DECISIONS = 10, 8, 20_000
WORLD = World(bots=0.0)


def lines() -> tuple[list[Content], np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Lines of ten campaigns, and the mean click rate of each."""
    contents = [
        Content(
            content_id=f"c{number}-{place}",
            campaign_id=f"c{number}",
            slots={"subject": draft.subject},
            features=dict(draft.factors),
            generator=f"g{place % 2}",
        )
        for number in range(CAMPAIGNS)
        for place, draft in enumerate(write_drafts("wool", EACH, seed=number))
    ]
    customers = draw_customers(WORLD, np.random.default_rng(0), 300)
    return contents, true_values(WORLD, customers, [one.features for one in contents]).click.mean(axis=0)


CONTENTS, RATE = lines()
RELATIVE = RATE / np.repeat(RATE.reshape(CAMPAIGNS, EACH).mean(axis=1), EACH) - 1
"""What each line is truly worth, relative to its campaign."""


def log_of(seed: int) -> TrainingSet:
    """Decisions by lot within campaigns, with clicks."""
    rng = np.random.default_rng(seed)
    customers = draw_customers(WORLD, rng, DECISIONS)
    content = rng.integers(0, len(CONTENTS), DECISIONS)
    click = true_values(WORLD, customers, [one.features for one in CONTENTS]).click[np.arange(DECISIONS), content]
    found = training_set(
        CONTENTS,
        content=content.tolist(),
        contexts=[customer.context for customer in customers],
        reward=(rng.random(DECISIONS) < click).astype(float).tolist(),
    )
    return replace(found, propensity=np.full(DECISIONS, 1 / EACH))


LOG = log_of(1)


def ratings(sign: float) -> dict[str, Rating]:
    """By a judge who knows what lines are worth, more or less, or says the contrary."""
    rng = np.random.default_rng(2)
    said = 3 + sign * 0.7 * np.log(RATE / RATE.mean()) / np.log(RATE).std() + 0.7 * rng.standard_normal(len(RATE))
    return {
        content.content_id: Rating(float(value), place)
        for place, (content, value) in enumerate(zip(CONTENTS, said, strict=True))
    }


@pytest.mark.parametrize(("sign", "state"), [(1.0, "trusted"), (-1.0, "misleading")])
def test_a_planted_judge_is_found_out(sign: float, state: str) -> None:
    """From 20,000 decisions on 80 lines a judge who knows is trusted, and one who says the contrary misleads and has no
    weight, for every tier of customers that shows it."""
    report = judged(LOG, ratings(sign), segment="tier")

    assert report.agreement.state == state
    assert (report.agreement.weight > 0.3) == (sign > 0)
    assert set(report.segments) == {"new", "regular", "gold"}
    assert state in {found.state for found in report.segments.values()}
    assert (report.curve[-1].reward > report.curve[0].reward) == (sign > 0)


def test_contents_of_one_campaign_are_one_observation() -> None:
    """Groups that lie across campaigns have intervals of campaigns, which hold the truth; a group that lies in two campaigns has
    none, however much copy it has there, unless it is the campaign that is asked about."""
    contents, shares = {one.content_id: one for one in CONTENTS}, []
    for seed in range(2, 7):
        report = judged(log_of(seed), ratings(1.0), contents=contents, group_of=lambda content: content.generator)
        for place, name in enumerate(("g0", "g1")):
            low, high = report.groups[name].interval
            shares.append(low <= RELATIVE[place::2].mean() <= high)
    assert sum(shares) >= 8

    few = judged(LOG, ratings(1.0), contents=contents, group_of=lambda content: content.campaign_id)
    each = judged(LOG, ratings(1.0), contents=contents, group_of=lambda content: content.campaign_id, across=False)
    assert few.groups == {}
    assert set(each.groups) == {one.campaign_id for one in CONTENTS}


def test_groups_use_copy_that_was_only_rated() -> None:
    """Where contents are the observations: what each generator's copy earns comes with an interval; copy that nobody was shown but the judge has rated
    narrows it, and a group with too few outcomes has none."""
    unseen = [msgspec.structs.replace(one, content_id=f"{one.content_id}-new") for one in CONTENTS for _ in range(4)]
    unseen = [msgspec.structs.replace(one, content_id=f"{one.content_id}-{n}") for n, one in enumerate(unseen)]
    given = ratings(1.0)
    extra = {one.content_id: given[one.content_id.rsplit("-", 2)[0]] for one in unseen}
    rare = msgspec.structs.replace(CONTENTS[0], content_id="rare", generator="rare")
    contents = {one.content_id: one for one in (*CONTENTS, *unseen, rare)}
    every = given | extra | {"rare": Rating(3.0, 0)}
    report = judged(LOG, every, contents=contents, group_of=lambda content: content.generator, across=False)

    assert set(report.groups) == {"g0", "g1"}
    assert min(found.saved for found in report.groups.values()) > 0.05
    for place, name in enumerate(("g0", "g1")):
        low, high = report.groups[name].interval
        assert low <= RELATIVE[place::2].mean() <= high
