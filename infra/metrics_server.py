"""``/metrics`` and ``/healthz`` for a process that is no web server: a thread that answers Prometheus and a supervisor."""

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import make_wsgi_app

from infra.errors import Misconfigured

Start = Callable[[str, list[tuple[str, str]]], object]

_PAGES = {"/metrics", "/healthz"}


@contextmanager
def serving_metrics(host: str, port: int, fault: Callable[[], str | None], setting: str) -> Iterator[int]:
    """Serve while entered; yields the port. ``fault``: why the process is not well; None: it is.

    ``setting`` is what moves the port; :class:`Misconfigured` names it when the port is taken.
    """
    metrics = make_wsgi_app()

    def answer(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            return metrics(environ, start)  # type: ignore[no-any-return]
        return _health(environ["PATH_INFO"], fault, start)

    try:
        server = make_server(host, port, answer, handler_class=_Silent)
    except OSError as error:
        raise Misconfigured(f"{setting}={port}: {error.strerror}; choose another port, or 0 for a free one") from None
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _health(path: str, fault: Callable[[], str | None], start: Start) -> list[bytes]:
    reason = fault()
    status = "404 Not Found" if path not in _PAGES else "503 Service Unavailable" if reason else "200 OK"
    start(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [(reason or "ok" if path in _PAGES else "ask /metrics or /healthz").encode()]


class _Silent(WSGIRequestHandler):
    """Says nothing about every request."""

    def log_message(self, *_: Any) -> None:
        """Nothing."""
