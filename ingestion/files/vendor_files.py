"""Vendors' payloads from a file into the store: the connectors, rules and transactions of the webhooks.

The same file again changes nothing, because every event is stored once; so one that was cut off is simply run again.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from infra.clock import HOUR
from ingestion import store
from ingestion.connectors import CONNECTORS
from ingestion.connectors.items import Ignored
from ingestion.decode import Edge
from ingestion.events import Rejected
from ingestion.files.deliveries import Stored, open_deliveries
from ingestion.files.imports import Importer
from ingestion.intake import Outcome, Taken, batch_of, take

Progress = Callable[[int, int], None]
"""Called with the bytes read and the size of the file."""

_EXAMPLES = 5
_CHUNK = 500


@dataclass
class Complaint:
    """Why records were rejected: how many, and where the first are."""

    records: int = 0
    positions: list[str] = field(default_factory=list)


@dataclass
class VendorReport:
    """What a file held. ``applied``, ``duplicate`` and ``pending`` stay 0 in a dry run."""

    connector: str
    connection: str
    records: int = 0
    recognised: Counter[str] = field(default_factory=Counter)
    """Events by type."""
    ignored: Counter[str] = field(default_factory=Counter)
    """Records that are no events for us, by reason."""
    rejected: dict[str, Complaint] = field(default_factory=dict)
    applied: int = 0
    duplicate: int = 0
    pending: int = 0


def import_deliveries(
    importer: Importer, connector: str, connection: str, path: Path, dry: bool, progress: Progress
) -> VendorReport:
    """Read the file through the connector; store what it holds as the connection's, unless it is a dry run.

    Raises :class:`BadInput` when the file cannot be read.
    """
    report = VendorReport(connector, connection)
    with open_deliveries(path) as file:
        for outcomes in _chunks(_outcomes(importer, connector, connection, file.deliveries)):
            _tally(report, outcomes)
            if not dry:
                _store(importer, report, outcomes)
            progress(file.position(), file.size)
    return report


def _outcomes(importer: Importer, connector: str, connection: str, deliveries: Iterator[Stored]) -> Iterator[Outcome]:
    now = importer.clock()
    edge = Edge(importer.secrets, (connection,), now, importer.settings.clock_skew_hours * HOUR)
    for body, headers in deliveries:
        yield from take(connector, CONNECTORS[connector].read(body, headers), edge)


def _chunks(outcomes: Iterator[Outcome]) -> Iterator[list[Outcome]]:
    while some := list(islice(outcomes, _CHUNK)):
        yield some


def _tally(report: VendorReport, outcomes: list[Outcome]) -> None:
    report.records += len(outcomes)
    for outcome in outcomes:
        if isinstance(outcome, Taken):
            report.recognised[outcome.event.type] += 1
        elif isinstance(outcome, Ignored):
            report.ignored[outcome.reason] += 1
        else:
            _complain(report, outcome)


def _complain(report: VendorReport, rejected: Rejected) -> None:
    complaint = report.rejected.setdefault(rejected.reason, Complaint())
    complaint.records += 1
    if len(complaint.positions) < _EXAMPLES:
        complaint.positions.append(rejected.position)


def _store(importer: Importer, report: VendorReport, outcomes: list[Outcome]) -> None:
    days = importer.settings.quarantine_days
    applied = store.apply(importer.engine, batch_of(outcomes), importer.secrets, importer.clock(), quarantine_days=days)
    words = Counter(state for state in applied.events if isinstance(state, str))
    report.applied += words["applied"]
    report.duplicate += words["duplicate"]
    report.pending += words["pending"]
    if words["ignored"]:
        report.ignored[store.FORGOTTEN] += words["ignored"]
    if words["sealed"]:
        report.ignored[store.SEALED] += words["sealed"]
    for state in applied.events:
        if isinstance(state, Rejected):
            _complain(report, state)
