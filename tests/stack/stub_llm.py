"""A server that speaks the chat protocol of OpenAI, and answers what a test tells it to: nobody's model is needed.

    with StubLLM() as stub:
        stub.answer(Say("hello"), Limited(retry_after=0.1), Refusal())      one after the other; the last one for ever
        stub.reply = lambda call: Say(call.text.upper())                    or by a function of the call
        OpenAI(base_url=stub.url, api_key="any")
        stub.calls                                                          what it was asked, in order

``POST {url}/chat/completions`` (``stream``, ``n``, ``max_tokens``, ``stream_options``) and ``GET {url}/models``. A token
is four characters, rounded up; an answer longer than ``max_tokens`` is cut and says so (``finish_reason`` ``length``).
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

MODEL = "stub-1"


@dataclass(frozen=True)
class Call:
    """One request, as it came."""

    body: dict[str, Any]
    headers: dict[str, str]
    number: int
    """1, 2, 3 …"""

    @property
    def text(self) -> str:
        """All messages, one after the other."""
        return "\n".join(_plain(message.get("content")) for message in self.body.get("messages", []))

    @property
    def last(self) -> str:
        """The last message."""
        messages = self.body.get("messages", [])
        return _plain(messages[-1].get("content")) if messages else ""


@dataclass(frozen=True)
class Say:
    """An answer. ``tokens``: what it claims to have written; None: what it wrote."""

    text: str
    tokens: int | None = None


@dataclass(frozen=True)
class Limited:
    """429. ``retry_after``: seconds, as its header says; None: it does not say."""

    retry_after: float | None = 0.05


@dataclass(frozen=True)
class Failing:
    """An error of the server or of the question."""

    status: int = 500
    message: str = "something broke"


@dataclass(frozen=True)
class Malformed:
    """200, and a body that is no answer; in a stream it is the event after the first piece of one."""

    body: bytes = b'{"choices": [{"message": {"content": "half'


@dataclass(frozen=True)
class Refusal:
    """The model does not want to."""

    text: str = "I'm sorry, I can't help with that."


@dataclass(frozen=True)
class Filtered:
    """A filter took the answer away."""


@dataclass(frozen=True)
class Hangup:
    """The connection ends in the middle of the answer; in a stream, after its first piece."""


@dataclass(frozen=True)
class Trickle:
    """An answer of which a piece comes every ``pause`` seconds: a long pause is a server that stalls."""

    pause: float
    say: Say = field(default_factory=lambda: Say("drop by drop by drop by drop"))


@dataclass(frozen=True)
class Slow:
    """An answer that takes its time."""

    seconds: float
    then: "Reply" = field(default_factory=lambda: Say("at last"))


Reply = Say | Limited | Failing | Malformed | Refusal | Filtered | Hangup | Trickle | Slow


class StubLLM:
    """The server, on a free port of this machine. Safe to call from many threads at once."""

    def __init__(self) -> None:
        self._server = _Server(self)
        self._lock = threading.Lock()
        self._released = threading.Event()
        self.reset()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """What a client calls its base URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def reset(self) -> None:
        """Forget what was asked, and answer ``ok``."""
        self._released.set()
        self._released = threading.Event()
        self.calls: list[Call] = []
        self.at_once = self._now = 0
        """Most calls that were worked on at the same time."""
        self.reply: Callable[[Call], Reply] = lambda call: Say("ok")

    def answer(self, *replies: Reply) -> None:
        """Answer these, one after the other; then the last one for ever."""
        first = len(self.calls)
        self.reply = lambda call: replies[min(call.number - first, len(replies)) - 1]

    def take(self, body: dict[str, Any], headers: dict[str, str]) -> tuple[Call, Reply]:
        """Note a call; what to answer."""
        with self._lock:
            call = Call(body, headers, len(self.calls) + 1)
            self.calls.append(call)
            self._now += 1
            self.at_once = max(self.at_once, self._now)
        reply = self.reply(call)
        while isinstance(reply, Slow):
            self.wait(reply.seconds)
            reply = reply.then
        return call, reply

    def wait(self, seconds: float) -> None:
        """Be slow, but no longer than the test is there."""
        self._released.wait(seconds)

    def done(self) -> None:
        """A call is over."""
        with self._lock:
            self._now -= 1


