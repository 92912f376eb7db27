"""Kafka's log without a group: where it begins and ends, and ranges of it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from infra.broker.client import faults, log_reader, ours, record_of, theirs
from infra.broker.shapes import Partition, Record
from infra.errors import OutOfLog, Unavailable
from infra.settings import Settings

SILENT_SECONDS = 30


def offsets_at(settings: Settings, partitions: Sequence[Partition], time_ms: int) -> dict[Partition, int | None]:
    """The first offset written at or after a time, for each; None: nothing is that new."""
    with log_reader(settings) as reader:
        found = reader.offsets_for_times({theirs(partition): time_ms for partition in partitions})
    return {ours(partition): at.offset if at is not None else None for partition, at in found.items()}


def log_bounds(settings: Settings, partitions: Sequence[Partition]) -> dict[Partition, tuple[int, int]]:
    """For each, the first offset in the log and the one the next record will have."""
    places = [theirs(partition) for partition in partitions]
    with log_reader(settings) as reader:
        earliest, latest = reader.beginning_offsets(places), reader.end_offsets(places)
    return {ours(place): (earliest[place], latest[place]) for place in places}


def read_ranges(
    settings: Settings, ranges: Mapping[Partition, tuple[int, int]], most: int = 1_000
) -> Iterator[list[Record]]:
    """Records of ranges of offsets, each from its first up to, not including, its second; outside any group.

    Raises ``OutOfLog`` when retention deletes records that are still to be read, ``Unavailable`` when nothing comes.
    """
    left = {partition: end for partition, (begin, end) in ranges.items() if begin < end}
    with log_reader(settings, auto_offset_reset="none") as reader:
        reader.assign([theirs(partition) for partition in left])
        for partition in left:
            reader.seek(theirs(partition), ranges[partition][0])
        moved_at = time.monotonic()
        while left:
            records = [record for record in _polled(reader, most) if record.offset < left.get(_at(record), 0)]
            done = [partition for partition, end in left.items() if reader.position(theirs(partition)) >= end]
            if records:
                yield records
            for partition in done:
                del left[partition]
                reader.pause(theirs(partition))
            if records or done:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > SILENT_SECONDS:
                raise Unavailable(f"Kafka: no record of {min(left)[0]} came for {SILENT_SECONDS} s")


def _polled(reader: Any, most: int) -> list[Record]:
    try:
        found = reader.poll(timeout_ms=500, max_records=most)
    except faults().OffsetOutOfRangeError as error:
        partition, position = next(iter(error.args[0].items()))
        raise OutOfLog(
            ours(partition),
            position,
            reader.beginning_offsets([partition])[partition],
            reader.end_offsets([partition])[partition],
        ) from error
    return [record_of(one) for records in found.values() for one in records]


def _at(record: Record) -> Partition:
    return record.topic, record.partition
