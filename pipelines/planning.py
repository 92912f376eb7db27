"""Sends planned ahead, and the best content of a campaign that ends: what `plan` and `best` do and print.

``plan --emails N``: 1 the newest contexts stand for the customers, 2 score and pmf in each, averaged, 3 the size of the
test (``reward_models/sends.py``). ``best``: ``reward_models/best_arm.py``, by day.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from infra import tables
from infra.database import reading, writing
from infra.errors import BadInput
from ingestion.contents import read_campaign, set_approval
from ingestion.loops import load_loop
from pipelines.commands.workspace import Workspace, out, print_json, print_table, progress
from reward_models import limits, policies
from reward_models.best_arm import Verdict, identify, load_days
from reward_models.sends import Plan, plan
from reward_models.serving.campaigns import Campaign
from reward_models.serving.ranker import Request, eligible, score, sends
from reward_models.serving.snapshot import Loop, Snapshot, Snapshots

Floats = npt.NDArray[np.float64]

CUSTOMERS = 500
"""Newest decisions whose contexts stand for those of the send."""


@dataclass(frozen=True)
class Outlook:
    """What is known of a campaign's contents before a send, averaged over contexts; shape (K,) each.

    ``noise``: variance of one decision's reward.
    """

    content_ids: tuple[str, ...]
    mean: Floats
    sd: Floats
    shares: Floats
    noise: float


def plan_shares(workspace: Workspace, campaign: str, emails: int, as_json: bool) -> None:
    """Print how many e-mails to send as a test, in which shares, before the rest."""
    with progress() as bar:
        bar.add_task(f"planning {emails:,} e-mails of {campaign}", total=None)
        known = outlook(workspace, campaign)
        planned = plan(known.mean, known.sd, known.shares, known.noise, emails)
    if as_json:
        print_json(_plan_document(campaign, emails, known, planned))
    else:
        _print_plan(campaign, emails, known, planned)


def outlook(workspace: Workspace, campaign_id: str) -> Outlook:
    """Scores and shares of the campaign's eligible contents as of now, averaged over the newest contexts.

    Raises :class:`BadInput` when neither counts nor a model tell how much one reward varies.
    """
    snapshot, loop, campaign = _running(workspace, campaign_id)
    with reading(workspace.engine) as connection:
        contexts = _contexts(connection, loop.definition.loop, campaign_id, workspace.clock())
    request = Request(
        decision_id="", request_digest="", loop_id=loop.definition.loop, campaign_id=campaign_id, decided_at=0
    )
    sent = sends(snapshot, loop.definition, campaign)
    contents, _ = eligible(loop.definition, campaign, request, workspace.settings.candidate_limit, sent)
    ids = [content.content_id for content in contents]
    bounds = limits.bounds(limits.stored(loop.definition.limits, ids), ids)
    scores = [score(snapshot, loop, campaign, contents, context) for context in contexts]
    shares = [policies.pmf(loop.policy, one.mean, one.sd, bounds) for one in scores]
    return Outlook(
        tuple(ids),
        np.mean([one.mean for one in scores], axis=0),
        np.asarray(scores[0].sd),
        np.mean(shares, axis=0),
        _noise(workspace, loop, campaign, ids),
    )


def best(workspace: Workspace, campaign_id: str, error: float, tolerance: float, retire: bool, as_json: bool) -> None:
    """Print which content is the best, and whether that is certain enough to stop; ``retire``: the beaten ones.

    tolerance: relative to the leader's mean reward.
    """
    with reading(workspace.engine) as connection:
        definition, _ = load_loop(connection, read_campaign(connection, campaign_id).loop_id)
        ids = _approved(connection, campaign_id)
        days = load_days(connection, campaign_id, ids, definition.reward)
    level = abs(float(identify(days, error).mean.max())) if days else 0.0
    verdict = identify(days, error, tolerance * level)
    if retire:
        with writing(workspace.engine) as connection:
            for name in _beaten(ids, verdict):
                reason = f"beaten by {ids[verdict.leader]} (error {error:g}, tolerance {tolerance:g})"
                set_approval(connection, name, "retired", "best", reason, workspace.clock())
    if as_json:
        print_json(_best_document(campaign_id, ids, verdict, retire))
    else:
        _print_best(campaign_id, ids, verdict, error, retire)


def _running(workspace: Workspace, campaign_id: str) -> tuple[Snapshot, Loop, Campaign]:
    """What a server knows of the campaign at this moment."""
    with reading(workspace.engine) as connection:
        state = read_campaign(connection, campaign_id).state
    if state != "running":
        raise BadInput(f"Campaign {campaign_id!r} does not run ({state}); only a running campaign is sent")
    snapshots = Snapshots(workspace.engine, workspace.settings.bundles)
    snapshots.refresh()
    snapshot = snapshots.with_layer_of(snapshots.listen(), campaign_id)
    campaign = snapshot.campaigns[campaign_id]
    return snapshot, snapshot.loops[campaign.loop_id], campaign


def _contexts(connection: Connection, loop_id: str, campaign_id: str, now: int) -> list[Mapping[str, Any]]:
    """Contexts of the newest decisions of the campaign, else of its loop, else one that says nothing."""
    c = tables.decisions.c
    newest = select(c.context).where(c.loop_id == loop_id, c.decided_at <= now).order_by(c.decided_at.desc())
    own = connection.scalars(newest.where(c.campaign_id == campaign_id).limit(CUSTOMERS)).all()
    return list(own or connection.scalars(newest.limit(CUSTOMERS)).all() or [{}])


def _noise(workspace: Workspace, loop: Loop, campaign: Campaign, ids: Sequence[str]) -> float:
    """Variance of one decision's reward: from the campaign's counts, else from the model's dispersion."""
    with reading(workspace.engine) as connection:
        days = load_days(connection, campaign.campaign_id, ids, loop.definition.reward)
    n = float(sum(day.exposures.sum() for day in days))
    total, squares = (float(sum(getattr(day, name).sum() for day in days)) for name in ("sums", "sum_squares"))
    if n > 1.0 and squares * n > total**2:
        return (squares - total**2 / n) / (n - 1.0)
    if loop.served is not None:
        levels = loop.served.model.levels
        return float(levels.dispersion * levels.of([campaign.campaign_id])[1][0])
    raise BadInput(
        f"Nothing is known yet of rewards in campaign {campaign.campaign_id!r}: no outcome was counted and its loop has "
        "no model. Send a first part by /v1/rank, or import past results and train"
    )


