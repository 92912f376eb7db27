"""What is known of the customer of a request, put into it before it is ranked.

1. ``as_known``: whether the customer is suppressed, from memory: for every request, with or without the database
2. ``as_counted``: what the customer was sent often enough, from the database, in loops that have frequency caps
"""

from dataclasses import replace

from sqlalchemy import Engine

from infra.database import reading
from infra.secrets import Secrets
from reward_models.serving.eligibility import OPEN, capped
from reward_models.serving.ranker import Request
from reward_models.serving.snapshot import Snapshot


def as_known(request: Request, snapshot: Snapshot, secrets: Secrets) -> Request:
    """The request, with the reason if its customer must not be sent anything."""
    if request.unit is None or not snapshot.suppressed.scopes:
        return request
    reason = snapshot.suppressed.reason(request.loop_id, secrets.every_unit(request.unit))
    return request if reason is None else replace(request, suppressed=reason)


def must_count(request: Request, snapshot: Snapshot) -> bool:
    """Whether the customer's sends have to be counted: the loop has caps, and there is somebody to count them for."""
    known = request.unit is not None and request.suppressed is None
    return known and bool(snapshot.loops[request.loop_id].definition.frequency)


def as_counted(request: Request, snapshot: Snapshot, secrets: Secrets, engine: Engine) -> Request:
    """The request, with the caps that its customer has reached. Raises ``Unavailable`` when the database is away."""
    if request.unit is None or not must_count(request, snapshot):
        return request
    unit, definition = secrets.unit(request.unit), snapshot.loops[request.loop_id].definition
    units = {unit: secrets.every_unit(request.unit)}
    with reading(engine) as connection:
        found = capped(connection, definition, request.campaign_id, units, request.decided_at)
    return replace(request, capped=found.get(unit, OPEN))
