"""What must hold for the files of a data directory whenever no unit of work runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from botwire_server.store import checking, driver
from botwire_server.store.driver import sqlite3


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
            # Another connection can begin to write only while nobody has a transaction open.
            connection.execute("PRAGMA busy_timeout = 500")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.DatabaseError as error:
            yield f"{name}: {error}"
        finally:
            connection.close()
