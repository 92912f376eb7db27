"""The reference pages, written from the code: ``make reference`` writes them, a test holds them true.

One function per page; each returns Markdown.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer
from prometheus_client import REGISTRY
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from sqlalchemy import Table

import infra.telemetry  # noqa: F401 (registers the metrics)
from infra.settings import Settings
from infra.tables import DOCS, metadata
from ingestion.loops import GateSettings, Guardrail, LiftSettings, LoopDefinition, ModelSettings, PolicySettings
from ingestion.metrics import Metric
from ingestion.stream.topics import DAY_MS, all_topics
from pipelines.app import create_app
from pipelines.cli import app as commands

HOME = Path(__file__).parents[2] / "docs" / "reference"
SUFFIXES = {"counter": "_total"}
"""What Prometheus adds to the names of a type."""
WRITTEN = "<!-- Written by `make reference`; do not edit. -->\n"


def settings_page() -> str:
    """Every setting, its default and what it does."""
    rows = (
        (f"`REWARDLOOP_{name.upper()}`", _default(field), field.description)
        for name, field in Settings.model_fields.items()
    )
    intro = "Read once at start-up from the environment. A wrong value stops the start and is named."
    return _page("Settings", intro, _grid(("variable", "default", "what it does"), rows))


def tables_page() -> str:
    """Every table and column."""
    parts = [f"## {table.name}\n\n{DOCS[table.name]}\n\n{_columns(table)}" for table in metadata.tables.values()]
    intro = "Time is integer microseconds UTC, money integer micros of a currency, JSON canonical text."
    return _page("Tables", intro, "\n\n".join(parts))


def loop_page() -> str:
    """The document that defines a loop."""
    models: dict[str, type[BaseModel]] = {
        "Loop": LoopDefinition,
        "Metric (`metrics[]`)": Metric,
        "Policy (`policy`)": PolicySettings,
        "Model (`model`)": ModelSettings,
        "Gate (`gate`)": GateSettings,
        "Lift (`lift`)": LiftSettings,
        "Guardrail (`guardrails[]`)": Guardrail,
    }
    parts = [f"## {title}\n\n{(model.__doc__ or '').strip()}\n\n{_fields(model)}" for title, model in models.items()]
    intro = "`PUT /v1/loops/{id}` takes this document as JSON. Durations are texts like `30m`, `72h`, `7d`, or seconds."
    return _page("Loop definition", intro, "\n\n".join(parts))


def metrics_page() -> str:
    """Every Prometheus metric, as its series are called, with its labels."""
    rows = (
        (f"`{metric.name}{SUFFIXES.get(metric.type, '')}`", metric.type, _labels(metric.name), metric.documentation)
        for metric in sorted(REGISTRY.collect(), key=lambda metric: metric.name)
        if metric.name.startswith("rewardloop_")
    )
    intro = (
        "Served at `/metrics` by the API and by every worker. A histogram has `_bucket`, `_sum` and `_count`. "
        "[Watch it run](../how-to/watch-it-run.md) says what to do about them."
    )
    return _page("Metrics", intro, _grid(("name", "type", "labels", "what it says"), rows))


def topics_page() -> str:
    """Every Kafka topic."""
    rows = (
        (f"`{topic.name}`", topic.key, topic.partitions, f"{topic.retention_ms // DAY_MS} days", topic.holds)
        for topic in all_topics()
    )
    intro = (
        "`rewardloop topics ensure` makes those that are missing. `rewardloop` in a name is `REWARDLOOP_KAFKA_TOPIC_PREFIX`; "
        "[Stream with Kafka](../how-to/stream-with-kafka.md) shows what a record looks like."
    )
    return _page("Topics", intro, _grid(("topic", "key", "partitions", "kept for", "what it holds"), rows))


def api_page() -> str:
    """Every endpoint."""
    paths = create_app(Settings()).openapi()["paths"]
    rows = (
        (f"`{method.upper()} {path}`", operation.get("summary", ""), _first_paragraph(operation.get("description", "")))
        for path, operations in paths.items()
        for method, operation in operations.items()
    )
    intro = (
        "The whole contract, with bodies and answers, is at `/openapi.json` and `/docs` of a running server. "
        "Errors are RFC 9457 problem documents whose `detail` says what to do."
    )
    return _page("HTTP API", intro, _grid(("call", "name", "what it does"), rows))


def commands_page() -> str:
    """Every command with its help."""
    group = typer.main.get_command(commands)
    parts = [f"## {name}\n\n```text\n{_help(command).strip()}\n```" for name, command in _leaves(group, "rewardloop")]
    return _page("Commands", "`rewardloop --help` prints the same.", "\n\n".join(parts))


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings_page,
    "tables.md": tables_page,
    "loop.md": loop_page,
    "metrics.md": metrics_page,
    "topics.md": topics_page,
    "api.md": api_page,
    "commands.md": commands_page,
}


def _page(title: str, intro: str, body: str) -> str:
    return f"{WRITTEN}\n# {title}\n\n{intro}\n\n{body}\n"


def _grid(head: tuple[str, ...], rows: Any) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")


def _labels(metric: str) -> str:
    labels = getattr(REGISTRY._names_to_collectors[metric], "_labelnames", ())
    return ", ".join(f"`{label}`" for label in labels)


def _default(field: Any) -> str:
    if field.default is PydanticUndefined:
        return "required" if field.default_factory is None else "made"
    if isinstance(field.default, BaseModel):
        return "see below"
    return f"`{field.default}`" if str(field.default) else "empty"


def _fields(model: type[BaseModel]) -> str:
    shown = model.model_construct().model_dump(mode="json", warnings=False) if not _required(model) else {}
    rows = (
        (
            f"`{name}`",
            f"`{shown[name]}`" if name in shown and not isinstance(shown[name], dict) else _default(field),
            field.description or "",
        )
        for name, field in model.model_fields.items()
    )
    return _grid(("field", "default", "what it means"), rows)


def _required(model: type[BaseModel]) -> bool:
    return any(field.is_required() for field in model.model_fields.values())


def _columns(table: Table) -> str:
    rows = (
        (f"`{column.name}`", _kind(column), "key" if column.primary_key else "", column.doc or "")
        for column in table.columns
    )
    return _grid(("column", "type", "", "what it holds"), rows)


def _kind(column: Any) -> str:
    name = type(column.type).__name__.lower()
    return f"{name}, may be null" if column.nullable else name


def _first_paragraph(text: str) -> str:
    return text.split("\n\n")[0]


def _leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    if not getattr(command, "commands", None):
        yield name, command
        return
    for child in sorted(command.commands):
        if not command.commands[child].hidden:
            yield from _leaves(command.commands[child], f"{name} {child}")


def _help(command: Any) -> str:
    lines = [command.help or ""]
    for parameter in command.params:
        if "--help" in parameter.opts or getattr(parameter, "hidden", False):
            continue
        words = ", ".join(parameter.opts) if parameter.param_type_name == "option" else parameter.name.upper()
        lines.append(f"  {words}: {getattr(parameter, 'help', None) or ''}")
    return "\n".join(lines)


def write() -> None:
    """Write every page."""
    HOME.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (HOME / name).write_text(page())


if __name__ == "__main__":
    write()
