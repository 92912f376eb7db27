"""Reading again: ranges of topics, and single records from quarantine, through the same decoder and the same store.

No offsets are saved: running workers neither wait nor move. What was applied already is a duplicate and changes
nothing; what was missed, for whatever reason, is applied now. Contents are read first, then decisions, then events, so
that what a record names is there.
"""

from collections import Counter
from collections.abc import Callable, Iterable

from infra.broker import Record
from infra.errors import BadInput
from ingestion.events import Batch, Decision, Event, Rejected
from ingestion.ledger import STATES
from ingestion.quarantine import Facts
from ingestion.store import Applied
from ingestion.stream.applier import Chunk, Item, in_pieces
from ingestion.stream.decoding import TopicDecoder
from ingestion.stream.messages import Labelled, batch_of


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


def decode_again(record: Record, decoder: TopicDecoder) -> Facts | Rejected:
    """The facts of a record as they are read today; none for a content, which is registered by this already."""
    (settled,) = decoder.settle([record], decoder.decode([record]))
    if isinstance(settled, Rejected):
        return settled
    if isinstance(settled, Labelled):
        return settled.event, *settled.labels
    return (settled,) if isinstance(settled, Event | Decision) else ()


def parse_offset(text: str) -> int | None:
    """An offset, if that is what the text is. Raises :class:`BadInput` for a negative one."""
    if not text.lstrip("-").isdigit():
        return None
    if text.startswith("-"):
        raise BadInput(f"Offset {text} is negative; offsets begin at 0")
    return int(text)
