"""What people and judges think, as the server hears it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, insert

from infra import tables
from infra.database import writing
from ingestion.contents import add_contents, put_campaign, start_campaign
from ingestion.events import Campaign, Content
from ingestion.loops import put_loop
from reward_models.serving.ranker import score
from reward_models.serving.snapshot import Snapshots
from tests.reward_models.serving.worlds import definition

CAMPAIGNS, EACH, SHOWN = 8, 6, 4_000
NEW = "k7"
"""The campaign that nobody was shown yet."""


def fill(engine: Engine, side: float) -> None:
    """Campaigns of contents whose click rates rise with the judge's rating, ``side`` 1, or fall with it, -1."""
    rng, stats, said = np.random.default_rng(5), list[dict[str, Any]](), list[dict[str, Any]]()
    with writing(engine) as connection:
        put_loop(connection, definition(approval="automatic"), 1)
        for campaign in (f"k{number}" for number in range(CAMPAIGNS)):
            put_campaign(connection, Campaign(campaign_id=campaign, loop_id="mail"))
            names = [f"{campaign}-{place}" for place in range(EACH)]
            copy = [Content(content_id=name, campaign_id=campaign, slots={"subject": name}) for name in names]
            add_contents(connection, campaign, copy, 20_000, 1)
            start_campaign(connection, campaign, None, "ann", 1)
            for name, rating in zip(names, rng.permutation(EACH).tolist(), strict=True):
                clicks = int(rng.binomial(SHOWN, 0.05 * np.exp(side * 0.1 * (rating - 2.5))))
                said.append(
                    {"feedback_id": f"f-{name}", "kind": "rating", "source": "LLM_JUDGE", "loop_id": "mail"}
                    | {"content_id": name, "value": {"rating": rating, "judge": "copy"}, "created_at": 1}
                )
                stats.append(
                    {
                        "campaign_id": campaign,
                        "content_id": name,
                        "metric": "click",
                        "model_version": "",
                        "bucket": 20_000,
                    }
                    | {"exposures": SHOWN, "successes": clicks, "sum": clicks * 10**6, "sum_squares": clicks * 10**8}
                    | {"expected": 0}
                )
        connection.execute(insert(tables.content_stats), [row for row in stats if row["campaign_id"] != NEW])
        connection.execute(insert(tables.feedback), said)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_a_judge_that_was_right_moves_new_copy(any_engine: Engine, tmp_path: Path, side: float) -> None:
    """Starts of a campaign without decisions go with the ratings where those foretold other campaigns, else they are 0;
    what was heard stays as it is until something moves."""
    fill(any_engine, side)
    snapshots = Snapshots(any_engine, tmp_path)
    snapshots.refresh()
    before = snapshots.listen()
    known = before.heard["mail"].opinions

    assert known.agreements["copy"].state == ("trusted" if side > 0 else "misleading")
    starts, ratings = (
        known.of(NEW, [f"{NEW}-{place}" for place in range(EACH)]),
        np.array([before.heard["mail"].said["copy"][f"{NEW}-{place}"].rating for place in range(EACH)]),
    )
    if side > 0:
        np.testing.assert_array_equal(np.argsort(starts), np.argsort(ratings))
    else:
        np.testing.assert_array_equal(starts, 0.0)
    assert snapshots.listen() is before


def test_a_start_is_in_the_score_once_rewards_have_a_size(any_engine: Engine, tmp_path: Path) -> None:
    """With one click known the best rated content is ahead of those that nobody clicked; a new opinion is heard."""
    fill(any_engine, 1.0)
    row = {"campaign_id": NEW, "content_id": f"{NEW}-0", "metric": "click", "model_version": "", "bucket": 20_000}
    numbers = {"exposures": 20, "successes": 1, "sum": 10**6, "sum_squares": 10**8, "expected": 0}
    with writing(any_engine) as connection:
        connection.execute(insert(tables.content_stats), row | numbers)
    snapshots = Snapshots(any_engine, tmp_path)
    snapshots.refresh()
    first = snapshots.listen()
    campaign, said = first.campaigns[NEW], first.heard["mail"].said["copy"]
    rest = [one for name, one in campaign.contents.items() if name != f"{NEW}-0"]
    means = score(first, first.loops["mail"], campaign, rest, {}).mean
    ratings = np.array([said[one.content_id].rating for one in rest])

    np.testing.assert_array_equal(np.argsort(means), np.argsort(ratings))
    with writing(any_engine) as connection:
        more = {"feedback_id": "g", "kind": "rating", "source": "LLM_JUDGE", "loop_id": "mail", "created_at": 2}
        value = {"rating": 90.0, "judge": "copy"}
        connection.execute(insert(tables.feedback), more | {"content_id": rest[0].content_id, "value": value})
    assert snapshots.listen().heard["mail"].said["copy"][rest[0].content_id].rating > 40
