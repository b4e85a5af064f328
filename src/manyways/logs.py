"""Logs: one event a line on stderr, JSON unless a terminal reads along.

Everybody else's logging (asyncio, the HTTP server, the database) comes out the same way.
Nothing here ever sees a request's headers or body, so no secret is in a log.
"""

import logging
import sys
from typing import Any, Literal, TextIO

import structlog
from msgspec import Struct, json
from structlog.typing import Processor

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "text"]


class Settings(Struct, frozen=True, kw_only=True):
    """The `[log]` section."""

    level: Level = "info"
    format: Format = "auto"


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Set up logging for this process. To be called once, before the first line is logged."""
    out = stream or sys.stderr
    text = settings.format == "text" or (settings.format == "auto" and out.isatty())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Processor]
    if text:
        last = [structlog.dev.ConsoleRenderer(colors=out.isatty())]
    else:
        last = [structlog.processors.format_exc_info, _to_json]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))


def _to_json(_logger: Any, _method: str, event: Any) -> str:
    return json.encode(event, enc_hook=repr).decode()
