"""How log lines look, and what an unexpected error may say in them.

Keys, values and names of tenants' things never reach a log, so an exception is told by its
classes and the places it went through, never by its text: that may quote anything.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
import traceback
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO

import orjson

log = logging.getLogger(__name__)

LogFormat = Literal["text", "json"]

# The request that is being served, for every line that is written meanwhile.
request_id: ContextVar[str] = ContextVar("request_id", default="")


def describe(error: BaseException) -> str:
    """The classes of an exception and its causes, and the lines of code they came through."""
    parts = []
    seen: BaseException | None = error
    while seen is not None:
        frames = " < ".join(
            f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}"
            for frame in reversed(traceback.extract_tb(seen.__traceback__))
        )
        name = getattr(seen, "sqlite_errorname", None)
        parts.append(f"{type(seen).__name__}{f' {name}' if name else ''} at {frames or '?'}")
        seen = seen.__cause__ or seen.__context__
    return "; from ".join(parts)


def timestamp(seconds: float) -> str:
    """Unix seconds as 2026-11-20T10:46:51.123Z."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def json_line(level: str, message: str, *, at: float | None = None, **fields: Any) -> str:
    """A line of a log as JSON, without its end; `at` is Unix seconds, now where it is missing."""
    line = {
        "time": timestamp(time.time() if at is None else at),
        "level": level,
        "message": message.encode("utf-8", "backslashreplace").decode(),
        **fields,
    }
    return orjson.dumps(line).decode()


class _Formatter(logging.Formatter):
    def __init__(self, style: LogFormat) -> None:
        super().__init__()
        self._json = style == "json"

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message = f"{message}: {describe(record.exc_info[1])}"
        # Where an error is told later than it happened, `extra` says to whom.
        id = getattr(record, "request_id", None)
        if id is None:
            id = request_id.get()
        if self._json:
            fields = {"request_id": id} if id else {}
            level = record.levelname.lower()
            return json_line(level, message, at=record.created, logger=record.name, **fields)
        text = f"{timestamp(record.created)} {record.levelname.lower()} {message}"
        return f"{text} {id}" if id else text


def configure(level: str, style: LogFormat, stream: TextIO = sys.stderr) -> None:
    """Send this process's log lines to `stream`."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Formatter(style))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # What it says of starting, stopping and failing, we say ourselves.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)


def take_over() -> None:
    """Log also what Python would write by itself: of another shape, and it may quote anything."""
    logging.captureWarnings(capture=True)
    logging.raiseExceptions = False
    sys.excepthook = _told
    sys.unraisablehook = lambda fault: _tell(fault.exc_value)
    threading.excepthook = lambda fault: _tell(fault.exc_value)


def _told(kind: type[BaseException], error: BaseException, trace: TracebackType | None, /) -> None:
    _tell(error)


def _tell(error: BaseException | None) -> None:
    if error is not None:
        log.error("unexpected: %s", describe(error))
