"""Copies of SQLite files as they are at one moment, also while a server writes them.

Copied through SQLite's backup API: what was committed before the copy begins is in it, and nothing
half-done. A file that is copied byte by byte while it is written is stale or corrupt.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import orjson

from botwire_server.errors import Damaged, Unusable
from botwire_server.store import checking, driver, schemas
from botwire_server.store.driver import Connection, sqlite3
from botwire_server.store.migrations import CONTROL, NAMESPACE, Schema, migrate
from botwire_server.store.namespace import Outlook, Totals, count

_PART = 1 << 20
_FULL = 13  # SQLITE_FULL


class Digest(NamedTuple):
    """A file's size and the SHA-256 of its bytes."""

    bytes: int
    sha256: str


def copy(source: Path, to: Path) -> None:
    """Copy an SQLite file as it is now to a new file. Raises `Damaged` or `Unavailable`."""
    os.close(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with opened(source) as original, opened(to) as target:
        # Whoever keeps it syncs it; until then it is nothing.
        target.execute("PRAGMA synchronous = OFF")
        try:
            original.backup(target)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) == _FULL:
                raise Unusable("There is no room left for the backup.") from error
            raise


def version(file: Path, *salt: str | None) -> str:
    """What moves with every change of a namespace's file; equal where nothing was changed.

    `salt` is what else must be equal.
    """
    with opened(file) as connection:
        return _version(connection, salt)


def inspect(file: Path, id: str, *salt: str | None) -> str:
    """Look a namespace's copy through; its `version`. Raises `Damaged` if anything is amiss."""
    with opened(file) as connection:
        _check(connection, NAMESPACE)
        return _of_namespace(connection, id, salt)


def inspect_foreign(file: Path, id: str, *, thorough: bool) -> None:
    """Look through a namespace's copy that came from elsewhere. Raises `Damaged`."""
    schemas.require_small(file)
    with opened(file) as connection:
        _check(connection, NAMESPACE, thorough=thorough)
        _of_namespace(connection, id, ())


def inspect_control(file: Path) -> None:
    """Look a registry's copy through, wherever it came from. Raises `Damaged`."""
    schemas.require_small(file)
    with opened(file) as connection:
        _check(connection, CONTROL, thorough=True)


def adopt(file: Path, id: str, *, thorough: bool) -> tuple[Totals, Outlook]:
    """Bring a namespace's copy up to date, as that of the namespace `id`; what it holds.

    A `thorough` look goes through every row as well. Raises `Damaged`; then the file is of no use.
    """
    with building(file) as connection:
        migrate(connection, NAMESPACE)
        if thorough:
            for damage in checking.namespace(connection):
                raise Damaged(f"The file is damaged: {damage}.")
        connection.execute("UPDATE totals SET owner = ?", (id,))
        return count(connection)


@contextmanager
def building(file: Path) -> Iterator[Connection]:
    """A connection to a file that nobody else has and that is worth nothing before it is whole.

    Without a journal: that would take as much room again. Whoever keeps the file syncs it.
    """
    with opened(file) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        [before] = connection.execute("PRAGMA journal_mode").fetchone()
        connection.execute("PRAGMA journal_mode = OFF")
        yield connection
        connection.execute(f"PRAGMA journal_mode = {before}")


def digest(file: Path) -> Digest:
    """Size and checksum of a file."""
    found = hashlib.sha256()
    size = 0
    with file.open("rb") as stream:
        while part := stream.read(_PART):
            found.update(part)
            size += len(part)
    return Digest(size, found.hexdigest())


def sync(file: Path) -> None:
    """See a file's bytes on the disk."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _version(connection: Connection, salt: tuple[str | None, ...]) -> str:
    [schema] = connection.execute("PRAGMA user_version").fetchone()
    cursor = connection.execute("SELECT * FROM totals")
    row = cursor.fetchone()
    if row is None:
        raise Damaged("The file has lost its counters.")
    counters = dict(zip((column[0] for column in cursor.description), row, strict=True))
    # Written when a file is first opened: no change of what is stored.
    counters.pop("owner", None)
    if not all(type(value) is int for value in counters.values()):
        raise Damaged("The file's counters cannot be.")
    return hashlib.sha256(orjson.dumps([schema, counters, salt])).hexdigest()


def _of_namespace(connection: Connection, id: str, salt: tuple[str | None, ...]) -> str:
    """The version of a namespace's file. Raises `Damaged` if it is another's."""
    found = _version(connection, salt)
    if _owner(connection) not in (None, id):
        raise Damaged("The file is another namespace's.")
    return found


def _owner(connection: Connection) -> str | None:
    columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(totals)")}
    if "owner" not in columns:
        return None
    [owner] = connection.execute("SELECT owner FROM totals").fetchone()
    return None if owner is None else str(owner)


def _check(connection: Connection, schema: Schema, *, thorough: bool | None = None) -> None:
    schemas.require_kind(connection, schema)
    schemas.require_known(connection, schema)
    if thorough is not None:
        schemas.require_bounded(connection, thorough=thorough)
    for damage in checking.structure(connection):
        raise Damaged(f"The file is damaged: {damage}.")


@contextmanager
def opened(file: Path) -> Iterator[Connection]:
    """A connection to a file. What SQLite says is raised as `Damaged` or `Unavailable`."""
    try:
        with closing(driver.connect(file)) as connection:
            yield connection
    except UnicodeDecodeError as error:  # SQLite quotes a garbled schema in its message
        raise Damaged(driver.DAMAGED) from error
    except sqlite3.Error as error:
        raise driver.refusal(error) from error
