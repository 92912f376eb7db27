"""A run of the generate flow as people read it: a run in MLflow, a page of Markdown, rows of a table.

What was written is somebody else's text: everywhere it goes through ``plain``, so that nothing in it is markup.
"""

import hashlib
from typing import Any

import msgspec

from infra.clock import format_time
from infra.database import canonical_json, reading
from infra.errors import Unavailable
from infra.logs import log
from infra.tracking import Record
from pipelines.flows.paper import Paper
from pipelines.generation.outcome import Made
from pipelines.generation.prompts import Prompt, versions
from pipelines.learning import Bench
from reward_models.report import plain

_SHOWN = 20
"""Kept contents that a description lists."""


def mirror(bench: Bench, made: Made, prompts: tuple[Prompt, ...]) -> bool:
    """Log a run, and the prompts it used with their earlier versions. False, and a warning in the log, when MLflow is away:
    the database has it all."""
    with reading(bench.engine) as connection:
        every = [one for prompt in prompts for one in versions(connection, prompt.prompt_id)]
    try:
        for prompt in every:
            bench.tracking.keep_prompt(
                prompt.prompt_id, prompt.version, prompt.template, {"rewardloop.strategy": prompt.strategy}
            )
        bench.tracking.log_report(made.loop_id, record_of(made, bench.clock()))
    except Unavailable as error:
        log.warning("copy_run_not_mirrored", loop=made.loop_id, reason=str(error))
        return False
    return True


def record_of(made: Made, now: int) -> Record:
    """What MLflow holds of a run."""
    document = msgspec.json.format(msgspec.json.encode(made))
    digest = hashlib.sha256(canonical_json([now, msgspec.to_builtins(made)])).hexdigest()
    figures = {
        "drafts": float(made.written),
        "drafts within the rules": float(made.passed),
        "contents kept": float(len(made.kept)),
        "tokens": float(made.tokens),
        f"cost {made.currency}".strip(): made.micros / 1e6,
    }
    expected = [one.expected for one in made.kept if one.expected is not None]
    if expected:
        figures["expected reward per 1000"] = 1_000 * sum(expected) / len(expected)
    return Record(
        version=f"copy {made.campaign_id} {format_time(now)}",
        name=f"copy for {made.campaign_id}",
        digest=digest,
        description=page_of(made),
        at=now,
        dataset_digest=digest,
        as_of=0,
        parameters={
            "campaign": made.campaign_id,
            "generator": made.generator,
            "model": made.model_version or "none",
            "examples": str(made.examples),
        },
        metrics=figures,
        tags={"rewardloop.loop": made.loop_id, "rewardloop.kind": "copy", "rewardloop.state": made.state},
        files={"copy.json": document},
    )


def page_of(made: Made) -> str:
    """The run in Markdown: what happened, which prompts, what was kept."""
    prompts = [
        f"| {plain(one.name)} | {one.probability:.0%} | {one.written} | {one.passed} | {one.kept} |"
        for one in made.prompts
    ]
    kept = [f"- {plain(' '.join(one.text.split()))} ({plain(one.prompt)}, {one.why})" for one in made.kept[:_SHOWN]]
    broken = [f"- {plain(rule)}: {count}" for rule, count in sorted(made.broken.items())]
    parts = [
        plain(made.sentence),
        "\n".join(["| prompt | share | drafts | within the rules | kept |", "|---|---|---|---|---|", *prompts]),
        "\n".join(["**Kept**", "", *kept]) if kept else "",
        "\n".join(["**Drafts that broke a rule**", "", *broken]) if broken else "",
        f"Examples shown: {made.examples}. Generator: {plain(made.generator)}. Cost: {cost_of(made)}.",
    ]
    return "\n\n".join(part for part in parts if part)


def paper_of(made: Made) -> Paper:
    """The run as every flow tells of itself."""
    rows: tuple[dict[str, Any], ...] = tuple(
        {
            "content": one.content_id,
            "text": " ".join(one.text.split()),
            "prompt": one.prompt,
            "state": one.approval,
            "kept for": one.why,
            "expected": one.expected if one.expected is not None else "",
        }
        for one in made.kept
    )
    return Paper(subject=made.loop_id, state=made.state, sentence=made.sentence, text=page_of(made), rows=rows)


def cost_of(made: Made) -> str:
    """Tokens and money, in words."""
    return f"{made.tokens:,} tokens, {made.micros / 1e6:.4f} {made.currency}" if made.tokens else "nothing"
