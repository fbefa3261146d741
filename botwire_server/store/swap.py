"""Putting a restored data directory in the place of the one that is there: all of it or nothing.

    .restore/new     what was restored: control.db and tenants, built and checked
    .restore/ready   written when that is whole and on the disk; from here on it is finished
    .restore/old     what it replaces, moved aside; removed at the end
    .replaced-…      what a restore has replaced and the system did not let us remove

A crash before `ready` leaves the old state, one after it the new: whoever opens the data directory
next calls `finish`. That everything can be moved is proved before anything is built; where it
cannot be moved all the same, what was there is put back. What cannot be removed is left, and said.
Only the holder of the lock may change anything here.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from botwire_server.errors import Unusable
from botwire_server.store import causes, mounts
from botwire_server.store.migrations import sync_directory, write_new

log = logging.getLogger(__name__)

PLACE = ".restore"
REPLACED = ".replaced-"
CONTROL = "control.db"
TENANTS = "tenants"
# control.db goes last: while it is still among the new, what has its name here is old.
ORDER = (TENANTS, f"{CONTROL}-wal", f"{CONTROL}-shm", CONTROL)

ELSEWHERE = "restore into another --data-dir"


class PutBack(Unusable):
    """A restore that was decided cannot be finished; everything is as it was before it."""


def is_due(data_dir: Path) -> bool:
    """Whether a restore was decided and not finished."""
    place = data_dir / PLACE
    return (place / "ready").exists() and (place / "new" / CONTROL).exists()


def replaced(data_dir: Path) -> list[Path]:
    """What earlier restores have replaced, and could not be removed."""
    return sorted(data_dir.glob(f"{REPLACED}*"))


def obstacle(data_dir: Path) -> str | None:
    """Why what is there cannot be moved aside, as far as that can be seen; None where it can."""
    for name in ORDER:
        path = data_dir / name
        if path.is_symlink():
            return f"{path} is a link, and a restore would leave behind what it leads to"
        for point in mounts.below(path):
            return f"{point} is a mount of its own, which cannot be moved"
    return None


@contextmanager
def building(data_dir: Path) -> Iterator[Path]:
    """An empty place to build in. What was built takes the place of what is there at the end.

    Its files must be on the disk by then. Where an exception ends it, nothing was changed. Raises
    `Unusable` before it begins where what is there cannot be moved aside.
    """
    finish(data_dir)
    place = data_dir / PLACE
    for directory in (place, place / "new", place / "new" / TENANTS):
        directory.mkdir(mode=0o700)
    try:
        _prove(data_dir, place)
        yield place / "new"
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    _decide(data_dir, place)


def finish(data_dir: Path) -> None:
    """Do what was decided, or remove what was not; safe to repeat, and where nothing is due.

    Raises `PutBack` where that cannot be done and what was there before is there again.
    """
    place = data_dir / PLACE
    if is_due(data_dir):
        try:
            _exchange(data_dir, place / "new", place / "old")
        except OSError as error:
            _put_back(data_dir, place, error)
    if place.exists():
        sync_directory(data_dir)  # before anything old is removed
        _clear(data_dir, place)
    for path in replaced(data_dir):
        shutil.rmtree(path, ignore_errors=True)
        if path.exists():
            log.warning(
                "%s cannot be removed: it holds what a restore has replaced; remove it", path
            )


def _prove(data_dir: Path, place: Path) -> None:
    """Raise `Unusable` where something that is there could not be moved.

    It is moved onto a directory that is not empty. That never succeeds, and by its error the
    system tells whether anything but that is in the way: a mount, the rights, an immutable file.
    """
    found = obstacle(data_dir)
    if found is not None:
        raise Unusable(f"Nothing was restored: {found}. Unmount or move it, or {ELSEWHERE}.")
    full = place / "full"
    (full / "inside").mkdir(parents=True, mode=0o700)
    for name in ORDER:
        path = data_dir / name
        if not path.exists():
            continue
        try:
            os.rename(path, full)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR):
                says, remedy = causes.of(error)
                raise Unusable(
                    f"Nothing was restored: {path} cannot be moved aside: {says}. To go on, "
                    f"{remedy}, or {ELSEWHERE}."
                ) from error
    shutil.rmtree(full)


def _decide(data_dir: Path, place: Path) -> None:
    for directory in (place / "new" / TENANTS, place / "new", place, data_dir):
        sync_directory(directory)
    write_new(place / "ready", b"")
    sync_directory(place)
    finish(data_dir)


def _exchange(data_dir: Path, new: Path, old: Path) -> None:
    old.mkdir(exist_ok=True, mode=0o700)
    if (new / TENANTS).exists():
        _move(data_dir / TENANTS, old / TENANTS)
    for name in ORDER[1:]:
        _move(data_dir / name, old / name)
    _move(new / TENANTS, data_dir / TENANTS)
    sync_directory(old)
    sync_directory(data_dir)
    _move(new / CONTROL, data_dir / CONTROL)
    sync_directory(new)
    sync_directory(data_dir)


def _put_back(data_dir: Path, place: Path, error: OSError) -> None:
    """Undo what was moved, then the decision; a crash in between, and it is begun once more."""
    says, remedy = causes.of(error)
    new, old = place / "new", place / "old"
    if not (new / CONTROL).exists():
        # Everything is in its place, and only that is not known to last: the next open sees to it.
        raise Unusable(f"A restore of {data_dir} is done but for its last fsync: {says}.")
    try:
        if not (new / TENANTS).exists():  # it was moved already
            _move(data_dir / TENANTS, new / TENANTS)
        for name in ORDER:
            _move(old / name, data_dir / name)
        sync_directory(data_dir)
        (place / "ready").unlink()
        sync_directory(place)
    except OSError as another:
        raise Unusable(
            f"A restore of {data_dir} was begun and can be neither finished nor put back: {says}. "
            f"To go on, {remedy}, and start again: it is finished then. What it replaces lies in "
            f"{old}, what was restored in {new}; remove neither."
        ) from another
    _clear(data_dir, place)
    raise PutBack(
        f"A restore of {data_dir} could not be finished: {says}. What was there before is there "
        f"as it was, and nothing was restored. To restore, {remedy}, or {ELSEWHERE}."
    ) from error


def _clear(data_dir: Path, place: Path) -> None:
    """Remove a place in which nothing is due, its mark last; what cannot be goes out of the way."""
    for path in (place / "new", place / "old", place):
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        if place.exists():
            os.rename(place, data_dir / f"{REPLACED}{secrets.token_hex(4)}")
        sync_directory(data_dir)


def _move(path: Path, to: Path) -> None:
    if path.exists():
        os.rename(path, to)
