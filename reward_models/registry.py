"""Which models there are, which one serves, and how one is loaded.

The database is the truth: ``model_versions`` holds every version with its digest and the gate's report,
``champions`` the version each loop serves, changed by compare-and-swap only (invariant 17).

    next_version(connection, loop_id) -> "<loop>-<number>"
    register(connection, loop_id, version, *, digest, config_digest, loop_version, as_of, cutoff, kind, now)
    settle(connection, loop_id, version, state, gate)             registered → passed, failed or refused
    approve(connection, loop_id, version, actor, verdict, now)
    promote(connection, loop_id, version, expected_revision, now, actor, *, needs_approval=False) -> Champion
    champion(connection, loop_id) -> Champion | None              champions(connection) -> {loop: Champion}
    version_of(connection, loop_id, version) -> Version           versions(connection, loop_id) -> newest first
    path_of(bundles, loop_id, version) -> Path
    load_verified(folder, digest) -> RewardModel          with_vectors(connection, model, loop_id, version)

Order of loading: 1 read, 2 digest, 3 anatomy, parse and golden rows in a sacrificial process, 4 the same here. Only
then may a snapshot be swapped. The anatomy matters (``anatomy.py``): what one process survived may kill another.
"""

import hmac
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec
from sqlalchemy import Connection, func, select

from infra import tables
from infra.database import insert_new
from infra.errors import BadInput, Conflict, ModelRefused, NotFound
from ingestion.audit import record
from reward_models import bundle as bundles
from reward_models.boosted import RewardModel
from reward_models.vectors import load_vectors
from reward_models.verification import Verifier, check_golden

State = Literal["registered", "passed", "failed", "refused", "promoted"]
Kind = Literal["first", "refresh", "change"]

NO_CHAMPION = 0
"""The revision to expect when a loop has no champion yet."""


class Champion(msgspec.Struct, frozen=True):
    """The version a loop serves. ``revision`` is raised by every change. ``loop_version``: of the definition it was
    judged under, whose policy it serves with."""

    version: str
    revision: int
    digest: str
    loop_version: int


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A row of ``model_versions``."""

    loop_id: str
    version: str
    digest: str
    config_digest: str
    loop_version: int
    as_of: int
    cutoff: int
    state: State
    kind: Kind
    tracking_run: str | None
    gate: dict[str, Any] | None
    approvals: list[dict[str, Any]]
    created_at: int

    @property
    def approved(self) -> bool:
        """Whether the last word about it is an approval."""
        return bool(self.approvals) and self.approvals[-1]["verdict"] == "approved"


def with_vectors(connection: Connection, model: RewardModel, loop_id: str, version: str) -> RewardModel:
    """The model with the embeddings that were there when it was registered, so that every replay scores the same."""
    if model.text is None or not model.text.embedder:
        return model
    until = version_of(connection, loop_id, version).created_at
    return replace(model, vectors=load_vectors(connection, loop_id, model.text.embedder, until))


def load_verified(folder: Path, digest: str, verifier: Verifier | None = None) -> RewardModel:
    """The model of a bundle on disk. Raises :class:`ModelRefused`; this process survives whatever is in the files.

    ``verifier``: a running one saves the start of a process (about two seconds).
    """
    bundle = bundles.read(folder)
    if not hmac.compare_digest(bundles.digest(bundle), digest):
        raise ModelRefused(
            f"The files in {folder.name!r} do not have the digest they were registered with; they were changed or "
            "damaged. Restore the folder from a backup, or retrain"
        )
    if verifier is None:
        with Verifier() as once:
            once.check(bundle)
    else:
        verifier.check(bundle)
    model = bundles.unpack(bundle)
    check_golden(model)
    return model


def path_of(home: Path, loop_id: str, version: str) -> Path:
    """Where the bundle of a version is, under the folder of all bundles."""
    return home / loop_id / version


def next_version(connection: Connection, loop_id: str) -> str:
    """The version to register next."""
    c = tables.model_versions.c
    taken = connection.scalar(select(func.count()).where(c.loop_id == loop_id)) or 0
    return f"{loop_id}-{taken + 1}"


def register(
    connection: Connection,
    loop_id: str,
    version: str,
    *,
    digest: str,
    config_digest: str,
    loop_version: int,
    as_of: int,
    cutoff: int,
    kind: Kind,
    now: int,
    tracking_run: str | None = None,
) -> None:
    """Store a version; the same again changes nothing. Raises :class:`Conflict` for another model of that name."""
    row = {
        "loop_id": loop_id,
        "version": version,
        "digest": digest,
        "config_digest": config_digest,
        "loop_version": loop_version,
        "as_of": as_of,
        "cutoff": cutoff,
        "state": "registered",
        "kind": kind,
        "tracking_run": tracking_run,
        "gate": None,
        "approvals": [],
        "created_at": now,
    }
    if not insert_new(connection, tables.model_versions, [row]):
        stored = version_of(connection, loop_id, version)
        if stored.digest != digest:
            raise Conflict(f"Version {version!r} is registered with another digest; take the next version")


def settle(connection: Connection, loop_id: str, version: str, state: State, gate: dict[str, Any]) -> None:
    """Store the gate's verdict and report. Raises :class:`Conflict` when the version was judged before."""
    c = tables.model_versions.c
    changed = connection.execute(
        tables.model_versions.update()
        .where(c.loop_id == loop_id, c.version == version, c.state == "registered")
        .values(state=state, gate=gate)
    )
    if changed.rowcount != 1:
        stored = version_of(connection, loop_id, version)
        raise Conflict(f"Version {version!r} was judged before: it is {stored.state}")


