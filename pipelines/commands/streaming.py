"""Commands of streaming: the worker, reading topics again, and the database's offsets."""

from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from typing import Annotated, NamedTuple

import typer

from infra.broker import (
    Assignment,
    Consumer,
    Partition,
    Producer,
    log_bounds,
    offsets_at,
    partitions_of,
    read_ranges,
    topic_ids,
)
from infra.clock import parse_time
from infra.database import reading
from infra.errors import BadInput, Misconfigured
from infra.garbage import spare
from infra.metrics_server import serving_metrics
from infra.settings import Settings
from infra.threads import Repeating
from ingestion import store
from ingestion.events import Batch
from ingestion.ledger import STATES, Stored, stored_offsets
from ingestion.stream.announcements import Announcer
from ingestion.stream.decoding import TopicDecoder
from ingestion.stream.gaps import GapFound, accept_gap, find_gaps
from ingestion.stream.replay import apply_again, parse_offset
from ingestion.stream.topics import Topics, topics
from ingestion.stream.worker import Worker
from ingestion.vitals import LOOK_SECONDS, Vitals
from pipelines.commands.workspace import (
    UNAVAILABLE,
    JsonOption,
    Workspace,
    err,
    open_workspace,
    out,
    print_json,
    print_table,
    progress,
)
from pipelines.supervisor import stopping_on_signals

ACTOR = "cli"
HANGS_SECONDS = 120.0
"""A worker that has not polled for that long is not healthy."""
OFFSETS = """How far topics were read, as the database says.

Example: rewardloop offsets list"""

