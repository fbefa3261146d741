"""What must hold for the files of a data directory whenever no unit of work runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from botwire_server.store import checking, driver
from botwire_server.store.driver import Connection, sqlite3


def versions() -> tuple[str, str]:
    """Those of SQLite and sqlite-vec, once it is sure that the one loads the other."""
    driver.require_driver()
    connection = driver.connect(":memory:")
    row = connection.execute("SELECT sqlite_version(), vec_version()").fetchone()
    connection.close()
    sqlite, sqlite_vec = row
    return sqlite, sqlite_vec


def problems(data_dir: Path) -> Iterator[str]:
    """Everything that is wrong with the files: damage, totals that lie, open transactions."""
    for path in [data_dir / "control.db", *sorted(data_dir.glob("tenants/*/*.db"))]:
        name = path.name
        connection = driver.connect(path)
        try:
            wrong = checking.structure if path.name == "control.db" else checking.namespace
            yield from (f"{name}: {problem}" for problem in wrong(connection))
            if path.name == "control.db":
                yield from _wrong_registry(connection, data_dir)
            else:
                yield from (f"{name}: {problem}" for problem in _without_vectors(connection))
            # Another connection can begin to write only while nobody has a transaction open.
            connection.execute("PRAGMA busy_timeout = 500")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.DatabaseError as error:
            yield f"{name}: {error}"
        finally:
            connection.close()


def _without_vectors(connection: Connection) -> Iterator[str]:
    [count] = connection.execute(
        """SELECT count(*) FROM (SELECT id FROM memories WHERE (SELECT complete FROM vector_model)
            EXCEPT SELECT id >> 12 FROM vectors)"""
    ).fetchone()
    if count:
        yield f"{count} memories have no vectors"


def _wrong_registry(connection: Connection, data_dir: Path) -> Iterator[str]:
    known = {file for [file] in connection.execute("SELECT file FROM namespaces")}
    # What is buried goes with its purge.
    leaving = {file for [file] in connection.execute("SELECT file FROM tombstones")}
    there = {str(path.relative_to(data_dir)) for path in data_dir.glob("tenants/*/*.db")}
    drafts = {str(path.relative_to(data_dir)) for path in data_dir.glob("tenants/*/*.db.new")}
    for file in sorted(there - known - leaving):
        yield f"the registry does not know {Path(file).name}"
    for file in sorted(known - there - {draft.removesuffix(".new") for draft in drafts}):
        yield f"{Path(file).name} is missing"
    for id, file, revision in connection.execute("SELECT id, file, revision FROM namespaces"):
        if revision is not None and file in there:
            other = driver.connect(data_dir / file)
            [has, owner] = other.execute("SELECT revision, owner FROM totals").fetchone()
            other.close()
            if has < revision:
                yield f"{Path(file).name} is at revision {has}, and {revision} was noted"
            if owner not in (id, None):
                yield f"{Path(file).name} is the file of {owner}"
