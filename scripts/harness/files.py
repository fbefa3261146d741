"""What must hold for the files of a data directory whenever no unit of work runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from botwire_server.store import driver
from botwire_server.store.driver import Connection, sqlite3

# Each counter of `totals`, and how to count it anew.
COUNTED = {
    "entries": "SELECT count(*) FROM entries",
    "states": "SELECT count(*) FROM states",
    "memories": "SELECT count(*) FROM memories",
    "episodes": "SELECT count(*) FROM episodes",
    "bytes": """SELECT (SELECT total(bytes) FROM entries) + (SELECT total(bytes) FROM states)
        + (SELECT total(bytes) FROM memories) + (SELECT total(bytes) FROM episodes)""",
    "key_bytes": "SELECT total(octet_length(key)) FROM entries",
}


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
            [verdict] = connection.execute("PRAGMA integrity_check").fetchone()
            if verdict != "ok":
                yield f"{name}: integrity_check says {verdict}"
            if path.name != "control.db":
                yield from (f"{name}: {problem}" for problem in _wrong_totals(connection))
            # Another connection can begin to write only while nobody has a transaction open.
            connection.execute("PRAGMA busy_timeout = 500")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.DatabaseError as error:
            yield f"{name}: {error}"
        finally:
            connection.close()


def _wrong_totals(connection: Connection) -> Iterator[str]:
    for column, count in COUNTED.items():
        said, counted = connection.execute(f"SELECT {column}, ({count}) FROM totals").fetchone()  # noqa: S608
        if said != counted:
            yield f"totals say {said} {column}, and there are {counted:g}"
    [newest, revision] = connection.execute(
        "SELECT (SELECT max(revision) FROM entries), revision FROM totals"
    ).fetchone()
    if newest is not None and newest > revision:
        yield f"revision {newest} was given, and totals stand at {revision}"
