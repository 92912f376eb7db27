"""Structured logs: JSON lines on stderr, or readable ones on a terminal. Secrets and bodies are never logged."""

import logging
import sys
from contextlib import suppress

import structlog


class _Stderr:
    """Standard error as it is now. Where it is closed the line is lost: a log must never stop what it tells of."""

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()


log = structlog.get_logger("rewardloop")


def configure_logs(level: str = "info") -> None:
    """Set up logging for this process."""
    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(_Stderr()),  # type: ignore[arg-type]  # all it needs
    )
