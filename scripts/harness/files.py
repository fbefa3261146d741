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
    "vectors": "SELECT count(*) FROM vectors",
    "sessions": """SELECT count(*) FROM (
        SELECT session_id FROM states UNION SELECT session_id FROM episodes)""",
    "bytes": """SELECT (SELECT total(bytes) FROM entries) + (SELECT total(bytes) FROM states)
        + (SELECT total(bytes) FROM memories) + (SELECT total(bytes) FROM episodes)""",
    "key_bytes": "SELECT total(octet_length(key)) FROM entries",
}

# Statements that FTS5 answers with an error where its index and its rows disagree; an index
# without content of its own can only be compared with itself.
INDEXES = (
    "INSERT INTO memory_text (memory_text, rank) VALUES ('integrity-check', 1)",
    "INSERT INTO episode_text (episode_text) VALUES ('integrity-check')",
)

# What finds nothing where rows, words and vectors agree.
DISAGREEMENTS = {
    "memories without words": """SELECT id FROM memories
        EXCEPT SELECT id FROM memory_text_docsize""",
    "words without a memory": """SELECT id FROM memory_text_docsize
        EXCEPT SELECT id FROM memories""",
    "episodes without words": """SELECT id FROM episodes
        EXCEPT SELECT id FROM episode_text_docsize""",
    "words without an episode": """SELECT id FROM episode_text_docsize
        EXCEPT SELECT id FROM episodes""",
    "vectors without signs": "SELECT id FROM vectors EXCEPT SELECT rowid FROM memory_bits",
    "signs without a vector": "SELECT rowid FROM memory_bits EXCEPT SELECT id FROM vectors",
    "vectors without a memory": "SELECT id >> 12 FROM vectors EXCEPT SELECT id FROM memories",
    "memories without vectors": """SELECT id FROM memories WHERE (SELECT complete FROM vector_model)
        EXCEPT SELECT id >> 12 FROM vectors""",
    "histories without a memory": """SELECT memory_id FROM memory_history
        EXCEPT SELECT id FROM memories""",
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
                yield from (f"{name}: {problem}" for problem in _disagreements(connection))
            else:
                yield from _wrong_registry(connection, data_dir)
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


def _disagreements(connection: Connection) -> Iterator[str]:
    for what, select in DISAGREEMENTS.items():
        [count] = connection.execute(f"SELECT count(*) FROM ({select})").fetchone()  # noqa: S608
        if count:
            yield f"{count} {what}"
    for check in INDEXES:
        # Begun and undone: the check writes nothing, but counts as a write.
        connection.execute("BEGIN")
        try:
            connection.execute(check)
        except sqlite3.DatabaseError as error:
            yield f"{check.split()[2]}: {error}"
        finally:
            connection.execute("ROLLBACK")


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
