"""Limits on every request body, before anything else reads it: size, media type, JSON, depth, characters."""

import msgspec
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ingestion.http.problems import problem
from ingestion.rules import DEPTH, fault

SIGNED = "/v1/webhooks/"
"""Paths whose bodies are signed: nothing parses them before their signature is checked, so only their size is."""


class BodyLimits:
    """ASGI middleware. The body is read whole, at most ``limit`` bytes of it, chunked or not, then handed on."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self.app(scope, receive, send)
            return
        body = await self._read(scope, receive)
        if body is None:
            detail = f"The body is larger than {self.limit} bytes; send it in smaller parts"
            response = problem(413, "Too large", detail, scope["path"], headers={"Connection": "close"})
            await response(scope, receive, send)
        elif not scope["path"].startswith(SIGNED) and (refusal := _refusal(scope, body)):
            await problem(*refusal, scope["path"])(scope, receive, send)
        else:
            await self.app(scope, replay(body, receive), send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdigit() or int(declared) > self.limit:
            return None
        parts, size, more = [], 0, True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            more = message.get("more_body", False)
            if size > self.limit:
                return None
        return b"".join(parts)


def _refusal(scope: Scope, body: bytes) -> tuple[int, str, str] | None:
    if not body:
        return None
    if Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return 415, "Not JSON", "Send the body as JSON, with the header Content-Type: application/json"
    try:
        document = msgspec.json.decode(body)
    except msgspec.ValidationError:
        return 422, "Input cannot be used", "A number in the body is out of range; send it as text or leave it out"
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return 400, "Not readable JSON", f"The body is not readable JSON ({error}); send one JSON document in UTF-8"
    except RecursionError:
        return 422, "Input cannot be used", f"The body is nested deeper than {DEPTH}; flatten it"
    if _is_flat(body):
        return None
    return (422, "Input cannot be used", sentence) if (sentence := fault(document)) else None


def _is_flat(body: bytes) -> bool:
    """Whether a look at the bytes is enough: there are too few brackets to nest too deeply, and U+0000 is not written."""
    return body.count(b"[") + body.count(b"{") <= DEPTH and b"\\u0000" not in body


def replay(body: bytes, receive: Receive) -> Receive:
    """What hands a body on that was read already, once."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