From = Annotated[
    str, typer.Option("--from", help="Where to begin: `earliest`, a time (ISO 8601), or an offset.", show_default=False)
]
Until = Annotated[
    str | None, typer.Option(help="Where to end, not included: a time or an offset; default: what is there now.")
]
TopicOption = Annotated[
    str | None, typer.Option(help="`decisions`, `events`, `contents` or a topic's whole name; default: all three.")
]
PartitionOption = Annotated[int | None, typer.Option(min=0, help="Only this partition.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(worker)
    app.command()(replay)
    group = typer.Typer(no_args_is_help=True, help=OFFSETS, rich_markup_mode=None)
    group.command("list")(list_offsets)
    group.command("accept-gap")(accept)
    app.add_typer(group, name="offsets")


def worker() -> None:
    """Read the topics into the database until SIGTERM or Ctrl-C. Several workers share the partitions.

    Exit code 4: a stored position is not in the log; the sentence on stderr says what to do.

    Example: rewardloop worker
    """
    workspace, named = _streaming()
    settings = workspace.settings
    read = [topic.name for topic in named.read]
    announcer = Announcer(workspace.engine, named.quarantine.name, lambda: Producer(settings))

    def join(assignment: Assignment) -> Consumer:
        _require_topics(settings, read)
        return Consumer(settings, read, settings.kafka_group, assignment)

    member = Worker(
        workspace.engine,
        workspace.secrets,
        settings,
        workspace.clock,
        join,
        TopicDecoder(workspace.engine, workspace.secrets, settings, workspace.clock),
        lambda: topic_ids(settings, read),
        announce=announcer,
    )
    with (
        stopping_on_signals() as stop,
        closing(announcer),
        Repeating("vitals", LOOK_SECONDS, Vitals(workspace.engine, workspace.clock).look),
        serving_metrics(settings.host, settings.worker_port, lambda: _fault(member), "REWARDLOOP_WORKER_PORT") as port,
    ):
        err().print(f"Worker of group {settings.kafka_group}; http://{settings.host}:{port}/metrics", highlight=False)
        spare()
        try:
            member.run(stop)
        except GapFound as gap:
            _end_with(gap)
    err().print("Stopped; the batch in hand was finished.")


def replay(
    from_: From,
    topic: TopicOption = None,
    partition: PartitionOption = None,
    until: Until = None,
    as_json: JsonOption = False,
) -> None:
    """Read topics again and apply what is there. What was applied already changes nothing; no offset moves.

    Example: rewardloop replay --from 2026-11-20T00:00:00Z --topic events
    """
    workspace, named = _streaming()
    settings = workspace.settings
    bounds = log_bounds(settings, _chosen(settings, named, topic, partition))
    ranges = _ranges(settings, bounds, from_, until, exact=topic is not None and len(bounds) == 1)
    decoder = TopicDecoder(workspace.engine, workspace.secrets, settings, workspace.clock)
    counts: Counter[str] = Counter(dict.fromkeys(("read", *STATES), 0))
    with progress() as bar:
        task = bar.add_task("reading again", total=sum(end - begin for begin, end in ranges.values()))
        for one in (named.contents, named.decisions, named.events):
            of_topic = {place: ends for place, ends in ranges.items() if place[0] == one.name}
            before = Counter(counts)
            for found in apply_again(read_ranges(settings, of_topic), decoder, lambda batch: _apply(workspace, batch)):
                counts = before + found
                bar.update(task, completed=counts["read"])
    document = {state: counts[state] for state in ("read", *STATES)}
    if as_json:
        print_json(document)
    else:
        print_table("Read again", list(document), [[f"{count:,}" for count in document.values()]], numbers=range(6))


def list_offsets(as_json: JsonOption = False) -> None:
    """Where every partition stands in the database and in Kafka, how far it is behind, and gaps.

    Example: rewardloop offsets list
    """
    workspace, named = _streaming()
    found = standings(workspace, named)
    if as_json:
        print_json([one._asdict() for one in found])
        return
    rows = [tuple("" if cell is None else cell for cell in one) for one in found]
    columns = ["topic", "partition", "read up to", "log begins", "log ends", "behind", "gap"]
    print_table("Offsets", columns, rows, numbers=range(1, 6))


def accept(
    topic: Annotated[str, typer.Argument(help="The topic's name, or `decisions`, `events`, `contents`.")],
    partition: Annotated[int, typer.Argument(min=0, help="The partition.")],
) -> None:
    """Go on although records are missing: the partition starts at the beginning of its log, and the audit says so.

    Example: rewardloop offsets accept-gap rewardloop.events.v1 3
    """
    workspace, named = _streaming()
    (place,) = _chosen(workspace.settings, named, topic, partition)
    with reading(workspace.engine) as connection:
        stored = stored_offsets(connection)
    ids = topic_ids(workspace.settings, [place[0]])
    gaps = find_gaps(stored, log_bounds(workspace.settings, [place]), ids)
    if not gaps:
        raise BadInput(f"{place[0]}/{place[1]} stands inside its log: there is no gap to accept")
    (gap,) = gaps
    accept_gap(workspace.engine, gap, ids[place[0]], ACTOR, workspace.clock())
    missing = "an unknown number of" if gap.missing is None else f"{gap.missing:,}"
    out().print(f"{place[0]}/{place[1]} starts at {gap.earliest}; {missing} records are missing.", highlight=False)


class Standing(NamedTuple):
    """A partition in the database and in Kafka. ``position`` null: never read."""

    topic: str
    partition: int
    position: int | None
    earliest: int
    latest: int
    behind: int
    gap: str | None


def standings(workspace: Workspace, named: Topics) -> list[Standing]:
    """Every partition of the topics that are read. Raises :class:`Unavailable`."""
    settings = workspace.settings
    with reading(workspace.engine) as connection:
        stored = stored_offsets(connection)
    bounds = log_bounds(settings, _chosen(settings, named, None, None))
    gaps = {gap[:2]: gap.reason for gap in find_gaps(stored, bounds, topic_ids(settings, [t.name for t in named.read]))}
    return [_standing(place, stored.get(place), ends, gaps.get(place)) for place, ends in sorted(bounds.items())]


def _standing(place: Partition, stored: Stored | None, ends: tuple[int, int], gap: str | None) -> Standing:
    position = None if stored is None else stored.position
    earliest, latest = ends
    return Standing(*place, position, earliest, latest, max(0, latest - max(position or 0, earliest)), gap)


def _streaming() -> tuple[Workspace, Topics]:
    workspace = open_workspace()
    if not workspace.settings.kafka:
        raise Misconfigured(
            "No Kafka is configured, events go straight into the store; "
            "set REWARDLOOP_KAFKA_BOOTSTRAP_SERVERS=host:port to stream them"
        )
    return workspace, topics(workspace.settings.kafka_topic_prefix)


def _require_topics(settings: Settings, names: list[str]) -> None:
    missing = [name for name, id_ in topic_ids(settings, names).items() if id_ is None]
    if missing:
        raise BadInput(f"No topic {', '.join(missing)}; make what is missing with: rewardloop topics ensure")


def _fault(member: Worker) -> str | None:
    seconds = member.seconds_since_poll
    return f"no poll for {seconds:.0f} seconds" if seconds > HANGS_SECONDS else None


def _end_with(gap: GapFound) -> None:
    err().print(str(gap), style="bold red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(UNAVAILABLE)


def _apply(workspace: Workspace, batch: Batch) -> store.Applied:
    days = workspace.settings.quarantine_days
    return store.apply(workspace.engine, batch, workspace.secrets, workspace.clock(), quarantine_days=days)


def _chosen(settings: Settings, named: Topics, topic: str | None, partition: int | None) -> list[Partition]:
    """The partitions meant, of topics that exist. Raises :class:`BadInput` for one that does not."""
    known = {short: one.name for short, one in named._asdict().items() if one in named.read}
    names = list(known.values())
    if topic is not None:
        if topic not in known and topic not in names:
            raise BadInput(f"No topic {topic!r} is read here; it is one of {', '.join((*known, *names))}")
        names = [known.get(topic, topic)]
    _require_topics(settings, names)
    found = [(name, number) for name in names for number in partitions_of(settings, name)]
    if partition is not None:
        found = [place for place in found if place[1] == partition]
        if not found:
            raise BadInput(f"No partition {partition} of {', '.join(names)}")
    return found


def _ranges(
    settings: Settings, bounds: Mapping[Partition, tuple[int, int]], from_: str, until: str | None, exact: bool
) -> dict[Partition, tuple[int, int]]:
    """From where to where each partition is read. ``exact``: one partition is meant, so an offset says something."""
    earliest = {place: ends[0] for place, ends in bounds.items()}
    latest = {place: ends[1] for place, ends in bounds.items()}
    begins = earliest if from_ == "earliest" else _moments(settings, latest, from_, exact)
    ends = latest if until is None else _moments(settings, latest, until, exact)
    for place, begin in begins.items():
        if begin < earliest[place]:
            raise BadInput(f"{place[0]}/{place[1]} begins at offset {earliest[place]}; what was before is deleted")
    return {place: (begin, min(ends[place], latest[place])) for place, begin in begins.items()}


def _moments(settings: Settings, latest: Mapping[Partition, int], text: str, exact: bool) -> dict[Partition, int]:
    """Offsets of a time or of an offset; a time after the last record is the end of the log."""
    offset = parse_offset(text)
    if offset is not None:
        if not exact:
            raise BadInput(f"Offset {text} is of one partition; name it with --topic and --partition")
        return dict.fromkeys(latest, offset)
    try:
        moment = parse_time(text)
    except ValueError:
        raise BadInput(f"{text!r} is not `earliest`, an offset, or a time like 2026-11-22T10:02:00Z") from None
    found = offsets_at(settings, list(latest), moment // 1_000)
    return {place: end if (at := found[place]) is None else at for place, end in latest.items()}
