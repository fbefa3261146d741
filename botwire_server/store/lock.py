"""The right to serve a data directory: one process at a time has it, whoever reads goes without."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from botwire_server.errors import Unusable
from botwire_server.lazy import fcntl
from botwire_server.store import premises

LOCK_PAUSE = 0.05
LARGEST_TOLD = 65_536


class Occupied(Unusable):
    """Another process serves the data directory."""


class Lock:
    """The right to serve a data directory; held until `release` or the end of the process.

    Who holds it may `tell` how it is reached. What was told is true as long as it is held.
    """

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            if not isinstance(error, BlockingIOError):
                raise premises.unusable(directory, error) from error
            raise Occupied(
                f"Another botwire-server is serving {directory}: stop it, or name another "
                "--data-dir."
            ) from error

        self.tell({})  # what the last one told

    def tell(self, facts: Mapping[str, Any]) -> None:
        """Say to this machine's commands how the server is reached."""
        with contextlib.suppress(OSError):  # a full disk: then nobody is told
            os.ftruncate(self._descriptor, 0)
            if facts:
                os.pwrite(self._descriptor, orjson.dumps(facts) + b"\n", 0)

    def release(self) -> None:
        """Let another server in."""
        os.close(self._descriptor)


def told(directory: Path) -> dict[str, Any] | None:
    """What the holder of the lock tells, {} where it tells nothing; None where nobody holds it."""
    try:
        descriptor = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        with contextlib.suppress(OSError, orjson.JSONDecodeError):
            found = orjson.loads(os.pread(descriptor, LARGEST_TOLD, 0))
            if isinstance(found, dict):
                return found
        return {}
    finally:
        os.close(descriptor)
    return None


async def locked(path: Path, patience: float) -> Lock:
    """The lock of a data directory; one that another holds is waited for `patience` seconds."""
    attempts = 1 + round(patience / LOCK_PAUSE)
    while True:
        attempts -= 1
        try:
            return Lock(path)
        except Occupied:
            if not attempts:
                raise
        except OSError as error:
            raise premises.unusable(path, error) from error
        await asyncio.sleep(LOCK_PAUSE)
