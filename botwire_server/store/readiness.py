"""Whether the data directory can be worked with at this moment: asked for, not assumed.

The answer is kept for a second and looked for once at a time, so that asking often costs the disk
nothing. A disk that does not answer is one that cannot be written.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import NamedTuple

from botwire_server.errors import Refusal
from botwire_server.store.directory import DataDirectory
from botwire_server.store.driver import Connection
from botwire_server.store.premises import CONTROL

KEPT_SECONDS = 1.0
# A disk that takes longer than this is no disk to write to.
PATIENCE_SECONDS = 3.0
_HEADER = b"SQLite format 3\0"
PROBE = "probe"
# More than a file system keeps beside a file's name: a full disk has no room for it.
PROBE_BYTES = 4_096


class Readiness(NamedTuple):
    """What works."""

    registry: bool
    disk: bool


class Prober:
    """Looks at one data directory."""

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._looking: asyncio.Task[Readiness] | None = None
        self._found = Readiness(registry=True, disk=True)
        self._found_at = float("-inf")

    async def look(self) -> Readiness:
        """What works now, or worked within the last second."""
        if time.monotonic() - self._found_at < KEPT_SECONDS:
            return self._found
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        looking = self._looking
        await asyncio.wait([looking], timeout=PATIENCE_SECONDS)
        if not looking.done():  # the next who asks waits for the same look, not for another
            return Readiness(registry=self._found.registry, disk=False)
        return looking.result()

    async def stop(self) -> None:
        """End a look that goes on."""
        if self._looking is not None:
            await asyncio.wait([self._looking], timeout=PATIENCE_SECONDS)

    async def _look(self) -> Readiness:
        try:
            if await asyncio.to_thread(self._directory.anchor.look):
                self._found = Readiness(
                    registry=await self._registry_answers(),
                    disk=await asyncio.to_thread(_writable, self._directory.path),
                )
            else:  # nothing is made in what has taken the directory's place
                self._found = Readiness(registry=False, disk=False)
            self._found_at = time.monotonic()
            return self._found
        finally:
            self._looking = None

    async def _registry_answers(self) -> bool:
        registry = self._directory.registry
        try:
            registry.keys_required()
            await registry.query(_anything)
        except Refusal:
            return False
        # What was written last is read from the journal, whatever has become of the file.
        return await asyncio.to_thread(_begins_right, self._directory.path / CONTROL)


def _anything(connection: Connection) -> None:
    connection.execute("SELECT count(*) FROM facts").fetchone()


def _begins_right(path: Path) -> bool:
    """Whether a file still begins as a database does."""
    try:
        with path.open("rb") as file:
            return file.read(len(_HEADER)) == _HEADER
    except OSError:
        return False


def _writable(directory: Path) -> bool:
    """Whether a small file can be made, written and put on the disk."""
    path = directory / PROBE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            whole = os.write(descriptor, bytes(PROBE_BYTES)) == PROBE_BYTES
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)
    except OSError:
        return False
    return whole
