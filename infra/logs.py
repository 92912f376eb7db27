"""Structured logs: JSON lines on stderr, or readable ones on a terminal. Secrets and bodies are never logged."""

import logging
import sys

import structlog

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
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
    )
