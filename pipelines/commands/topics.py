"""Commands for Kafka's topics: make what is missing, show what is there."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

import typer

from infra.broker import Topic, TopicState, ensure_topics, list_topics
from infra.logs import configure_logs
from infra.settings import Settings, load_settings
from ingestion.stream.topics import all_topics
from pipelines.commands.workspace import JsonOption, out, print_json, print_table

TOPICS = """The topics this installation reads and writes.

Example: rewardloop topics list"""

Copies = Annotated[
    int, typer.Option("--replication", help="Copies of each new topic; -1: as many as the brokers make by themselves.")
]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    group = typer.Typer(no_args_is_help=True, help=TOPICS, rich_markup_mode=None)
    group.command("ensure")(ensure)
    group.command("list")(show)
    app.add_typer(group, name="topics")


def ensure(replication: Copies = -1, json: JsonOption = False) -> None:
    """Make the topics that are missing and say how the others differ; what exists is not changed.

    Example: rewardloop topics ensure --replication 3
    """
    settings, wanted = _wanted()
    _print(wanted, ensure_topics(settings, wanted, replication), json)


def show(json: JsonOption = False) -> None:
    """Show every topic, what it holds, and whether it is there.

    Example: rewardloop topics list
    """
    settings, wanted = _wanted()
    _print(wanted, list_topics(settings, wanted), json)


def _wanted() -> tuple[Settings, list[Topic]]:
    settings = load_settings()
    configure_logs(settings.log_level)
    return settings, list(all_topics(settings.kafka_topic_prefix))


def _print(wanted: Sequence[Topic], states: Sequence[TopicState | None], json: bool) -> None:
    if json:
        print_json([_document(topic, state) for topic, state in zip(wanted, states, strict=True)])
        return
    rows = [(topic.name, topic.key, _days(topic), _found(state)) for topic, state in zip(wanted, states, strict=True)]
    print_table("Topics", ("topic", "key", "kept", "state"), rows)
    if any(state is None for state in states):
        out().print("`rewardloop topics ensure` makes what is missing.", highlight=False)


def _document(topic: Topic, state: TopicState | None) -> dict[str, object]:
    return {
        "name": topic.name,
        "key": topic.key,
        "holds": topic.holds,
        "retention_ms": topic.retention_ms,
        "exists": state is not None,
        "created": state is not None and state.created,
        "partitions": state.partitions if state else 0,
        "replication": state.replication if state else 0,
        "differences": list(state.differences) if state else [],
    }


def _days(topic: Topic) -> str:
    return f"{timedelta(milliseconds=topic.retention_ms).days} days"


def _found(state: TopicState | None) -> str:
    if state is None:
        return "missing"
    said = f"{state.partitions} partitions, {state.replication} copies"
    return "; ".join((f"{said}, just made" if state.created else said, *state.differences))
