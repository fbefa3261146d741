"""The first key of a server, which nobody has seen yet: kept in a file where nobody looks on."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

NAME = "first-key"


def keep(data_dir: Path, key: str) -> Path | None:
    """Write the key where its owner alone can read it; None where the disk does not take it."""
    path = data_dir / NAME
    try:
        path.unlink(missing_ok=True)
        # Made anew: nobody can have opened it before.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "w") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(f"{key}\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        return None
    return path


def kept(data_dir: Path) -> Path | None:
    """Where it still lies, if it does."""
    path = data_dir / NAME
    return path if path.is_file() else None
