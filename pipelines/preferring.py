"""``preferences import | report | evaluate``: what people prefer, kept, weighed and predicted.

read_file(path, columns) -> bodies of feedback         a CSV of pairs, ratings or rankings
report_of(connection, definition) -> Report            agreement, reliability, people beside money
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from infra import tables
from infra.database import reading
from infra.errors import BadInput, EstimateRefused
from ingestion.http.bodies import FeedbackBody
from ingestion.loops import LoopDefinition, load_loop
from pipelines.commands.workspace import Workspace, out, print_json, print_table, printable, progress
from pipelines.feedback_files import import_rows, read_rows
from reward_models.opinions import Opinions, in_words, load_opinions, load_said
from reward_models.preferences.agreement import Agreement, of_pairs, of_ratings
from reward_models.preferences.business import load_seen
from reward_models.preferences.combined import Combination, combine
from reward_models.preferences.evaluation import PairReport
from reward_models.preferences.evaluation import evaluate as evaluate_pairs
from reward_models.preferences.judgements import Judgements, load_judgements
from reward_models.preferences.pairs import Columns, read_pairs
from reward_models.preferences.strengths import Strengths, fit_strengths

_SHOWN = 40


@dataclass(frozen=True)
class Report:
    """Everything that is known of what people said about a loop's contents."""

    judgements: Judgements
    pairs: Agreement
    ratings: Agreement
    strengths: Strengths
    combination: Combination
    opinions: Opinions
    """What choosing makes of it, for the campaigns that run."""


def import_file(workspace: Workspace, path: Path, loop_id: str, as_json: bool) -> None:
    """Store every row as feedback; the same file again changes nothing."""
    after = f"rewardloop preferences report {loop_id}"
    import_rows(workspace, path, loop_id, read_file(path, loop_id), "Preferences", after, as_json)


def read_file(path: Path, loop_id: str) -> Iterator[tuple[int, FeedbackBody]]:
    """Number and body of each row: ``winner`` and ``loser``, or ``content`` and ``rating``, or ``ranking`` (ids, the best first, with > between
    them); ``annotator`` where it is there. Raises :class:`BadInput`, naming the row."""
    return read_rows(path, loop_id, lambda columns: partial(_said, _kind(path, columns)))


def report(workspace: Workspace, loop_id: str, as_json: bool) -> None:
    """Who agrees, whom to believe, and what it says beside the money."""
    with reading(workspace.engine) as connection:
        definition, _ = load_loop(connection, loop_id)
        found = report_of(connection, definition)
    if as_json:
        print_json(document_of(found))
    else:
        _print(loop_id, found)


def report_of(connection: Connection, definition: LoopDefinition) -> Report:
    """From the stored feedback. Raises :class:`EstimateRefused` when nobody compared anything yet."""
    judgements = load_judgements(connection, definition.loop)
    if not judgements.comparisons:
        raise EstimateRefused(
            f"Nobody has compared contents of {definition.loop!r} yet; send preferences, rankings or ratings "
            "(POST /v1/feedback, rewardloop preferences import)"
        )
    strengths = fit_strengths(judgements.comparisons)
    combination = combine(load_seen(connection, definition, strengths))
    opinions = load_opinions(
        connection, definition, _running(connection, definition.loop), load_said(connection, definition.loop)
    )
    pairs, ratings = of_pairs(judgements.comparisons), of_ratings(judgements.ratings)
    return Report(judgements, pairs, ratings, strengths, combination, opinions)


def document_of(found: Report) -> dict[str, Any]:
    """As JSON."""
    return {
        "comparisons": len(found.judgements),
        "unknown": found.judgements.unknown,
        "agreement": {"pairs": _agreement(found.pairs), "ratings": _agreement(found.ratings)},
        "annotators": [
            {
                "annotator": name,
                "comparisons": found.strengths.said[name],
                "reliability": value,
                "weight": found.strengths.believed(name),
            }
            for name, value in found.strengths.reliability.items()
        ],
        "slope": {
            "value": found.combination.slope,
            "sd": found.combination.slope_sd,
            "listened": found.combination.listened,
        },
        "opinions": {
            name: {"state": one.state} | {key: _number(value) for key, value in msgspec.to_builtins(one).items()}
            for name, one in found.opinions.agreements.items()
        },
        "contents": [
            {name: _number(value) for name, value in msgspec.to_builtins(one).items()}
            | {"starts": found.opinions.said.get(one.campaign, {}).get(one.content, 0.0)}
            for one in found.combination.contents
        ],
    }


