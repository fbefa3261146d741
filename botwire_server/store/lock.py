"""The right to serve a data directory: one process at a time has it, whoever reads goes without."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from pathlib import Path

from botwire_server.errors import Unusable
from botwire_server.store.migrations import sync_directory

LOCK_PAUSE = 0.05


class Lock:
    """The right to serve a data directory; held until `release` or the end of the process."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise Unusable(
                f"Another botwire-server is serving {directory}: stop it, or name another "
                "--data-dir."
            ) from error

    def release(self) -> None:
        """Let another server in."""
        os.close(self._descriptor)


def make_directory(path: Path) -> None:
    """Make the data directory, for its owner's eyes only, where there is none."""
    missing = [parent for parent in path.absolute().parents if not parent.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Its own name must survive a power loss too, also if whoever made it did not come to that.
        for parent in (path.absolute().parent, *(made.parent for made in missing)):
            # Not everybody may look into what is above their data directory.
            with contextlib.suppress(PermissionError):
                sync_directory(parent)
    except OSError as error:
        raise _unusable(path, error) from error


async def locked(path: Path, patience: float) -> Lock:
    """The lock of a data directory; one that another holds is waited for `patience` seconds."""
    attempts = 1 + round(patience / LOCK_PAUSE)
    while True:
        attempts -= 1
        try:
            return Lock(path)
        except Unusable:
            if not attempts:
                raise
        except OSError as error:
            raise _unusable(path, error) from error
        await asyncio.sleep(LOCK_PAUSE)


def _unusable(path: Path, error: OSError) -> Unusable:
    return Unusable(
        f"{path} cannot be used as data directory ({os.strerror(error.errno or 0)}): name "
        "another --data-dir, or give this user the right to write there."
    )
