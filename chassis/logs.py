"""Structured logs: JSON lines for machines, readable lines on a terminal.

Personal data and secrets are never handed to a logger; `REDACTED_KEYS` catches what slips through by name.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from typing import Any, cast

import orjson
import structlog

REDACTED_KEYS = frozenset(
    {"authorization", "token", "phone", "identity", "value", "password", "secret", "key"}
)

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

Event = MutableMapping[str, Any]


def configure(service: str, log_format: str, level: str) -> None:
    """Sets up structlog for this process.

    `log_format` is auto, json or console; auto is JSON when standard output is no terminal.
    """
    as_json = log_format == "json" or (log_format == "auto" and not sys.stdout.isatty())

    def named_and_redacted(_logger: object, _method: str, event: Event) -> Event:
        event["service"] = service
        for key in REDACTED_KEYS & event.keys():
            event[key] = "[redacted]"
        return event

    renderer: structlog.types.Processor = (
        structlog.processors.JSONRenderer(serializer=orjson.dumps)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            named_and_redacted,
            *([structlog.processors.format_exc_info] if as_json else []),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.BytesLoggerFactory() if as_json else structlog.PrintLoggerFactory(),
    )


def logger(part: str) -> structlog.typing.FilteringBoundLogger:
    """A logger that names the part of the service that speaks. Bound on first use, after `configure`."""
    return cast("structlog.typing.FilteringBoundLogger", structlog.get_logger(part=part))
