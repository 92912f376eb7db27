"""Reading again: ranges of topics, and single records from quarantine, through the same decoder and the same store.

No offsets are saved: running workers neither wait nor move. What was applied already is a duplicate and changes
nothing; what was missed, for whatever reason, is applied now. Contents are read first, then decisions, then events, so
that what a record names is there.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import msgspec

from infra.broker import Record
from infra.errors import BadInput
from ingestion.applier import Chunk, Item, in_pieces
from ingestion.cloudevents import STRUCTURED
from ingestion.decoding import TopicDecoder
from ingestion.events import Batch, Decision, Event, Label, Rejected
from ingestion.ledger import STATES
from ingestion.messages import Labelled, batch_of
from ingestion.quarantine import Held
from ingestion.store import Applied
from ingestion.topics import Topics

_MICROS_PER_MS = 1_000


def apply_again(
    records: Iterable[list[Record]], decoder: TopicDecoder, write: Callable[[Batch], Applied]
) -> Iterable[Counter[str]]:
    """Apply chunks of records, without offsets; after each the counts by state so far, and ``read``."""
    counts: Counter[str] = Counter(dict.fromkeys(("read", *STATES), 0))

    def commit(chunk: Chunk) -> None:
        decoded = decoder.settle([record for record, _ in chunk.items], [one for _, one in chunk.items])
        applied = write(batch_of(decoded))
        counts.update({state: getattr(applied, state) for state in STATES})

    for some in records:
        in_pieces(Chunk(items=list(map(Item, some, decoder.decode(some)))), commit, decoder.reject)
        counts["read"] += len(some)
        yield counts


def record_of(held: Held, topics: Topics) -> Record | None:
    """The topic record that is in quarantine; None for what came through another door."""
    topic, _, place = held.position.partition("/")
    if topic not in {one.name for one in topics.read}:
        return None
    partition, offset = place.split("/")
    headers = (("content-type", STRUCTURED.encode()),) if _is_cloud_event(held.raw) else ()
    time = held.created_at // _MICROS_PER_MS
    return Record(topic, int(partition), int(offset), time, None, held.raw, headers)


def decode_again(record: Record, decoder: TopicDecoder) -> Sequence[Event | Decision | Label] | Rejected:
    """The facts of a record as they are read today; none for a content, which is registered by this already."""
    (settled,) = decoder.settle([record], decoder.decode([record]))
    if isinstance(settled, Rejected):
        return settled
    if isinstance(settled, Labelled):
        return settled.event, *settled.labels
    return (settled,) if isinstance(settled, Event | Decision) else ()


def _is_cloud_event(raw: bytes | None) -> bool:
    """Binary ones are kept as structured ones, so their bytes tell."""
    try:
        document = msgspec.json.decode(raw or b"")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(document, dict) and "specversion" in document


def parse_offset(text: str) -> int | None:
    """An offset, if that is what the text is. Raises :class:`BadInput` for a negative one."""
    if not text.lstrip("-").isdigit():
        return None
    if text.startswith("-"):
        raise BadInput(f"Offset {text} is negative; offsets begin at 0")
    return int(text)
