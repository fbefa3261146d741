"""The right to serve a data directory: one process at a time has it, whoever reads goes without."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

from botwire_server.errors import Unusable
from botwire_server.store import premises

LOCK_PAUSE = 0.05


class Occupied(Unusable):
    """Another process serves the data directory."""


class Lock:
    """The right to serve a data directory; held until `release` or the end of the process."""

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

    def release(self) -> None:
        """Let another server in."""
        os.close(self._descriptor)


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
