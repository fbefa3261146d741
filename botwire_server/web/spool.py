"""Spools: where an answer waits until its reader has taken it, in a file without a name.

What is large is not kept in memory for who reads slowly or not at all, and its length is known
before the first byte goes out: it is whole, or it is refused. A crash leaves nothing of it.
"""

from __future__ import annotations

import asyncio
import errno
import io
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from botwire_server.errors import AnswerTooLarge, Unavailable

RawHeaders = list[tuple[bytes, bytes]]

log = logging.getLogger(__name__)

# So much is handed to a connection at a time; more is asked for when that is sent.
PIECE_BYTES = 65_536
# What all answers that wait may take of the disk, and of the memory where the disk has no room.
MOST_WAITING = 2 * 1024**3
MOST_IN_MEMORY = 64 * 1024**2
# What is left of the disk for those who write, however many do not read.
KEPT_FREE = 64 * 1024**2


class Spools:
    """The spools of one server: at most `most_bytes` each, in files of `directory`."""

    def __init__(self, directory: Path, *, most_bytes: int) -> None:
        self._directory = directory
        self._most_bytes = most_bytes
        self._on_disk = self._in_memory = 0

    def open(self, *, limited: bool = True) -> Spool:
        """An empty spool, to be closed; of any size where it is not `limited`."""
        return Spool(self, limited=limited)

    def admit(self, size: int) -> None:
        """Raise `AnswerTooLarge` for an answer of this size."""
        if size > self._most_bytes:
            raise AnswerTooLarge(
                f"This answer would be larger than {self._most_bytes} bytes. Ask for less at once: "
                "send a smaller limit (or top_k), and go on with the cursor of each answer."
            )

    def require(self, size: int) -> None:
        """Raise `OSError` where the disk has no room for so many bytes more."""
        if shutil.disk_usage(self._directory).free < size + KEPT_FREE:
            raise OSError(errno.ENOSPC, "the rest of the disk is for what is written")

    def file(self) -> IO[bytes]:
        """A new file without a name."""
        return tempfile.TemporaryFile(dir=self._directory, buffering=0)

    def take(self, size: int, *, memory: bool) -> None:
        """Keep room for so many bytes more. Raises `Unavailable` where there is none."""
        if memory:
            if self._in_memory + size > MOST_IN_MEMORY:
                raise Unavailable(
                    "The server's disk is full, and there is no room for this answer; ask for "
                    "less at once, with limit."
                )
            self._in_memory += size
        else:
            if self._on_disk + size > MOST_WAITING:
                raise Unavailable("Too many large answers wait for their readers; try again later.")
            self._on_disk += size

    def give_back(self, size: int, *, memory: bool) -> None:
        """Let so many bytes go."""
        if memory:
            self._in_memory -= size
        else:
            self._on_disk -= size


class Spool:
    """Bytes that are written once and then read once. `size` is how many there are."""

    def __init__(self, spools: Spools, *, limited: bool) -> None:
        self._spools = spools
        self._limited = limited
        self._file: IO[bytes] | None = None
        self._memory = False
        self.size = 0

    async def write(self, data: bytes | memoryview) -> None:
        """Add bytes at the end. Raises `AnswerTooLarge`; `Unavailable` where there is no room."""
        if self._limited:
            self._spools.admit(self.size + len(data))
        self._spools.take(len(data), memory=self._memory)
        self.size += len(data)
        try:
            await asyncio.to_thread(self._write, data)
        except OSError as error:
            log.warning("an answer waits in memory: %s", os.strerror(error.errno or 0))
            await self._move(data)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Close it where filling it fails."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    async def rewind(self) -> None:
        """Begin to read."""
        if self._file is not None:
            await asyncio.to_thread(self._file.seek, 0)

    async def read(self) -> bytes:
        """The next piece; empty at the end."""
        if self._file is None:
            return b""
        return await asyncio.to_thread(self._file.read, PIECE_BYTES)

    def close(self) -> None:
        """Let the bytes go; may be called again."""
        file, self._file = self._file, None
        if file is not None:
            file.close()
        self._spools.give_back(self.size, memory=self._memory)
        self.size = 0

    def _write(self, data: bytes | memoryview) -> None:
        if not self._memory:
            self._spools.require(len(data))
        if self._file is None:
            self._file = self._spools.file()
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    async def _move(self, data: bytes | memoryview) -> None:
        """Go on in memory with what was written before `data`, and `data`."""
        if self._memory:
            raise Unavailable("There is no room for this answer; ask for less at once, with limit.")
        self._spools.take(self.size, memory=True)
        self._spools.give_back(self.size, memory=False)
        self._memory = True
        older, self._file = self._file, io.BytesIO()
        if older is not None:
            with older:
                older.seek(0)
                self._file.write(await asyncio.to_thread(older.read, self.size - len(data)))
        self._file.write(data)


class Spooled(Response):
    """A JSON answer out of a spool, sent as fast as it is taken."""

    def __init__(
        self, spool: Spool, status_code: int = 200, headers: RawHeaders | None = None
    ) -> None:
        self._spool = spool
        self.status_code = status_code
        self.background = None
        self.body = b""
        self.raw_headers = headers or [
            (b"content-length", b"%d" % spool.size),
            (b"content-type", b"application/json"),
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, and let the spool go."""
        try:
            await self._spool.rewind()
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            if scope["method"] != "HEAD":
                while piece := await self._spool.read():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._spool.close()