def evaluate(path: Path, columns: Columns, seed: int, as_json: bool) -> None:
    """How well the preferred of two texts is told, on groups that were not learned from."""
    pairs = read_pairs(path, columns)
    with progress() as bar:
        task = bar.add_task(f"{len(pairs):,} pairs, fold by fold", total=None)
        found = evaluate_pairs(pairs, seed, lambda done, of: bar.update(task, completed=done, total=of))
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    print_table(
        f"{found.pairs:,} pairs in {found.groups:,} groups; {found.undecided:,} rows without a preference",
        ["judged by", "accuracy", "95 %", "area under the curve", "log-loss", "Rewardloop ahead by"],
        [_row(name, found) for name in found.judged],
        numbers=(1, 3, 4),
    )
    out().print(found.sentence, highlight=False)


def _row(name: str, found: PairReport) -> list[str]:
    one = found.judged[name]
    lead = "" if one.ahead is None else f"{one.ahead.value:+.3f} ({one.ahead.low:+.3f} to {one.ahead.high:+.3f})"
    span = f"{one.accuracy.low:.3f} to {one.accuracy.high:.3f}"
    loss = "" if one.log_loss is None else f"{one.log_loss:.3f}"
    return [name, f"{one.accuracy.value:.3f}", span, f"{one.auc:.3f}", loss, lead]


def _kind(path: Path, columns: list[str]) -> str:
    for kind, needed in (
        ("preference", {"winner", "loser"}),
        ("ranking", {"ranking"}),
        ("rating", {"content", "rating"}),
    ):
        if needed <= set(columns):
            return kind
    raise BadInput(
        f"{path} has the columns {', '.join(columns)}; it needs winner and loser, or ranking, or content and rating"
    )


def _said(kind: str, row: Mapping[str, str]) -> dict[str, Any]:
    """What a row says, as a body of feedback."""
    content, value = None, dict[str, Any]()
    if kind == "preference":
        value = {"winner": row["winner"].strip(), "loser": row["loser"].strip()}
    elif kind == "ranking":
        value = {"ranking": [each.strip() for each in row["ranking"].split(">")]}
    else:
        content, value = row["content"].strip(), {"rating": _rating(row["rating"])}
    return {"kind": kind, "content_id": content, "value": value}


def _rating(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _agreement(found: Agreement) -> dict[str, Any]:
    return {name: _number(value) for name, value in msgspec.to_builtins(found).items()} | {"word": found.word}


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value


def _print(loop_id: str, found: Report) -> None:
    strengths, combination = found.strengths, found.combination
    print_table(
        f"Who judged {loop_id}: {len(found.judgements):,} comparisons; {found.pairs.word}",
        ["annotator", "comparisons", "reliability", "weight"],
        [
            (name, f"{strengths.said[name]:,}", f"{value:.2f}", f"{strengths.believed(name):.2f}")
            for name, value in sorted(strengths.reliability.items(), key=lambda item: -item[1])
        ],
        numbers=(1, 2, 3),
    )
    out().print(
        f"Krippendorff's alpha {_shown(found.pairs.alpha)} over {found.pairs.shared:,} pairs judged by two or more, "
        f"Cohen's kappa {_shown(found.pairs.kappa)}; of ratings {_shown(found.ratings.alpha)} over {found.ratings.shared:,}.",
        highlight=False,
    )
    rows = sorted(combination.contents, key=lambda one: (one.campaign, -one.both))[:_SHOWN]
    print_table(
        "People beside money, relative to each campaign",
        ["campaign", "content", "people say", "weight", "money says", "weight", "together", "±", "starts at"],
        [
            (
                one.campaign,
                one.content,
                f"{one.said:+.1%}",
                f"{one.people:.0%}",
                "–" if math.isnan(one.earned) else f"{one.earned:+.1%}",
                f"{one.outcomes:.0%}",
                f"{one.both:+.1%}",
                f"{1.96 * one.sd:.1%}",
                f"{found.opinions.said.get(one.campaign, {}).get(one.content, 0.0):+.1%}",
            )
            for one in rows
        ],
        numbers=range(2, 9),
    )
    out().print(_verdict(combination), highlight=False)
    out().print("When copy is chosen, contents of running campaigns start there, by what was right in other campaigns:")
    for name, agreement in found.opinions.agreements.items():
        out().print(printable(f"- {in_words(name, agreement)}"), markup=False, highlight=False)


def _running(connection: Connection, loop_id: str) -> list[str]:
    c = tables.campaigns.c
    return list(connection.scalars(select(c.campaign_id).where(c.loop_id == loop_id, c.state == "running")))


def _verdict(found: Combination) -> str:
    size = f"{found.slope:+.1%} ± {1.96 * found.slope_sd:.1%} of a campaign's level"
    if not found.listened:
        return f"One unit of preference is worth {size}: customers do not share it, so it is not listened to."
    return f"One unit of preference is worth {size}; where outcomes are many they overrule it."


def _shown(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.2f}"
