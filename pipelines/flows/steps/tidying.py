"""What keeps an installation in order, each step repeatable and independent of the others.

expire_quarantine   bytes of rejected records past ``quarantine_days`` are deleted; record and reason stay
clear_event_fields  further fields of events past ``event_fields_days`` are emptied; outcomes do not notice
seal_decisions      outcomes of decisions past ``event_days`` become final
sweep_events        events that nothing open needs any more are deleted
sweep_sends         audience and result of sends past ``send_days`` are deleted
erase_forgotten     whoever asked to be deleted is, also from what came in or came back since
refresh_statistics  the database's own statistics, by which it plans queries; SQLite's write-ahead log is emptied
check_ledger        every record is in exactly one state
"""

from collections.abc import Callable
from contextlib import closing

from infra.clock import format_time
from ingestion import quarantine
from ingestion.ledger import conservation
from ingestion.people.forgetting import forget_again
from ingestion.retention import clear_fields, oldest_kept, seal, sweep
from pipelines.audiences.folders import Folders
from pipelines.commands.workspace import Workspace
from pipelines.flows.paper import Paper

Tidy = Callable[[Workspace], Paper]

ACTOR = "flow"

_STATISTICS = {
    "sqlite": ("PRAGMA optimize", "PRAGMA wal_checkpoint(TRUNCATE)"),
    "postgresql": ("ANALYZE",),
}


def expire_quarantine(workspace: Workspace) -> Paper:
    """Delete the bytes of rejected records that are past their time."""
    expired = quarantine.expire(workspace.engine, workspace.clock())
    return _done("quarantine", f"The bytes of {expired:,} rejected records were past their time and are gone.")


def clear_event_fields(workspace: Workspace) -> Paper:
    """Empty the further fields of events that are past their time."""
    before = oldest_kept(workspace.clock(), workspace.settings.event_fields_days)
    cleared = clear_fields(workspace.engine, before) if before else 0
    return _done("fields of events", f"The further fields of {cleared:,} events were past their time and are gone.")


def seal_decisions(workspace: Workspace) -> Paper:
    """Make the outcomes of decisions that are past their time final."""
    days = workspace.settings.event_days
    if not days:
        return _done("outcomes", "Events are kept for ever (REWARDLOOP_EVENT_DAYS is 0).")
    found = seal(workspace.engine, workspace.clock(), days, ACTOR)
    late = "; it waits for one that was activated late" if found.held_back else ""
    if not found.horizon:
        return _done("outcomes", f"No outcome is final yet{late}.")
    return _done("outcomes", f"Outcomes of decisions made before {format_time(found.horizon)} are final{late}.")


def sweep_events(workspace: Workspace) -> Paper:
    """Delete the events that no open decision needs."""
    swept = sweep(workspace.engine, workspace.clock()) if workspace.settings.event_days else 0
    return _done("events", f"{swept:,} events were past their time and are gone.")


def sweep_sends(workspace: Workspace) -> Paper:
    """Delete what is kept of sends that are past their time."""
    settings = workspace.settings
    swept = Folders(settings.home, workspace.secrets, settings.send_days).sweep()
    return _done("sends", f"{swept:,} sends were past their time and are gone.")


def erase_forgotten(workspace: Workspace) -> Paper:
    """Delete from the database what came in about forgotten persons since they were forgotten."""
    found = forget_again(workspace.engine, workspace.secrets, workspace.clock(), ACTOR)
    said = (
        f"{found.decisions:,} decisions, {found.events:,} events, {found.quarantined:,} rejected records and "
        f"{found.feedback:,} pieces of feedback of forgotten persons were deleted."
    )
    return _done("forgotten persons", said)


def refresh_statistics(workspace: Workspace) -> Paper:
    """Let the database look at its tables again, so that it plans queries by what they hold today."""
    with closing(workspace.engine.raw_connection()) as connection:  # outside of any transaction of SQLAlchemy's
        cursor = connection.cursor()
        for statement in _STATISTICS[workspace.engine.dialect.name]:
            cursor.execute(statement)
        connection.commit()
    return _done("statistics", f"The database's own statistics are of {format_time(workspace.clock())}.")


def check_ledger(workspace: Workspace) -> Paper:
    """Every record that was read is in exactly one state."""
    off = conservation(workspace.engine)
    if off:
        said = f"{off:,} records are in no state, or in two: keep the database as it is, and report it."
        return Paper(subject="ledger", state="act", sentence=said, rows=({"found": said},), alarm=True)
    return _done("ledger", "Every record is in exactly one state.")


TIDYING: tuple[Tidy, ...] = (
    expire_quarantine,
    clear_event_fields,
    seal_decisions,
    sweep_events,
    sweep_sends,
    erase_forgotten,
    refresh_statistics,
    check_ledger,
)


def _done(what: str, sentence: str) -> Paper:
    return Paper(subject=what, state="done", sentence=sentence, rows=({"found": sentence},))