def tokens_in(text: str) -> int:
    """Four characters each, rounded up."""
    return -(-len(text) // 4)


def _plain(content: Any) -> str:
    """Text of a message, which may come in parts."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return str(content or "")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, stub: StubLLM) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.stub = stub


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Silent."""

    def do_GET(self) -> None:
        models = {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "stub"}]}
        self._json(200 if self.path.endswith("/models") else 404, models)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if not self.path.endswith("/chat/completions"):
            return self._json(404, {"error": {"message": f"no {self.path} here"}})
        call, reply = self.server.stub.take(body, {name.lower(): value for name, value in self.headers.items()})
        try:
            self._send(call, reply)
        except OSError:  # the client went away
            self.close_connection = True
        finally:
            self.server.stub.done()

    def _send(self, call: Call, reply: Reply) -> None:
        match reply:
            case Limited(retry_after):
                after = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
                self._json(429, {"error": {"message": "slow down", "type": "rate_limit"}}, after)
            case Failing(status, message):
                self._json(status, {"error": {"message": message}})
            case _ if call.body.get("stream"):
                self._stream(_events(call, reply), reply)
            case Malformed(body):
                self._bytes(200, body, "application/json")
            case Hangup():
                self._start(200, {"Content-Type": "application/json", "Content-Length": "1000"})
                self.wfile.write(b'{"id"')
                self.close_connection = True
            case Trickle(pause, say):
                self._trickle(json.dumps(_completion(call, say)).encode(), pause)
            case _:
                self._json(200, _completion(call, reply))

    def _stream(self, events: Iterator[bytes], reply: Any) -> None:
        """One piece after the other. Who hangs up has promised more."""
        length = {"Content-Length": "1000000"} if isinstance(reply, Hangup) else {}
        self._start(200, {"Content-Type": "text/event-stream", "Connection": "close", **length})
        for event in events:
            self.wfile.write(b"data: " + event + b"\n\n")
            self.wfile.flush()
            if isinstance(reply, Trickle):
                self.server.stub.wait(reply.pause)
        self.close_connection = True

    def _trickle(self, body: bytes, pause: float) -> None:
        self._start(200, {"Content-Type": "application/json", "Content-Length": str(len(body))})
        for begin in range(0, len(body), 50):
            self.wfile.write(body[begin : begin + 50])
            self.wfile.flush()
            self.server.stub.wait(pause)

    def _json(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        self._bytes(status, json.dumps(document).encode(), "application/json", headers)

    def _bytes(self, status: int, body: bytes, kind: str, headers: dict[str, str] | None = None) -> None:
        self._start(status, {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})})
        self.wfile.write(body)

    def _start(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _completion(call: Call, reply: Any) -> dict[str, Any]:
    text, reason, tokens = _written(call, reply)
    message = {"role": "assistant", "content": text, "refusal": None}
    if isinstance(reply, Refusal):
        message |= {"content": None, "refusal": reply.text}
    count = int(call.body.get("n") or 1)
    choices = [{"index": n, "message": message, "finish_reason": reason, "logprobs": None} for n in range(count)]
    return _frame(call, "chat.completion") | {"choices": choices, "usage": _usage(call, tokens * count)}


def _events(call: Call, reply: Any) -> Iterator[bytes]:
    """What a stream holds: the answer's pieces and the end; of one with a fault the first piece, and then the fault."""
    said = reply.say if isinstance(reply, Trickle) else reply
    faulty = isinstance(reply, Hangup | Malformed)
    chunks = [json.dumps(chunk).encode() for chunk in _chunks(call, Say("the first piece") if faulty else said)]
    yield from chunks[:1] if faulty else chunks
    if isinstance(reply, Malformed):
        yield reply.body
    if not isinstance(reply, Hangup):
        yield b"[DONE]"


def _chunks(call: Call, reply: Any) -> Iterator[dict[str, Any]]:
    """The answer, ten characters at a time; usage comes last, where it was asked for."""
    text, reason, tokens = _written(call, reply)
    kind = "refusal" if isinstance(reply, Refusal) else "content"
    text = reply.text if isinstance(reply, Refusal) else text
    frame = _frame(call, "chat.completion.chunk")
    for begin in range(0, len(text), 10):
        delta = {"role": "assistant", kind: text[begin : begin + 10]}
        yield frame | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield frame | {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    if (call.body.get("stream_options") or {}).get("include_usage"):
        yield frame | {"choices": [], "usage": _usage(call, tokens)}


def _written(call: Call, reply: Any) -> tuple[str, str, int]:
    """Text, why it ended, and how many tokens it claims."""
    if isinstance(reply, Filtered):
        return "", "content_filter", 0
    if isinstance(reply, Refusal):
        return "", "stop", tokens_in(reply.text)
    most = call.body.get("max_completion_tokens") or call.body.get("max_tokens")
    text = reply.text if most is None else reply.text[: 4 * most]
    cut = len(text) < len(reply.text)
    return text, "length" if cut else "stop", tokens_in(text) if reply.tokens is None else reply.tokens


def _frame(call: Call, kind: str) -> dict[str, Any]:
    model = call.body.get("model", MODEL)
    return {"id": f"chatcmpl-{call.number}", "object": kind, "created": int(time.time()), "model": model}


def _usage(call: Call, written: int) -> dict[str, int]:
    read = tokens_in(call.text)
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
