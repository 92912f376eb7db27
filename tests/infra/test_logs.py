"""Logs: one line per event, and never in the way of the work."""

import io
import json
import sys

import pytest

from infra.logs import configure_logs, log


def test_a_line_is_json_with_its_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody looks, a log line is one JSON document."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    configure_logs("info")
    log.debug("too_fine")
    log.info("model_loaded", version="v1")

    line = json.loads(written.getvalue())
    assert (line["event"], line["level"], line["version"]) == ("model_loaded", "info", "v1")


def test_a_closed_standard_error_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the terminal is gone the line is lost, and the caller goes on."""
    closed = io.StringIO()
    monkeypatch.setattr(sys, "stderr", closed)
    configure_logs("info")
    closed.close()

    log.error("nobody_reads_this")
