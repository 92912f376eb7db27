"""What the pages show: plain values for the templates, from rows and scores.

Texts are escaped by the templates; numbers become words here.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from infra import tables
from ingestion.contents import read_campaign
from ingestion.copy.slots import as_read
from ingestion.results import Result, campaign_results
from reward_models.serving.bodies import Reason, Score
from reward_models.serving.snapshot import Loop

MOST_CAMPAIGNS = 50
"""Newest campaigns of a loop that are listed."""
MOST_CONTENTS = 200
MOST_REASONS = 3
"""Reasons that are told of a line."""


def loops_view(connection: Connection, loops: Mapping[str, Loop]) -> list[dict[str, Any]]:
    """Loops with their newest campaigns."""
    return [
        {
            "name": name,
            "state": _state(loop),
            "about": _about(loop),
            "campaigns": _campaigns(connection, name),
        }
        for name, loop in sorted(loops.items())
    ]


def scores_view(texts: Sequence[str], scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Lines, the best first and equals with equal ranks, with the places of bar and point on a common scale of 0 to 100."""
    low, high = min(one.low for one in scores), max(one.high for one in scores)
    reach = (high - low) or 1.0
    return [
        {
            "rank": 1 + sum(other.expected > one.expected for other in scores),
            "text": texts[one.index],
            "expected": amount(one.expected),
            "low": amount(one.low),
            "high": amount(one.high),
            "from": round(100 * (one.low - low) / reach, 1),
            "width": round(100 * (one.high - one.low) / reach, 1),
            "at": round(98 * (one.expected - low) / reach, 1),
            "why": why(one.reasons or ()),
        }
        for one in sorted(scores, key=lambda one: one.rank)
    ]


def campaign_view(connection: Connection, campaign_id: str) -> dict[str, Any]:
    """A campaign's copy with shares and results so far. Raises :class:`NotFound`."""
    campaign = read_campaign(connection, campaign_id)
    results = campaign_results(connection, campaign_id)
    metrics = sorted({result.metric for result in results})
    by_content = _by_content(results)
    shown = {content: max(one.exposures for one in rows) for content, rows in by_content.items()}
    most = sorted(shown, key=lambda content: (-shown[content], content))[:MOST_CONTENTS]
    rows = _contents(connection, campaign_id, most)
    contents = [_content(row, shown, metrics, by_content.get(row.content_id, ())) for row in rows]
    return {
        "campaign": campaign_id,
        "loop": campaign.loop_id,
        "state": campaign.state,
        "brief": campaign.brief,
        "metrics": metrics,
        "most": MOST_CONTENTS,
        "contents": sorted(contents, key=lambda content: (-content["times"], content["id"])),
    }


def why(reasons: Iterable[Reason]) -> str:
    """What in a line moves its score most: what is the same for all lines is left out."""
    own = [one for one in reasons if one.kind in ("factor", "wording")]
    strongest = sorted(own, key=lambda one: -abs(one.effect))[:MOST_REASONS]
    told = ((one.what, amount(abs(one.effect)), "+" if one.effect > 0 else "−") for one in strongest)
    return "; ".join(f"{what} {sign}{size}" for what, size, sign in told)


def amount(value: float) -> str:
    """A reward per 1,000, in three significant digits or whole thousands."""
    thousandfold = 1_000 * value
    return f"{thousandfold:,.0f}" if abs(thousandfold) >= 100 else f"{thousandfold:,.3g}"


def _state(loop: Loop) -> str:
    if loop.killed:
        return "switched to its baseline"
    return f"model {loop.served.version}" if loop.served else "no model yet"


def _about(loop: Loop) -> str:
    weights = ", ".join(f"{weight:g} × {metric}" for metric, weight in loop.definition.reward.items())
    held = f"{loop.definition.holdout:.0%} of customers always get the baseline"
    return f"Earns {weights}; {held}."


def _campaigns(connection: Connection, loop_id: str) -> list[dict[str, Any]]:
    c = tables.campaigns.c
    query = select(c.campaign_id, c.state, c.channel).where(c.loop_id == loop_id)
    rows = connection.execute(query.order_by(c.created_at.desc(), c.campaign_id).limit(MOST_CAMPAIGNS))
    return [{"id": row.campaign_id, "about": ", ".join(filter(None, (row.state, row.channel)))} for row in rows]


def _contents(connection: Connection, campaign_id: str, most: Sequence[str]) -> list[Any]:
    """The contents that were shown most; where there is room, others too."""
    c = tables.contents.c
    query = select(c.content_id, c.slots, c.approval).where(c.campaign_id == campaign_id)
    seen = connection.execute(query.where(c.content_id.in_(most))).all()
    rest = query.where(c.content_id.not_in(most)).order_by(c.content_id).limit(MOST_CONTENTS - len(seen))
    return [*seen, *connection.execute(rest)]


def _by_content(results: Iterable[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.content_id, []).append(result)
    return found


def _content(row: Any, shown: Mapping[str, int], metrics: Sequence[str], results: Iterable[Result]) -> dict[str, Any]:
    times = shown.get(row.content_id, 0)
    share = times / max(1, sum(shown.values()))
    means = {one.metric: one.total / one.exposures for one in results}
    return {
        "id": row.content_id,
        "slots": as_read(row.slots),
        "approval": row.approval,
        "times": times,
        "shown": f"{times:,}",
        "share": f"{share:.0%}",
        "width": round(100 * share, 1),
        "numbers": [amount(means[metric]) if metric in means else "–" for metric in metrics],
    }