def _plan_document(campaign: str, emails: int, known: Outlook, planned: Plan) -> dict[str, Any]:
    contents = [
        {"content_id": name, "share": share, "test": int(test), "mean": mean, "sd": sd}
        for name, share, test, mean, sd in zip(
            known.content_ids, known.shares.tolist(), planned.test, known.mean.tolist(), known.sd.tolist(), strict=True
        )
    ]
    value = {"plan": planned.value, "at_once": planned.at_once, "even": planned.even}
    return {
        "campaign": campaign,
        "emails": emails,
        "test": int(planned.test.sum()),
        "rest": planned.rest,
        "value": value,
        "contents": contents,
    }


def _print_plan(campaign: str, emails: int, known: Outlook, planned: Plan) -> None:
    rows = [
        (name, f"{mean:.5g} ± {sd:.2g}", f"{share:.1%}", f"{test:,}")
        for name, mean, sd, share, test in zip(
            known.content_ids, known.mean, known.sd, known.shares, planned.test.tolist(), strict=True
        )
    ]
    print_table(f"{emails:,} e-mails of {campaign}", ["content", "reward", "share", "test"], rows, [1, 2, 3])
    test = int(planned.test.sum())
    first = (
        f"Send {test:,} as a test, wait for the outcomes, then the other {planned.rest:,}" if test else "Send all now"
    )
    out().print(
        f"{first}: {planned.value:.5g} per e-mail expected; all to the leader now {planned.at_once:.5g}, "
        f"an even split {planned.even:.5g}.",
        highlight=False,
        soft_wrap=True,
    )


def _approved(connection: Connection, campaign_id: str) -> list[str]:
    c = tables.contents.c
    query = select(c.content_id).where(c.campaign_id == campaign_id, c.approval == "approved").order_by(c.content_id)
    return list(connection.scalars(query))


def _beaten(ids: Sequence[str], verdict: Verdict) -> list[str]:
    return [name for name, beaten in zip(ids, verdict.beaten, strict=True) if beaten]


def _best_document(campaign: str, ids: Sequence[str], verdict: Verdict, retired: bool) -> dict[str, Any]:
    contents = [
        {
            "content_id": name,
            "exposures": int(verdict.exposures[index]),
            "mean": float(verdict.mean[index]),
            "behind": float(verdict.gap[index]),
            "reach": None if np.isinf(verdict.reach[index]) else float(verdict.reach[index]),
            "beaten": bool(verdict.beaten[index]),
        }
        for index, name in enumerate(ids)
    ]
    return {
        "campaign": campaign,
        "leader": ids[verdict.leader],
        "winner": None if verdict.winner is None else ids[verdict.winner],
        "retired": _beaten(ids, verdict) if retired else [],
        "contents": contents,
    }


def _print_best(campaign: str, ids: Sequence[str], verdict: Verdict, error: float, retired: bool) -> None:
    rows = [
        (
            name,
            f"{int(verdict.exposures[index]):,}",
            f"{verdict.mean[index]:.5g}",
            "leader" if index == verdict.leader else f"{verdict.gap[index]:.5g} ± {verdict.reach[index]:.2g}",
            "beaten" if verdict.beaten[index] else "",
        )
        for index, name in enumerate(ids)
    ]
    print_table(f"Contents of {campaign}", ["content", "shown", "reward", "behind", ""], rows, [1, 2, 3])
    found = f"{ids[verdict.leader]} is the best (error at most {error:.0%}): stop exploring"
    sentence = found if verdict.winner is not None else "It is not certain yet which content is the best; go on"
    gone = f" Retired: {', '.join(_beaten(ids, verdict)) or 'none'}." if retired else ""
    out().print(f"{sentence}.{gone}", highlight=False, markup=False, soft_wrap=True)
