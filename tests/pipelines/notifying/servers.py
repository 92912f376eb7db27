"""A web server and a mail server that keep what they are told, and answer as they are told."""

import http.server
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Inbox:
    """What a server got, and what it answers: one status after the other, the last again and again."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.port = 0

    def next_status(self) -> int:
        """What the next one is answered."""
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]


@contextmanager
def web(*statuses: int) -> Iterator[Inbox]:
    """A web server that takes posts."""
    inbox = Inbox(*statuses)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            inbox.got.append((dict(self.headers), body))
            self.send_response(inbox.next_status())
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler), inbox):
        yield inbox


@contextmanager
def mail(*statuses: int) -> Iterator[Inbox]:
    """A mail server; the status is the answer to a sender's address."""
    inbox = Inbox(*statuses)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.say(220)
            while line := self.rfile.readline():
                verb = line.split()[0].upper() if line.split() else b""
                if verb == b"DATA":
                    self.say(354)
                    inbox.got.append(({}, b"".join(iter(self.rfile.readline, b".\r\n"))))
                    self.say(250)
                elif verb == b"MAIL":
                    self.say(inbox.next_status())
                elif verb == b"QUIT":
                    self.say(221)
                    return
                else:
                    self.say(250)

        def say(self, code: int) -> None:
            self.wfile.write(b"%d so be it\r\n" % code)

    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler), inbox):
        yield inbox


@contextmanager
def serving(server: socketserver.TCPServer, inbox: Inbox) -> Iterator[None]:
    """While it is entered, the server serves."""
    inbox.port = int(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