def approve(
    connection: Connection,
    loop_id: str,
    version: str,
    actor: str,
    verdict: Literal["approved", "rejected"],
    now: int,
) -> None:
    """Add a person's word about a version; the last one holds."""
    stored = version_of(connection, loop_id, version)
    c = tables.model_versions.c
    connection.execute(
        tables.model_versions.update()
        .where(c.loop_id == loop_id, c.version == version)
        .values(approvals=[*stored.approvals, {"actor": actor, "at": now, "verdict": verdict}])
    )
    record(connection, actor, "approve", version, {"loop": loop_id, "verdict": verdict}, now)


def promote(
    connection: Connection,
    loop_id: str,
    version: str,
    expected_revision: int,
    now: int,
    actor: str,
    *,
    needs_approval: bool = False,
) -> Champion:
    """Let a loop serve a version that passed its gate, or that was promoted before (the way back).

    ``expected_revision``: of the champion it replaces, ``NO_CHAMPION`` for none. Raises :class:`Conflict` when
    another writer was first, :class:`BadInput` for a version that may not serve: one that did not pass, or passed
    against another champion than the one it would replace.
    """
    stored = version_of(connection, loop_id, version)
    if stored.state not in ("passed", "promoted"):
        raise BadInput(f"Version {version!r} is {stored.state}; only a version that passed its gate can be promoted")
    _check_opponent(connection, stored)
    if needs_approval and not stored.approved:
        raise BadInput(f"Version {version!r} waits for a person's approval; approve it first")
    replaced = champion(connection, loop_id)
    _swap(connection, loop_id, version, expected_revision, now)
    c = tables.model_versions.c
    connection.execute(
        tables.model_versions.update().where(c.loop_id == loop_id, c.version == version).values(state="promoted")
    )
    details = {"loop": loop_id, "revision": expected_revision + 1, "replaces": replaced and replaced.version}
    record(connection, actor, "promote", version, details, now)
    return Champion(version, expected_revision + 1, stored.digest, stored.loop_version)


def champion(connection: Connection, loop_id: str) -> Champion | None:
    """The version a loop serves; None before its first promotion."""
    return champions(connection).get(loop_id)


def champions(connection: Connection) -> dict[str, Champion]:
    """The version each loop serves."""
    c, v = tables.champions.c, tables.model_versions.c
    rows = connection.execute(
        select(c.loop_id, c.version, c.revision, v.digest, v.loop_version).join(
            tables.model_versions, (v.loop_id == c.loop_id) & (v.version == c.version)
        )
    )
    return {row.loop_id: Champion(row.version, row.revision, row.digest, row.loop_version) for row in rows}


def version_of(connection: Connection, loop_id: str, version: str) -> Version:
    """One version. Raises :class:`NotFound`."""
    c = tables.model_versions.c
    row = connection.execute(select(tables.model_versions).where(c.loop_id == loop_id, c.version == version)).first()
    if row is None:
        raise NotFound(f"Loop {loop_id!r} has no model version {version!r}; train it first")
    return Version(**row._mapping)


def versions(connection: Connection, loop_id: str) -> list[Version]:
    """Every version of a loop, newest first."""
    c = tables.model_versions.c
    rows = connection.execute(
        select(tables.model_versions)
        .where(c.loop_id == loop_id)
        .order_by(c.created_at.desc(), func.length(c.version).desc(), c.version.desc())
    )
    return [Version(**row._mapping) for row in rows]


def _check_opponent(connection: Connection, stored: Version) -> None:
    current = champion(connection, stored.loop_id)
    serving = current.version if current else None
    against = (stored.gate or {}).get("champion", serving)
    if stored.state == "passed" and against != serving:
        raise BadInput(
            f"Version {stored.version!r} passed against {against or 'the baseline'}, and {serving} serves now; "
            "retrain the loop to have it judged against that"
        )


def _swap(connection: Connection, loop_id: str, version: str, expected: int, now: int) -> None:
    pointer = {"loop_id": loop_id, "version": version, "revision": expected + 1, "changed_at": now}
    if expected == NO_CHAMPION:
        swapped = bool(insert_new(connection, tables.champions, [pointer]))
    else:
        c = tables.champions.c
        statement = tables.champions.update().where(c.loop_id == loop_id, c.revision == expected).values(**pointer)
        swapped = connection.execute(statement).rowcount == 1
    if not swapped:
        raise Conflict(f"The champion of loop {loop_id!r} changed meanwhile; look at it again, then decide")
