"""What a worker reads: its partitions, how far each was read, and the records that wait to be applied.

Plain bookkeeping, no input or output. A partition is *unplaced* while it must be put back to where the database says;
records of it that arrive before that are not taken.
"""

from collections.abc import Iterable, Mapping, Sequence

from infra.broker import Partition, Record
from ingestion.stream.applier import Chunk, Item
from ingestion.stream.messages import Decoded


class Progress:
    """The partitions of one worker. Everything here is done by one thread."""

    def __init__(self) -> None:
        self.unplaced: set[Partition] = set()
        self._read_to: dict[Partition, int] = {}
        self._handed_to: dict[Partition, int] = {}
        self._items: list[Item] = []

    @property
    def placed(self) -> list[Partition]:
        """The partitions that are read."""
        return list(self._read_to)

    @property
    def partitions(self) -> set[Partition]:
        """All partitions of this worker."""
        return self.unplaced | set(self._read_to)

    @property
    def waiting(self) -> int:
        """How many records wait to be applied."""
        return len(self._items)

    def lose(self, partitions: Iterable[Partition]) -> None:
        """These are another's; their records that wait are his to read."""
        gone = set(partitions)
        self.unplaced -= gone
        for partition in gone & set(self._read_to):
            del self._read_to[partition], self._handed_to[partition]
        self._items = [item for item in self._items if (item.record.topic, item.record.partition) not in gone]

    def start_over(self) -> None:
        """Everything that is not applied must be read again, from where the database says."""
        partitions = self.partitions
        self.lose(partitions)
        self.unplaced = partitions

    def place(self, partition: Partition, position: int) -> None:
        """This worker reads the partition, from here on."""
        self.lose([partition])
        self._read_to[partition] = self._handed_to[partition] = position

    def wanted(self, records: Iterable[Record]) -> list[Record]:
        """Those of the records that are new here: of a partition that is read, and not behind what was read."""
        end = dict(self._read_to)
        found = []
        for record in records:
            partition = (record.topic, record.partition)
            if record.offset >= end.get(partition, record.offset + 1):
                end[partition] = record.offset + 1
                found.append(record)
        return found

    def add(self, records: Sequence[Record], decoded: Sequence[Decoded]) -> None:
        """Wanted records, decoded."""
        self._items += map(Item, records, decoded)
        self._read_to |= {(record.topic, record.partition): record.offset + 1 for record in records}

    def chunk(self, topic_ids: Mapping[str, str | None], epoch: int) -> Chunk:
        """The records that wait, as one chunk; from now on they wait no longer."""
        items, self._items = self._items, []
        chunk = Chunk(items, dict(self._handed_to), topic_ids, epoch)
        self._handed_to.update(chunk.ends)
        return chunk
