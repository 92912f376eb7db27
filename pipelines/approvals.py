"""Approval: a person's word about a version, given by command, or asked for in MLflow.

What is set in MLflow (tag ``approval`` or alias ``approved`` of a registered version) is a request, because MLflow does not
say who set it. It is accepted

    1 only while MLflow lets nobody in without a password,
    2 only for a version that passed its gate, against what serves now, or that served before,
    3 by the same steps as the command: files checked, compare-and-swap of the champion, one transaction.

Every answer is in the audit and on the version in MLflow. The champion pointer in the database is the truth; an alias
``champion`` that somebody moves there changes nothing, and is put back.
"""

from dataclasses import dataclass

from infra.database import reading, writing
from infra.errors import BadInput, Conflict, ModelRefused, NotFound, Unavailable
from infra.logs import log
from infra.tracking import Request
from ingestion.audit import record
from pipelines import learning
from pipelines.learning import Bench, Outcome
from pipelines.mirror import mirror
from reward_models import registry

ACTOR = "mlflow"
"""Who approves by a request: somebody with the right to change models in MLflow."""


@dataclass(frozen=True)
class Answer:
    """What became of a request. ``accepted``: it was done."""

    version: str
    accepted: bool
    sentence: str


def approve(bench: Bench, loop_id: str, version: str | None, actor: str) -> Outcome:
    """A person's yes: the version that passed last, or the named one, serves from now on."""
    return learning.approve(bench, loop_id, version, actor)


def reject(bench: Bench, loop_id: str, version: str, actor: str) -> Outcome:
    """A person's no, kept with the version: it is not promoted unless somebody approves it after all."""
    with writing(bench.engine) as connection:
        stored = registry.version_of(connection, loop_id, version)
        if stored.state != "passed":
            raise BadInput(f"Version {version!r} is {stored.state}; only one that passed and waits can be rejected")
        registry.approve(connection, loop_id, version, actor, "rejected", bench.clock())
    mirror(bench.settings, bench.engine, bench.tracking, loop_id)
    return learning.outcome_of(bench, loop_id, version)


def take_requests(bench: Bench, loop_id: str) -> list[Answer]:
    """Answer what was asked for in MLflow about a loop's versions. Raises :class:`Unavailable` with MLflow away,
    :class:`Conflict` while a retrain runs."""
    requests = bench.tracking.requests(loop_id)
    if not requests:
        return []
    guarded = bench.tracking.guarded()
    answers = []
    for request in requests:
        answer = _decide(bench, loop_id, request, guarded)
        bench.tracking.answer(loop_id, request, answer.sentence)
        answers.append(answer)
    mirror(bench.settings, bench.engine, bench.tracking, loop_id)
    return answers


def try_requests(bench: Bench, loop_id: str) -> list[Answer]:
    """:func:`take_requests`, left for the next time with MLflow away or while a retrain runs."""
    try:
        return take_requests(bench, loop_id)
    except (Conflict, Unavailable) as error:
        log.warning("requests in MLflow are not answered yet", loop=loop_id, reason=str(error))
        return []


def _decide(bench: Bench, loop_id: str, request: Request, guarded: bool) -> Answer:
    if not guarded:
        return _refuse(
            bench,
            loop_id,
            request,
            "MLflow asks nobody for a password, so nobody knows who asked. Approve by rewardloop approve, or start "
            "MLflow with authentication",
        )
    try:
        if request.wants == "rejected":
            reject(bench, loop_id, request.version, ACTOR)
            return Answer(request.version, True, "Rejected: it will not serve.")
        if _serves(bench, loop_id, request.version):
            return Answer(request.version, True, "It serves already.")
        outcome = approve(bench, loop_id, request.version, ACTOR)
        return Answer(request.version, True, f"Approved: {outcome.champion} serves now.")
    except (BadInput, NotFound, ModelRefused) as error:
        return _refuse(bench, loop_id, request, str(error))


def _serves(bench: Bench, loop_id: str, version: str) -> bool:
    """Raises :class:`NotFound` for a version that is none, an empty one too."""
    with reading(bench.engine) as connection:
        registry.version_of(connection, loop_id, version)
        champion = registry.champion(connection, loop_id)
    return champion is not None and champion.version == version


def _refuse(bench: Bench, loop_id: str, request: Request, reason: str) -> Answer:
    with writing(bench.engine) as connection:
        details = {"loop": loop_id, "wanted": request.wants, "reason": reason}
        record(connection, ACTOR, "refuse_approval", request.version[:256], details, bench.clock())
    return Answer(request.version, False, f"Refused: {reason}.")
