"""The calls that decide a send for a whole audience: create it, hand its audience over in parts, start it, fetch the result.

Every call may be repeated: the same send is found again, the same part replaces itself, a send that was started goes on,
and nobody is decided twice.
"""

from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import FileResponse
from pydantic import Field

from infra.database import reading
from infra.errors import BadInput, NotFound
from ingestion.contents import read_campaign
from ingestion.fields import Body, Id
from ingestion.http.problems import responses
from ingestion.loops import LoopId
from pipelines.audiences.deciding import SEND, check_addresses
from pipelines.audiences.folders import PARTS, Folder, Folders, Order
from pipelines.audiences.output import rejects_of
from pipelines.operations import Jobs
from reward_models.serving.bodies import Links
from reward_models.serving.routes import Wired

router = APIRouter(prefix="/v1/loops/{loop_id}/sends/{send}", tags=["sends"])

RECIPIENTS = 10_000
"""Most recipients in one part."""
_MEDIA = {"csv": "text/csv", "ndjson": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}

SendName = Annotated[str, Path(pattern=f"^{SEND}$", description="The send's name; unique in its loop.")]
Number = Annotated[int, Path(ge=0, lt=PARTS, description="Place of the part in the audience, from 0.")]


class SendBody(Body):
    """A send to an audience."""

    campaign: Id = Field(description="The campaign; it must be running.")
    format: Literal["csv", "ndjson", "parquet"] = Field("csv", description="Of the result.")
    links: Links | None = Field(
        None, description="`{name: address}`: columns `link.<name>` of addresses that record the click and lead there."
    )


class PartBody(Body):
    """A part of the audience."""

    recipients: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=RECIPIENTS)] = Field(
        description="`{unit, context}` each, or `unit` with the features beside it. One that cannot be used is told in "
        "the result's rejects, by its line."
    )


class ComplaintAnswer(Body):
    """Why rows could not be used."""

    reason: str = Field(description="Why.")
    rows: int = Field(description="How many.")
    first_line: int = Field(description="The first of them, counted over all parts from 1.")


class SendReport(Body):
    """What became of every recipient."""

    rows: int = Field(description="Recipients in all parts.")
    decided: int = Field(description="Decided by the last run.")
    stored_before: int = Field(description="Decided by a run before.")
    repeated: int = Field(description="Customers who were in the audience before: the same answer again.")
    refused: int = Field(description="Who may not be sent anything, in a loop that does not allow sending nothing.")
    rejected: int = Field(description="Rows that could not be used.")
    holdout: int = Field(description="Rows whose customer is held out.")
    contents: dict[str, int] = Field(description="Rows by content.")
    nothing_because: dict[str, int] = Field(description="Rows that get nothing, by reason.")
    complaints: list[ComplaintAnswer] = Field(description="Rejected rows, by reason.")


class SendAnswer(Body):
    """A send, as it stands."""

    loop: str = Field(description="The loop.")
    send: str = Field(description="The send.")
    campaign: str = Field(description="Its campaign.")
    state: Literal["open", "running", "done", "failed", "stopped"] = Field(
        description="`open`: hand over the audience, then start it; `stopped`, `failed`: start it again, it goes on."
    )
    parts: int = Field(description="Parts of the audience that are there.")
    rows: int = Field(description="Recipients that the last run has read.")
    failure: str | None = Field(description="Why it failed, and what to do.")
    report: SendReport | None = Field(description="Once it is done.")


async def _folders(request: Request) -> Folders:
    found: Folders = request.app.state.folders
    return found


async def _jobs(request: Request) -> Jobs:
    found: Jobs = request.app.state.jobs
    return found


Kept = Annotated[Folders, Depends(_folders)]


@router.put("", summary="Create a send", responses=responses(400, 404, 409, 413, 415, 429))
def create_send(loop_id: LoopId, send: SendName, body: SendBody, wired: Wired, folders: Kept) -> SendAnswer:
    """A send of a campaign to an audience that comes in parts. The same again is the same send."""
    with reading(wired.engine) as connection:
        campaign = read_campaign(connection, body.campaign)
    if campaign.loop_id != loop_id:
        raise BadInput(f"Campaign {body.campaign!r} belongs to loop {campaign.loop_id!r}, not {loop_id!r}", "/campaign")
    if body.links:
        check_addresses(body.links, wired.settings)
    return _answer(
        folders.create(
            Order(loop=loop_id, send=send, campaign=body.campaign, format=body.format, links=body.links or {})
        )
    )


@router.put("/parts/{number}", summary="Hand over a part", responses=responses(400, 404, 409, 413, 415))
def put_part(loop_id: LoopId, send: SendName, number: Number, body: PartBody, folders: Kept) -> SendAnswer:
    """A part of the audience: parts are joined by their numbers. The same number again replaces the part."""
    folder = folders.find(loop_id, send)
    folder.put_part(number, body.recipients)
    return _answer(folder)


@router.post("/start", summary="Start a send", status_code=202, responses=responses(404, 409, 429))
def start_send(loop_id: LoopId, send: SendName, folders: Kept, jobs: Annotated[Jobs, Depends(_jobs)]) -> SendAnswer:
    """Decide for everybody in the audience, in a process of its own. Started again it goes on where it was."""
    folder = folders.find(loop_id, send)
    if not folder.parts:
        raise BadInput("The send has no audience yet; hand it over with PUT …/parts/0")
    jobs.decide(folder)
    return _answer(folder, started=True)


@router.get("", summary="How a send stands", responses=responses(404))
def read_send(loop_id: LoopId, send: SendName, folders: Kept) -> SendAnswer:
    """Progress, and the report once it is done."""
    return _answer(folders.find(loop_id, send))


@router.get("/result", summary="The result of a send", response_class=FileResponse, responses=responses(404))
def read_result(loop_id: LoopId, send: SendName, folders: Kept) -> FileResponse:
    """The choices with tokens and links, a row per recipient, in the format that was asked for."""
    folder = folders.find(loop_id, send)
    if folder.state != "done":
        raise NotFound(f"The send is {folder.state}; its result is there once it is done")
    return FileResponse(folder.result, media_type=_MEDIA[folder.order.format], filename=folder.result.name)


@router.get("/rejected", summary="The rejected rows of a send", response_class=FileResponse, responses=responses(404))
def read_rejected(loop_id: LoopId, send: SendName, folders: Kept) -> FileResponse:
    """Rows that could not be used, as NDJSON: line, reason, and the row."""
    folder = folders.find(loop_id, send)
    path = rejects_of(folder.result)
    if folder.state != "done" or not path.exists():
        raise NotFound("No row of the send was rejected" if folder.state == "done" else f"The send is {folder.state}")
    return FileResponse(path, media_type=_MEDIA["ndjson"], filename=path.name)


def _answer(folder: Folder, started: bool = False) -> SendAnswer:
    order, report, failure = folder.order, folder.report, folder.failure
    state = "running" if started else folder.state
    return SendAnswer(
        loop=order.loop,
        send=order.send,
        campaign=order.campaign,
        state=state,
        parts=len(folder.parts),
        rows=folder.rows,
        failure=failure.detail if failure is not None and state == "failed" else None,
        report=None if report is None or state != "done" else _report(msgspec.to_builtins(report)),
    )


def _report(report: dict[str, Any]) -> SendReport:
    complaints = [ComplaintAnswer(reason=reason, **one) for reason, one in report["complaints"].items()]
    known = {name: report[name] for name in SendReport.model_fields if name != "complaints"}
    return SendReport(**known, complaints=complaints)
