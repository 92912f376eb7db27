"""Errors as RFC 9457 problem documents: every ``detail`` is a sentence that says what to do."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from infra.errors import BadInput, RewardloopError
from infra.logs import log
from ingestion.fields import pointer, sentence
from ingestion.http.headers import ALWAYS, NO_PAGE

MEDIA_TYPE = "application/problem+json"
METHOD_NOT_ALLOWED = 405
_MOST_ERRORS = 20


class FieldError(BaseModel):
    """One offending part of the body."""

    pointer: str = Field(description="JSON pointer (RFC 6901) to the part; empty: the whole.")
    message: str = Field(description="What is wrong and what to do.")


class Problem(BaseModel):
    """A problem document (RFC 9457)."""

    type: str = Field(description="Kind of problem, stable: `urn:rewardloop:problem:<kind>`.")
    title: str = Field(description="The kind in words.")
    status: int = Field(description="HTTP status.")
    detail: str = Field(description="What was found and what to do.")
    instance: str = Field(description="The path that was called.")
    errors: list[FieldError] = Field(default_factory=list, description="Offending parts of the body.")


def problem(
    status: int,
    title: str,
    detail: str,
    instance: str,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """A response that holds a problem document."""
    document = Problem(
        type=f"urn:rewardloop:problem:{title.lower().replace(' ', '-')}",
        title=title,
        status=status,
        detail=detail,
        instance=instance,
        errors=list(errors),
    )
    return JSONResponse(document.model_dump(), status, headers, MEDIA_TYPE)


def retry_after(error: RewardloopError) -> dict[str, str]:
    """The header that says when the same call may succeed, where it may."""
    return {"Retry-After": str(error.seconds)} if error.retriable else {}


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What a route declares for its errors in the OpenAPI document; 422 and 503 are always among them."""
    words = {
        400: "Not readable JSON",
        401: "Not authorised",
        404: "Not found",
        409: "Conflict",
        413: "Too large",
        415: "Not JSON, or packed in a way that is not understood",
        429: "Too many requests",
    }
    words |= {422: "Input cannot be used", 503: "Temporarily unavailable"}
    return {status: {"model": Problem, "description": words[status]} for status in sorted({*statuses, 422, 503})}


def mend_openapi(document: dict[str, Any]) -> dict[str, Any]:
    """Give problem documents their media type in an OpenAPI document, take out the framework's own errors (what declares
    none of ours takes any text), and say that names which do not fit their pattern are refused."""
    _close(document["components"])
    for operations in document["paths"].values():
        for operation in operations.values():
            declared = operation["responses"]
            for status, response in list(declared.items()):
                content = response.get("content", {})
                model = content.get("application/json", {}).get("schema", {}).get("$ref", "").rpartition("/")[2]
                if model == "Problem":
                    response["content"] = {MEDIA_TYPE: content["application/json"]}
                elif model == "HTTPValidationError":
                    del declared[status]
    return document


def _routes(routes: Iterable[Any]) -> Iterator[Any]:
    """All routes, those of included routers too."""
    for route in routes:
        included = getattr(route, "original_router", None)
        yield from [route] if included is None else _routes(included.routes)


def _close(schema: Any) -> None:
    """No further properties where a pattern says how names look."""
    if isinstance(schema, dict):
        if "patternProperties" in schema:
            schema.setdefault("additionalProperties", False)
        for part in schema.values():
            _close(part)
    elif isinstance(schema, list):
        for part in schema:
            _close(part)


def install(app: FastAPI) -> None:
    """Answer every error of the app with a problem document."""
    app.add_exception_handler(RewardloopError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


async def _ours(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RewardloopError)
    errors = [FieldError(pointer=where, message=what) for where, what in error.parts]
    return problem(error.status, error.title, str(error), request.url.path, errors, retry_after(error))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()[:_MOST_ERRORS]
    errors = [FieldError(pointer=pointer(part["loc"][1:]), message=sentence(part)) for part in found]
    more = f" ({len(found) - 1} more: see errors)" if len(found) > 1 else ""
    return problem(422, BadInput.title, errors[0].message + more, request.url.path, errors)


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    called = f"{request.method} {request.url.path}"
    allowed = ", ".join(_methods(request)) or (error.headers or {}).get("Allow", "")
    headers = {**(error.headers or {}), "Allow": allowed} if error.status_code == METHOD_NOT_ALLOWED else error.headers
    title, detail = {
        404: ("Not found", f"There is no {called}; the calls are listed at /docs"),
        405: ("Method not allowed", f"{called} is not possible; use {allowed or 'another method'}"),
        400: ("Not readable JSON", "The body is not readable JSON; send one JSON document"),
    }.get(error.status_code, ("Request refused", str(error.detail)))
    return problem(error.status_code, title, detail, request.url.path, headers=headers)


def _methods(request: Request) -> list[str]:
    """What may be done at this path: a route knows its own method only, and several share a path."""
    found: set[str] = set()
    for route in _routes(request.app.routes):
        match, _ = route.matches(request.scope)
        if match is not Match.NONE:
            found |= set(getattr(route, "methods", None) or ())
    return sorted(found - {"HEAD"})


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("request_failed", path=request.url.path, exc_info=error)
    detail = "Something broke in Rewardloop; the server's log has the details. Nothing of this request was stored"
    return problem(500, RewardloopError.title, detail, request.url.path, headers=ALWAYS | NO_PAGE)
