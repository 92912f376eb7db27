"""Judges of copy: what `judges run` and `calibrate` do and print."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from infra import tables
from infra.database import reading, writing
from infra.errors import BadInput, Misconfigured, NotFound
from ingestion.contents import content_of
from ingestion.events import Content
from ingestion.loops import load_loop
from pipelines.commands.workspace import (
    GATE_REFUSED,
    OK,
    Workspace,
    out,
    print_json,
    print_table,
    progress,
)
from pipelines.generation.budget import NO_TOKENS
from pipelines.generation.endpoint import Answer, endpoint_of
from pipelines.generation.judge import Verdict, judge, judge_by_mlflow, load_rubric
from pipelines.generation.purse import purse
from pipelines.generation.rating import store_ratings
from pipelines.modelling import training_set
from reward_models.judging.ratings import load_ratings
from reward_models.judging.reports import Report, judged

AT_ONCE = 50
"""Contents that are asked about, and then stored, together."""


def run(
    workspace: Workspace,
    loop: str,
    campaign: str | None,
    rubric_file: Path | None,
    limit: int,
    by_mlflow: bool,
    as_json: bool,
) -> None:
    """Rate what this judge has not rated yet. What was rated is stored as it comes; a later run goes on."""
    rubric, endpoint = load_rubric(rubric_file), endpoint_of(workspace.settings)
    if endpoint is None:
        raise Misconfigured("No judge to ask: set REWARDLOOP_GENERATOR_URL to an OpenAI-compatible server")
    with reading(workspace.engine) as connection:
        load_loop(connection, loop)
        name = f"mlflow {rubric.by(endpoint.model)}" if by_mlflow else rubric.by(endpoint.model)
        waiting = _unrated(connection, loop, campaign, name)[:limit]
    answers: list[Answer[Verdict]] = []
    with purse(workspace.engine, workspace.settings, loop, workspace.clock) as budget, progress() as bar:
        task = bar.add_task(f"rating copy of {loop}", total=len(waiting))
        for brief, contents in _batches(waiting):
            if by_mlflow:
                found = judge_by_mlflow(workspace.settings, rubric, brief, contents, budget)
            else:
                found = judge(endpoint, rubric, brief, contents, budget)
            with writing(workspace.engine) as connection:
                store_ratings(connection, loop, name, contents, found, workspace.clock())
            answers += found
            bar.advance(task, len(contents))
    _print_run(loop, name, answers, as_json)


def calibrate(workspace: Workspace, loop: str, segment: str | None, by: str | None, as_json: bool) -> int:
    """Every judge against outcomes; the exit code says whether one misleads."""
    _, training = training_set(workspace, loop)
    with reading(workspace.engine) as connection:
        ratings = load_ratings(connection, loop)
        contents = {content.content_id: content for _, content in _contents(connection, loop, None)}
    if not ratings:
        raise BadInput(f"No judge has rated anything in loop {loop!r}; `rewardloop judges run {loop}` has it rated")
    reports = {
        name: judged(
            training,
            given,
            segment=segment,
            contents=contents,
            group_of=None if by is None else lambda content: getattr(content, by),
            across=by != "campaign_id",
        )
        for name, given in ratings.items()
    }
    if as_json:
        print_json({"loop": loop, "judges": {name: _document(report) for name, report in reports.items()}})
    else:
        for name, report in reports.items():
            _print_report(name, report, segment, by)
    misleads = any(report.agreement.state == "misleading" for report in reports.values())
    return GATE_REFUSED if misleads else OK


def _unrated(connection: Connection, loop: str, campaign: str | None, judge_name: str) -> list[tuple[str, Content]]:
    if campaign is not None:
        c = tables.campaigns.c
        if connection.scalar(select(c.campaign_id).where(c.campaign_id == campaign, c.loop_id == loop)) is None:
            raise NotFound(f"Loop {loop!r} has no campaign {campaign!r}; `rewardloop judges run {loop}` takes all")
    rated = load_ratings(connection, loop).get(judge_name, {})
    return [(brief, one) for brief, one in _contents(connection, loop, campaign) if one.content_id not in rated]


def _contents(connection: Connection, loop: str, campaign: str | None) -> list[tuple[str, Content]]:
    """Contents with text and their campaign's brief, the newest first."""
    contents, campaigns = tables.contents, tables.campaigns
    query = (
        select(contents, campaigns.c.brief)
        .join(campaigns, campaigns.c.campaign_id == contents.c.campaign_id)
        .where(campaigns.c.loop_id == loop)
        .order_by(contents.c.created_at.desc(), contents.c.content_id)
    )
    if campaign is not None:
        query = query.where(campaigns.c.campaign_id == campaign)
    return [(row.brief, content_of(row)) for row in connection.execute(query) if any(row.slots.values())]


