"""Security headers of every answer: nothing is guessed, framed, told to others, or run.

Answers in JSON are no page, so nothing in them may load anything; the pages for people set a policy of their own.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
NO_PAGE = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Cache-Control": "no-store"}


_Raw = tuple[tuple[bytes, bytes], ...]


def _raw(headers: dict[str, str]) -> _Raw:
    return tuple((name.lower().encode(), value.encode()) for name, value in headers.items())


_OF_PAGES, _OF_OTHERS = _raw(ALWAYS), _raw(ALWAYS | NO_PAGE)


class SecurityHeaders:
    """ASGI middleware. What an answer says itself stays."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = dict(message.get("headers", ()))  # servers and Starlette write names in small letters
                is_page = said.get(b"content-type", b"").startswith(b"text/html")
                more = [pair for pair in (_OF_PAGES if is_page else _OF_OTHERS) if pair[0] not in said]
                message["headers"] = [*message.get("headers", ()), *more]
            await send(message)

        await self.app(scope, receive, with_headers if scope["type"] == "http" else send)
