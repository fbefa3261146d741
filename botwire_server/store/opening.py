"""A file is opened, and brought onto the disk: what a crash or a failing disk has left undone.

What is read in a journal that a crash left must be on the disk before it is believed. Where the
disk does not take what opening needs, a file can still be read. After a failed commit nothing is
written before everything committed is in the file.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from botwire_server.store import driver
from botwire_server.store.driver import Clock, Connection, Durability, error_name, sqlite3
from botwire_server.store.migrations import Schema, migrate, sync_directory

log = logging.getLogger(__name__)


def connect(
    path: Path | str, schema: Schema, durability: Durability, clock: Clock, freezes: bool
) -> Connection:
    """Open a file with its schema up to date; ":memory:" is a new one.

    With `freezes`, for reading only where the disk does not take what more needs.
    """
    # Whoever had it open last did not close it in peace: what was deleted may lie in the WAL.
    leftovers = path != ":memory:" and Path(f"{path}-wal").exists()
    try:
        connection = _migrated(path, schema, durability, clock)
    except sqlite3.Error as error:
        # A full disk has no room for the journal's index either. Reading goes without, unless
        # the journal holds what the file does not.
        if not freezes or path == ":memory:" or not _of_disk(error) or _size(f"{path}-wal"):
            raise
        log.warning("a file is opened for reading only: %s", error_name(error))
        connection = driver.connect(path, clock=clock, frozen=True)
        try:
            migrate(connection, schema)
        except BaseException:
            connection.close()
            raise
        return connection
    connection.leftovers = leftovers
    if leftovers and durability == "full":
        # What is read in it is believed, and noted in the registry: it must be on the disk.
        try:
            _sync(Path(f"{path}-wal"))
            sync_directory(Path(path).parent)
        except OSError as error:
            log.error("syncing a journal: %s", os.strerror(error.errno or 0))
            connection.doubtful = True
    return connection


def _migrated(path: Path | str, schema: Schema, durability: Durability, clock: Clock) -> Connection:
    connection = driver.connect(path, durability=durability, clock=clock)
    try:
        if path == ":memory:":
            for step in schema.steps:
                for statement in step:
                    connection.execute(statement)
        else:
            migrate(connection, schema)
    except BaseException:
        connection.close()
        raise
    return connection


def _of_disk(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DISK_CODES


_DISK_CODES = {10, 13, 14}  # SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def settle(connection: Connection) -> None:
    """Bring all that was committed into the file, and cut what was refused out of the WAL.

    An fsync that failed may succeed the next time without having written anything: what it was
    for has to be written again, and here it is. Raises while the disk fails.
    """
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    checkpoint(connection)
    connection.doubtful = False  # also if somebody who reads kept the WAL from being cut


def checkpoint(connection: Connection) -> bool:
    """Move the WAL into the file and cut it; False if a reader was in the way."""
    [busy, _, _] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if not busy:
        if connection.doubtful:
            # The cut itself is not on the disk yet: a power loss could bring back what was refused.
            [_, _, path] = connection.execute("PRAGMA database_list").fetchone()
            _sync(Path(f"{path}-wal"))
        connection.leftovers = connection.doubtful = False
    return not busy
