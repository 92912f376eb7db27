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
"""Contents on one page of a campaign."""
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


def campaign_view(connection: Connection, campaign_id: str, part: int = 1) -> dict[str, Any]:
    """A part of a campaign's copy with shares and results so far, what was shown most first. Raises :class:`NotFound`.

    part: 1, 2 …, each of ``MOST_CONTENTS`` contents; past the end it is the last.
    """
    campaign = read_campaign(connection, campaign_id)
    results = campaign_results(connection, campaign_id)
    metrics = sorted({result.metric for result in results})
    by_content = _by_content(results)
    shown = {content: max(one.exposures for one in rows) for content, rows in by_content.items()}
    ids = sorted(_ids(connection, campaign_id), key=lambda content: (-shown.get(content, 0), content))
    part = min(part, max(1, -(-len(ids) // MOST_CONTENTS)))
    first = MOST_CONTENTS * (part - 1)
    own = ids[first : first + MOST_CONTENTS]
    rows, total = _contents(connection, own), max(1, sum(shown.values()))
    return {
        "campaign": campaign_id,
        "loop": campaign.loop_id,
        "state": campaign.state,
        "brief": campaign.brief,
        "metrics": metrics,
        "first": first + 1,
        "last": first + len(own),
        "count": len(ids),
        "before": part - 1,
        "after": part + 1 if first + len(own) < len(ids) else 0,
        "contents": [
            _content(rows[name], shown.get(name, 0), total, metrics, by_content.get(name, ())) for name in own
        ],
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


def _ids(connection: Connection, campaign_id: str) -> list[str]:
    c = tables.contents.c
    return list(connection.scalars(select(c.content_id).where(c.campaign_id == campaign_id)))


def _contents(connection: Connection, ids: Sequence[str]) -> dict[str, Any]:
    c = tables.contents.c
    found = connection.execute(select(c.content_id, c.slots, c.approval).where(c.content_id.in_(ids)))
    return {row.content_id: row for row in found}


def _by_content(results: Iterable[Result]) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.content_id, []).append(result)
    return found


def _content(row: Any, times: int, total: int, metrics: Sequence[str], results: Iterable[Result]) -> dict[str, Any]:
    share = times / total
    means = {one.metric: one.total / one.exposures for one in results}
    return {
        "slots": as_read(row.slots),
        "approval": row.approval,
        "shown": f"{times:,}",
        "share": f"{share:.0%}",
        "width": round(100 * share, 1),
        "numbers": [amount(means[metric]) if metric in means else "–" for metric in metrics],
    }
