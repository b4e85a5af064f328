"""Logs: one event a line on stderr, JSON unless a terminal reads along.

Everybody else's logging (asyncio, the HTTP server, the database) comes out the same way.
Nothing here ever sees a request's headers or body, so no secret is in a log.
"""

import contextlib
import logging
import sys
import time
from typing import Any, BinaryIO, Literal, TextIO, cast

import structlog
from msgspec import Struct, json
from structlog.typing import Processor

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "text"]


class Settings(Struct, frozen=True, kw_only=True):
    """The `[log]` section."""

    level: Level = "info"
    format: Format = "auto"


def configure(
    settings: Settings, stream: TextIO | None = None, *, worker: int | None = None
) -> None:
    """Set up logging for this process. To be called once, before the first line is logged.

    Every line of one of several workers has its number.
    """
    out = stream or sys.stderr
    text = settings.format == "text" or (settings.format == "auto" and out.isatty())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[Processor] = [_stamp]
    pretty: list[Processor] = [
        structlog.dev.ConsoleRenderer(colors=out.isatty(), sort_keys=False, pad_event_to=0)
    ]
    last: list[Processor] = pretty if text else [_exception, _to_json]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Patient(out))),
        cache_logger_on_first_use=True,
    )
    global _quick, _worker  # noqa: PLW0603  (logging is set up once a process)
    _worker = worker
    at_info = level <= logging.INFO
    _quick = _JsonLines(out) if at_info and not text else None
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


def tell(event: str, facts: dict[str, Any]) -> None:
    """An info line with these facts, which the line may keep. It comes out as any other; every
    request writes one, so it takes the shortest way there is."""
    if _quick is None:
        structlog.get_logger("manyways").info(event, **facts)
    else:
        _quick.write(event, facts)


class _JsonLines:
    """The processors of JSON lines, called directly: structlog takes longer than they do."""

    def __init__(self, out: TextIO) -> None:
        # Below the text, as lines are bytes already; nothing waits there, as it is written line
        # by line.
        self._out: BinaryIO | None = getattr(out, "buffer", None)
        self._text = _Patient(out)

    def write(self, event: str, facts: dict[str, Any]) -> None:
        facts["event"] = event
        line = _encode(_stamp(None, "info", facts))
        if self._out is None:
            self._text.write(str(line, "utf-8") + "\n")
            self._text.flush()
            return
        try:
            self._out.write(line + b"\n")
            self._out.flush()
        except (OSError, ValueError):  # as in `_Patient`
            pass


_quick: _JsonLines | None = None


class _Patient:
    """Where nobody reads the log any more, requests are still served."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._out.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._out.flush()


_worker: int | None = None
_second = 0
_prefix = ""


def _stamp(_logger: Any, method: str, event: Any) -> Any:
    """Level and moment (UTC). Every request writes a line, so each microsecond here counts."""
    global _second, _prefix  # noqa: PLW0603  (the text of a second is made once a second)
    now = time.time()
    if int(now) != _second:
        _second = int(now)
        _prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(_second))
    if _worker is not None:
        event["worker"] = _worker
    event["level"] = method
    event["timestamp"] = f"{_prefix}.{int(now % 1 * 1000):03d}Z"
    return event


def _exception(logger: Any, method: str, event: Any) -> Any:
    if "exc_info" not in event:
        return event
    return structlog.processors.format_exc_info(logger, method, event)


def _to_json(_logger: Any, _method: str, event: Any) -> str:
    return str(_encode(event), "utf-8")


_encode = json.Encoder(enc_hook=repr).encode
