"""Room on a disk, asked for before it is taken: half of what was to be written helps nobody."""

from __future__ import annotations

import shutil
from pathlib import Path

from botwire_server.errors import StorageFull

# What other files grow by meanwhile.
SPARE = 8 * 1024 * 1024


def require(place: Path, needed: int, *, what: str) -> None:
    """Raise `StorageFull` where a directory's disk has no room for so many bytes."""
    free = shutil.disk_usage(place).free
    if needed + SPARE > free:
        raise StorageFull(
            f"{what} takes {_shown(needed)} on the disk of {place}, and {_shown(free)} are free. "
            "Nothing was changed: make room there and try again."
        )


def _shown(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
