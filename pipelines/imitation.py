"""Learning from marketers' choices: what `demonstrations import`, `fit` and `show` do and print."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from infra.database import reading, writing
from infra.errors import BadInput
from ingestion.events import Content
from ingestion.loops import LoopDefinition
from pipelines.commands.workspace import Workspace, out, print_json, print_table, progress
from pipelines.feedback_files import import_rows, read_rows
from pipelines.modelling import register_version, training_set
from reward_models import registry
from reward_models.aging import Aging
from reward_models.boosted import fit as fit_model
from reward_models.delays import fit_delays
from reward_models.demonstrations.choices import Demonstration, believable, load_demonstrations
from reward_models.demonstrations.cloning import clone_of
from reward_models.demonstrations.implied import implied_by
from reward_models.demonstrations.prior import judged, widened
from reward_models.demonstrations.teaching import Taught, taught
from reward_models.hurdle import foresee

UNJUDGED = "learned from {count} choices of marketers; no outcome has judged it, {actor} let it serve"


def import_file(workspace: Workspace, path: Path, loop: str, as_json: bool) -> None:
    """Store every choice of a table; the same file again changes nothing."""
    import_rows(
        workspace,
        path,
        loop,
        read_rows(path, loop, _reader),
        "Choices",
        f"rewardloop demonstrations show {loop}",
        as_json,
    )


def _reader(columns: list[str]) -> Callable[[Mapping[str, str]], dict[str, Any]]:
    if missing := [name for name in ("chosen", "candidates") if name not in columns]:
        raise BadInput(
            f"The table has no column {missing[0]!r}; it needs chosen and candidates (ids of contents with | between them), and "
            "may have annotator, context (JSON) or context.<name>"
        )
    return _choice


def _choice(row: Mapping[str, str]) -> dict[str, Any]:
    """A choice as a body of feedback. Customers stand in ``context`` as JSON, in columns ``context.<name>``, or in both."""
    context = _context(row.get("context", "").strip() or "{}", "The column context")
    for name, text in row.items():
        if name.startswith(_CONTEXT) and text.strip():
            context[name.removeprefix(_CONTEXT)] = _plain(text.strip())
    value: dict[str, Any] = {
        "chosen": row["chosen"].strip(),
        "candidates": [name.strip() for name in row["candidates"].split("|")],
    }
    return {"kind": "demonstration", "value": value | ({"context": context} if context else {})}


_CONTEXT = "context."


def _plain(text: str) -> Any:
    """A number, true or false where the cell holds one; else its text."""
    try:
        return msgspec.json.decode(text.encode(), type=bool | float)
    except msgspec.DecodeError:
        return text


def fit(workspace: Workspace, loop: str, usual: float, serve: bool, actor: str, as_json: bool) -> None:
    """A model of choices and of the outcomes there are, registered; with ``serve`` it serves."""
    with progress() as bar:
        bar.add_task(f"learning from choices in {loop}", total=None)
        definition, training = training_set(workspace, loop, learned_only=True)
        with reading(workspace.engine) as connection:
            shown, contents = load_demonstrations(connection, loop), believable(connection, loop)
        if not contents:
            raise BadInput(f"Loop {loop!r} has no approved content; approve what the model is to choose among first")
        delays = fit_delays(training, definition)
        found = taught(foresee(training, delays, definition), shown, contents, usual)
        model = fit_model(found.believed.training, definition.model)
        model = widened(replace(model, aging=Aging(delays=delays)), found.believed.share)
        version = register_version(workspace, definition, found.believed.training, model)
        if serve:
            _serve(workspace, definition, version, actor, len(shown))
    report = _fit_report(version, shown, contents, found, serve)
    if as_json:
        print_json(report)
    else:
        print_table(f"Learned {version}", ["", ""], [(name, _figure(value)) for name, value in report.items()])


def show(workspace: Workspace, loop: str, context: str, as_json: bool) -> None:
    """The apprentice, the implied weights and what outcomes say of them."""
    customer = _context(context)
    _, training = training_set(workspace, loop, learned_only=True)
    with reading(workspace.engine) as connection:
        shown = load_demonstrations(connection, loop)
    implied = implied_by(shown)
    clone, trusted = clone_of(shown, implied), judged(training, implied)
    weights = implied.weights(customer)
    report = {
        "loop": loop,
        "choices": len(shown),
        "people": implied.people,
        "agreement": clone.agreement,
        "agreement by chance": clone.by_chance,
        "pseudo R²": clone.fit,
        "by outcomes": trusted.state,
        "slope": None if trusted.rows == 0 else [trusted.slope, *trusted.interval],
    }
    if as_json:
        print_json(report | {"weights": [msgspec.to_builtins(weight) for weight in weights]})
        return
    print_table(f"Choices in {loop}", ["", ""], [(name, _figure(value)) for name, value in report.items()])
    rows = [(w.name, f"{w.weight:+.2f}", f"{w.low:+.2f} … {w.high:+.2f}") for w in weights]
    print_table("What each feature is worth to those who chose", ["feature", "utility", "95 %"], rows, numbers=(1,))
    out().print("1 of utility makes a candidate e = 2.7 times as likely to be chosen.", highlight=False)


def _serve(workspace: Workspace, definition: LoopDefinition, version: str, actor: str, count: int) -> None:
    """On a person's word, which the audit keeps. Raises :class:`BadInput` where a model serves, or nobody is held out."""
    loop, now = definition.loop, workspace.clock()
    if definition.holdout <= 0.0:
        raise BadInput(f"Loop {loop!r} holds nobody out, so nobody could see whether it helps; set its holdout first")
    with writing(workspace.engine) as connection:
        if (serving := registry.champion(connection, loop)) is not None:
            raise BadInput(f"{serving.version} serves loop {loop!r}; `rewardloop retrain {loop}` learns choices, too")
        if registry.version_of(connection, loop, version).state == "registered":
            sentence = UNJUDGED.format(count=count, actor=actor)
            registry.settle(connection, loop, version, "passed", {"sentence": sentence, "champion": None})
        registry.approve(connection, loop, version, actor, "approved", now)
        registry.promote(connection, loop, version, registry.NO_CHAMPION, now, actor)


def _fit_report(
    version: str, shown: list[Demonstration], contents: list[Content], found: Taught, served: bool
) -> dict[str, Any]:
    return {
        "version": version,
        "choices": len(shown),
        "people": found.implied.people,
        "pseudo R²": found.implied.fit,
        "contents": len(contents),
        "by outcomes": found.trusted.state,
        "share of choices in what is learned": found.believed.share,
        "serves": served,
    }


def _context(text: str, where: str = "--context") -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text.encode(), type=dict[str, bool | float | str | None])
    except msgspec.DecodeError as error:
        raise BadInput(f'{where} is JSON like {{"tier": "gold"}}: {error}') from error
    return dict(found)


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        return f"{value[0]:+.3f} ({value[1]:+.3f} … {value[2]:+.3f})"
    return "-" if value is None else str(value)
