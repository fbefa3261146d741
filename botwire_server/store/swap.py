"""Putting a restored data directory in the place of the one that is there: all of it or nothing.

    .restore/new     what was restored: control.db and tenants, built and checked
    .restore/ready   written when that is whole and on the disk; from here on it is finished
    .restore/old     what it replaces, moved aside; removed at the end

A crash before `ready` leaves the old state, one after it the new: whoever opens the data directory
next calls `finish`. Only the holder of the lock may call anything here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from botwire_server.store.migrations import sync_directory, write_new

PLACE = ".restore"
CONTROL = "control.db"
TENANTS = "tenants"


def is_due(data_dir: Path) -> bool:
    """Whether a restore was decided and not finished."""
    return (data_dir / PLACE / "ready").exists()


@contextmanager
def building(data_dir: Path) -> Iterator[Path]:
    """An empty place to build in. What was built takes the place of what is there at the end.

    Its files must be on the disk by then. Where an exception ends it, nothing was changed.
    """
    finish(data_dir)
    place = data_dir / PLACE
    for directory in (place, place / "new", place / "new" / TENANTS):
        directory.mkdir(mode=0o700)
    try:
        yield place / "new"
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    _decide(data_dir, place)


def _decide(data_dir: Path, place: Path) -> None:
    for directory in (place / "new" / TENANTS, place / "new", place, data_dir):
        sync_directory(directory)
    write_new(place / "ready", b"")
    sync_directory(place)
    finish(data_dir)


def finish(data_dir: Path) -> None:
    """Do what was decided, or remove what was not; safe to repeat, and where nothing is due."""
    place = data_dir / PLACE
    if not place.exists():
        return
    if is_due(data_dir):
        _exchange(data_dir, place / "new", place / "old")
        for done in ("new", "old"):
            if (place / done).exists():
                shutil.rmtree(place / done)
        sync_directory(place)
    # The mark goes with the rest, once there is nothing left that it decides on.
    shutil.rmtree(place)
    sync_directory(data_dir)


def _exchange(data_dir: Path, new: Path, old: Path) -> None:
    # control.db goes last: while it is still among the new, what has its name here is old.
    if not (new / CONTROL).exists():
        return
    old.mkdir(exist_ok=True, mode=0o700)
    if (new / TENANTS).exists():
        _move(data_dir / TENANTS, old / TENANTS)
    for name in (f"{CONTROL}-wal", f"{CONTROL}-shm", CONTROL):
        _move(data_dir / name, old / name)
    _move(new / TENANTS, data_dir / TENANTS)
    sync_directory(old)
    sync_directory(data_dir)
    _move(new / CONTROL, data_dir / CONTROL)
    sync_directory(new)
    sync_directory(data_dir)


def _move(path: Path, to: Path) -> None:
    if path.exists():
        os.rename(path, to)
