"""HTTP in: a person to be deleted everywhere (``forgetting.py``). Needs a key with the scope ``admin``."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from ingestion.fields import Body, Person
from ingestion.http.access import actor
from ingestion.http.problems import responses
from ingestion.http.wiring import Wired
from ingestion.people.forgetting import MOST, forget

router = APIRouter(prefix="/v1")


class ForgetBody(Body):
    """Whom to forget."""

    units: Annotated[
        list[Person],
        Field(min_length=1, max_length=MOST, description="Every id the person is known by, in clear. At most 100."),
    ]


class ForgetAnswer(Body):
    """What was deleted."""

    decisions: int = Field(description="Decisions made for the person.")
    events: int = Field(description="Events about the person, and refunds and other reports of their orders.")
    quarantined: int = Field(description="Quarantined records that spoke of the person.")
    feedback: int = Field(description="Pieces of feedback.")
    rows: int = Field(description="Rows of files below the data folder.")
    left: int = Field(description="Files that name the person and were left; `rewardloop forget` names them.")


@router.post("/forget", tags=["operations"], summary="Forget a person", responses=responses(400, 413, 415))
def post_forget(body: ForgetBody, wired: Wired) -> ForgetAnswer:
    """Delete a person everywhere, for ever: `/v1/rank` answers `no_send` from now on, and events are ignored.

    The same again deletes nothing more; a call that ended with an error is repeated.
    """
    found = forget(
        wired.engine, wired.secrets, body.units, wired.clock(), home=wired.settings.home.resolve(), actor=actor("api")
    )
    wired.changed()
    return ForgetAnswer(
        decisions=found.decisions,
        events=found.events,
        quarantined=found.quarantined,
        feedback=found.feedback,
        rows=found.rows,
        left=len(found.left),
    )