def _batches(waiting: Sequence[tuple[str, Content]]) -> list[tuple[str, list[Content]]]:
    """Contents of one brief together, at most ``AT_ONCE``."""
    by_brief: dict[str, list[Content]] = {}
    for brief, content in waiting:
        by_brief.setdefault(brief, []).append(content)
    return [
        (brief, contents[begin : begin + AT_ONCE])
        for brief, contents in by_brief.items()
        for begin in range(0, len(contents), AT_ONCE)
    ]


def _print_run(loop: str, name: str, answers: Sequence[Answer[Verdict]], as_json: bool) -> None:
    states = Counter(answer.state for answer in answers)
    tokens = sum((answer.tokens for answer in answers), NO_TOKENS)
    reasons = Counter(answer.reason for answer in answers if answer.state != "answered")
    report: dict[str, Any] = {
        "loop": loop,
        "judge": name,
        "rated": states["answered"],
        "not rated": {state: count for state, count in sorted(states.items()) if state != "answered"},
        "asked again": sum(max(0, answer.tries - 1) for answer in answers),
        "tokens": tokens.total,
        "money": sum(answer.micros for answer in answers) / 1e6,
    }
    if as_json:
        print_json(report | {"reasons": dict(reasons.most_common(5))})
        return
    print_table(f"Rated by {name}", ["", ""], [(key, str(value)) for key, value in report.items()])
    for reason, count in reasons.most_common(5):
        out().print(f"{count} x {reason}", markup=False, highlight=False, soft_wrap=True)


def _document(report: Report) -> dict[str, Any]:
    agreement = report.agreement
    return {
        "state": agreement.state,
        "weight": agreement.weight,
        "agreement": msgspec.to_builtins(agreement),
        "curve": msgspec.to_builtins(report.curve),
        "segments": {
            value: {"state": found.state, **msgspec.to_builtins(found)} for value, found in report.segments.items()
        },
        "groups": {name: {"saved": found.saved, **msgspec.to_builtins(found)} for name, found in report.groups.items()},
    }


def _print_report(name: str, report: Report, segment: str | None, by: str | None) -> None:
    columns = ["", "contents", "correlation", "95 %", "ranks", "weight", "so it is"]
    rows = [_row("all customers", report.agreement)]
    rows += [_row(f"{segment}={value}", found) for value, found in report.segments.items()]
    print_table(f"Judge {name}", columns, rows, numbers=(1, 2, 4, 5))
    if report.curve:
        points = [(f"{p.rating:+.2f}", f"{p.reward:+.1%}", f"± {1.96 * p.sd:.1%}", p.contents) for p in report.curve]
        print_table("What such ratings earned", ["rating", "reward", "95 %", "contents"], points, numbers=(0, 1, 3))
    if report.groups:
        groups = [
            (
                group,
                f"{p.mean:+.1%}",
                f"{p.interval[0]:+.1%} … {p.interval[1]:+.1%}",
                f"{p.plain:+.1%}",
                f"{p.saved:.0%}",
            )
            for group, p in report.groups.items()
        ]
        columns = [str(by), "reward", "95 % with ratings", "outcomes alone", "outcomes saved"]
        print_table("What each group earns, relative to its campaigns", columns, groups, numbers=(1, 3, 4))


def _row(name: str, found: Any) -> tuple[Any, ...]:
    low, high = found.interval
    return (
        name,
        found.contents,
        f"{found.correlation:.2f}",
        f"{low:.2f} … {high:.2f}",
        f"{found.ranks:.2f}",
        f"{found.weight:.2f}",
        found.state,
    )
