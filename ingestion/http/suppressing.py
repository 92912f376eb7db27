"""HTTP in: customers who must not be sent anything, as a list of the team's own (``suppressions.py``)."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import AfterValidator, Field

from infra.database import writing
from ingestion.audit import record
from ingestion.fields import Body, Person, storable
from ingestion.http.access import actor
from ingestion.http.problems import responses
from ingestion.http.wiring import Wired
from ingestion.loops import LoopId, load_loop
from ingestion.people.suppressions import EVERY_LOOP, lift, suppress

router = APIRouter(prefix="/v1")

Units = Annotated[
    list[Person],
    Field(min_length=1, max_length=1_000, description="Customers, in clear; stored hashed. At most 1,000."),
]
Where = Annotated[LoopId | None, Field(description="The loop; default: every loop.")]
Reason = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(storable)]


class SuppressBody(Body):
    """Customers to put on the list."""

    units: Units
    loop: Where = None
    reason: Reason = Field("listed", description="Why, in a word or two: it is answered and stored with decisions.")


class LiftBody(Body):
    """Customers to take off the list."""

    units: Units
    loop: Annotated[LoopId | None, Field(description="The list of this loop alone; default: every list.")] = None


class SuppressionsAnswer(Body):
    """What changed. Servers know it within a second."""

    changed: int = Field(description="Customers put on the list, or taken off it.")
    unchanged: int = Field(description="Customers who were on it, or were not.")


@router.put("/suppressions", tags=["events"], summary="Suppress customers", responses=responses(400, 404, 413, 415))
def put_suppressions(body: SuppressBody, wired: Wired) -> SuppressionsAnswer:
    """Never send these customers anything: `/v1/rank` answers `no_send`, with the reason, until they are lifted.

    Events of the types in a loop's `suppression` (an unsubscribe, a complaint) do the same. The same again changes nothing.
    """
    with writing(wired.engine) as connection:
        if body.loop is not None:
            load_loop(connection, body.loop)
        units = [wired.secrets.unit(customer) for customer in body.units]
        changed = len(suppress(connection, units, body.loop or EVERY_LOOP, body.reason, wired.clock()))
    wired.changed()
    return SuppressionsAnswer(changed=changed, unchanged=len(set(body.units)) - changed)


@router.delete("/suppressions", tags=["events"], summary="Lift suppressions", responses=responses(400, 413, 415))
def delete_suppressions(body: LiftBody, wired: Wired) -> SuppressionsAnswer:
    """Let these customers be sent something again: they asked for it, or were on the list by mistake.

    It is remembered: an unsubscribe of before, if it comes late, does not put them back.
    """
    with writing(wired.engine) as connection:
        customers = {customer: wired.secrets.every_unit(customer) for customer in body.units}
        units = [unit for every in customers.values() for unit in every]
        lifted = lift(connection, units, body.loop, wired.clock())
        changed = sum(not lifted.isdisjoint(every) for every in customers.values())
        details = {"loop": body.loop, "customers": changed}
        record(connection, actor("api"), "unsuppress", body.loop or "every loop", details, wired.clock())
    wired.changed()
    return SuppressionsAnswer(changed=changed, unchanged=len(customers) - changed)
