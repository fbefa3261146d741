"""Answers whose rows may be many or large: encoded row by row, while others are served in between.

What is encoded holds the interpreter's lock, and with it the loop: a megabyte at a time does so for
some milliseconds, an answer of sixty for a quarter of a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from botwire_server.web.body import LARGEST_AT_ONCE, Json
from botwire_server.web.spool import Spooled, Spools

# What no JSON text holds: it stands for what is encoded apart.
_HERE = b"\0"


async def pieced(
    data: Mapping[str, Any], wrap: Callable[[Any], Json], *, limited: bool = True
) -> Json:
    """The answer `wrap(data)`. The lists in `data` are encoded row by row, `bytes` are JSON, and so
    is a `tuple` of them together.

    Not `limited`, it may be of any size: what was stored is told in full.
    """
    apart = {
        name: await _encoded(value) if isinstance(value, list) else _parts(value)
        for name, value in data.items()
        if isinstance(value, bytes | list | tuple)
    }
    if sum(len(part) for parts in apart.values() for part in parts) > LARGEST_AT_ONCE:
        shown = {**data, **dict.fromkeys(apart, orjson.Fragment(_HERE))}
        return Pieced(wrap(shown), list(apart.values()), limited=limited)
    return wrap({**data, **{name: orjson.Fragment(b"".join(it)) for name, it in apart.items()}})


def _parts(value: bytes | tuple[bytes, ...]) -> list[bytes]:
    """JSON in parts."""
    return [value] if isinstance(value, bytes) else list(value)


class Pieced(Json):
    """An answer with parts that are not in its body yet: they stand where a NUL is."""

    def __init__(self, shell: Json, apart: list[list[bytes]], *, limited: bool) -> None:
        self.status_code = shell.status_code
        self.background = None
        self.body = b""
        self._limited = limited
        first, *others = bytes(shell.body).split(_HERE)
        self._parts = [first]
        for parts, behind in zip(apart, others, strict=True):
            self._parts += [*parts, behind]
        size = sum(map(len, self._parts))
        self.raw_headers = [
            (name, b"%d" % size if name == b"content-length" else value)
            for name, value in shell.raw_headers
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it out of a spool."""
        spools: Spools = scope["spools"]
        spool = spools.open(limited=self._limited)
        parts, self._parts = self._parts, []
        with spool.kept():
            waiting: list[bytes] = []
            size = 0
            for part in parts:
                waiting.append(part)
                size += len(part)
                if size > LARGEST_AT_ONCE:
                    await spool.write(b"".join(waiting))
                    waiting, size = [], 0
            await spool.write(b"".join(waiting))
        del parts
        await Spooled(spool, self.status_code, self.raw_headers)(scope, receive, send)


async def _encoded(rows: list[Any]) -> list[bytes]:
    """A JSON array in parts."""
    parts = [b"["]
    since = 0
    for row in rows:
        part = orjson.dumps(row)
        parts.append(part)
        parts.append(b",")
        since += len(part)
        if since > LARGEST_AT_ONCE:
            await asyncio.sleep(0)
            since = 0
    parts[-1 if rows else 1 :] = [b"]"]
    return parts
