"""Private copies of database files: one moment of each, whoever writes meanwhile.

What is done to a copy reaches nobody else, and it has no name once it is open: a crash leaves
nothing of it. It refuses to lock the file that is copied for longer than reading it takes.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from botwire_server.store import driver
from botwire_server.store.driver import Connection, sqlite3

# The two bytes of the header that say which journal a file has; 1 is a rollback journal.
_JOURNAL_AT, _ROLLBACK = 18, b"\x01\x01"
_HEADER = 100


@contextmanager
def snapshot(path: Path, directory: Path) -> Iterator[Connection]:
    """A copy of the file at `path`, made in `directory`. Raises `sqlite3.Error` or `OSError`."""
    copy = directory / f"{secrets.token_hex(6)}.db"
    try:
        # Not read-only: that would leave the journal's files behind where nobody has it open.
        with closing(driver.connect(path)) as source:
            source.execute("PRAGMA query_only = ON")
            with closing(sqlite3.connect(copy, isolation_level=None)) as target:
                target.execute("PRAGMA journal_mode = OFF")
                target.execute("PRAGMA synchronous = OFF")
                source.backup(target)
        _without_wal(copy)
        connection = driver.connect(copy)
    finally:
        copy.unlink(missing_ok=True)
    with closing(connection):
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("PRAGMA synchronous = OFF")
        yield connection


def _without_wal(copy: Path) -> None:
    """Let the copy need no journal beside it; it is nobody else's."""
    descriptor = os.open(copy, os.O_RDWR | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_size >= _HEADER:
            os.pwrite(descriptor, _ROLLBACK, _JOURNAL_AT)
    finally:
        os.close(descriptor)
