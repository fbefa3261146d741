"""One line a request: method, route template, status, milliseconds, request id.

Never a name, a key or a value: the route's template stands for the path. Lines are collected and
written together, so that a busy server does not pay a system call for each.
"""

from __future__ import annotations

import asyncio
import time
from typing import TextIO

import orjson

from botwire_server.logs import LogFormat, timestamp

WRITE_EVERY = 0.05


class RequestLog:
    """Collects lines on the event loop; `flush` writes what is there."""

    def __init__(self, stream: TextIO, style: LogFormat) -> None:
        self._stream = stream
        self._json = style == "json"
        self._lines: list[tuple[float, str, str, int, float, str]] = []

    def add(self, method: str, template: str, status: int, seconds: float, id: str) -> None:
        """Note an answered request."""
        if not self._lines:
            asyncio.get_running_loop().call_later(WRITE_EVERY, self.flush)
        self._lines.append((time.time(), method, template, status, seconds * 1000, id))

    def flush(self) -> None:
        """Write the lines that were collected."""
        lines, self._lines = self._lines, []
        shape = _json_line if self._json else _text_line
        self._stream.write("".join([shape(*line) for line in lines]))
        self._stream.flush()


def _text_line(at: float, method: str, template: str, status: int, ms: float, id: str) -> str:
    return f"{timestamp(at)} info {method} {template} {status} {ms:.1f}ms {id}\n"


def _json_line(at: float, method: str, template: str, status: int, ms: float, id: str) -> str:
    line = {
        "time": timestamp(at),
        "level": "info",
        "method": method,
        "route": template,
        "status": status,
        "ms": round(ms, 3),
        "request_id": id,
    }
    return orjson.dumps(line).decode() + "\n"
