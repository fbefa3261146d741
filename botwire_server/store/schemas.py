"""Which schemas a file of ours can have: whatever else is in one was put there by somebody else.

A trigger, a view, a table or an index more would run with the next write. A schema is known if it
is that of a number of steps, for the dimension of vectors that the file records, the shadow tables
of FTS5 and vec0 included.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from botwire_server import limits
from botwire_server.errors import Damaged
from botwire_server.store import driver
from botwire_server.store.driver import Connection
from botwire_server.store.migrations import NAMESPACE, Schema
from botwire_server.store.vectors import FIRST_DIMENSION, vector_tables

# Eight times the largest request that a server takes unless it is told otherwise.
LARGEST_VALUE = 8 * 1024 * 1024
# The columns that hold what was stored.
_STORED = {
    ("entries", "value"),
    ("states", "data"),
    *(
        (table, name)
        for table in ("memories", "memory_history")
        for name in ("content", "metadata")
    ),
    *(("episodes", name) for name in ("content", "metadata")),
}

# More than twice what ours have.
_MOST_SCHEMA_BYTES, _MOST_SCHEMA_PAGES = 65_536, 128
_LONGEST_MODEL = 512


class Part(NamedTuple):
    """A table, index, trigger or view; its SQL in one line."""

    type: str
    name: str
    table: str
    sql: str | None


def require_kind(connection: Connection, schema: Schema) -> None:
    """Raise `Damaged` if a file is of another kind, or newer than this code."""
    [application_id] = connection.execute("PRAGMA application_id").fetchone()
    [steps] = connection.execute("PRAGMA user_version").fetchone()
    if application_id != schema.application_id or steps < 1:
        raise Damaged(f"The file is no {schema.name} file.")
    if steps > len(schema.steps):
        raise Damaged("The file was written by a newer botwire-server: update this one.")


def strange(connection: Connection, schema: Schema) -> Iterator[str]:
    """What is in a file that is not of its schema, or lacks; of a file of this kind.

    Nothing of the file is run: ask this before anything else is asked of it.
    """
    [steps] = connection.execute("PRAGMA user_version").fetchone()
    [encoding] = connection.execute("PRAGMA encoding").fetchone()
    if encoding != "UTF-8":
        yield f"its text is {encoding}"
    found = _parts(connection)
    known = _known(schema, steps, FIRST_DIMENSION)
    if schema is NAMESPACE:
        known = _known(schema, steps, _dimension(connection, found & known))
    for part in sorted(found - known, key=lambda part: part[:3]):
        yield f"a {part.type} that is not ours, or not as ours"
    for part in sorted(known - found, key=lambda part: part[:3]):
        yield f"the {part.type} {part.name} is missing or another"


def require_known(connection: Connection, schema: Schema) -> None:
    """Raise `Damaged` if a file has another schema than one of ours."""
    for problem in strange(connection, schema):
        raise Damaged(f"The file is no {schema.name} file of ours: {problem}.")


def require_bounded(connection: Connection, *, thorough: bool) -> None:
    """Raise `Damaged` where a value is larger than any that is looked at as a whole.

    What was stored is looked at only in a `thorough` check, and may else have any size. Of files of
    a known schema: their tables are those that we name.
    """
    tables = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0"
    ).fetchall()
    for [table] in tables:
        columns = [
            name
            for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")
            if thorough or (table, name) not in _STORED
        ]
        largest = ", ".join(f"max(octet_length({name}))" for name in columns)
        row = connection.execute(f"SELECT {largest} FROM {table}").fetchone()  # noqa: S608
        if any(size is not None and size > LARGEST_VALUE for size in row):
            raise Damaged(f"The file's {table} hold a value of more than {LARGEST_VALUE} bytes.")


def require_small(file: Path) -> None:
    """Raise `Damaged` where a schema is so large that SQLite had better not read it.

    SQLite takes all of it into memory when a file is first asked for anything.
    """
    total, seen, pending = 0, set[int](), [1]
    with file.open("rb") as stream:
        header = stream.read(100)
        size = int.from_bytes(header[16:18], "big")
        size = 65_536 if size == 1 else size
        if header[:16] != b"SQLite format 3\x00" or size < 512 or size & size - 1:
            raise Damaged("The file is no SQLite file.")
        while pending:
            number = pending.pop()
            if number in seen or len(seen) >= _MOST_SCHEMA_PAGES:
                raise _too_large()
            seen.add(number)
            stream.seek((number - 1) * size)
            page = stream.read(size)
            at = 100 if number == 1 else 0
            kind, cells = page[at : at + 1], int.from_bytes(page[at + 3 : at + 5], "big")
            first = at + (12 if kind == b"\x05" else 8)
            places = [
                int.from_bytes(page[place : place + 2], "big")
                for place in range(first, first + 2 * cells, 2)
            ]
            if kind == b"\x05":  # an interior page of a table
                pending += [int.from_bytes(page[place : place + 4], "big") for place in places]
                pending.append(int.from_bytes(page[at + 8 : at + 12], "big"))
            elif kind == b"\x0d":  # a leaf
                total += sum(_varint(page, place) for place in places)
            else:
                raise Damaged("The file's schema cannot be read.")
            if total > _MOST_SCHEMA_BYTES:
                raise _too_large()


def _too_large() -> Damaged:
    return Damaged("The file's schema is larger than any of ours.")


def _varint(page: bytes, at: int) -> int:
    value = 0
    for byte in page[at : at + 9]:
        value = value << 7 | byte & 127
        if byte < 128:
            break
    return value


def _parts(connection: Connection) -> frozenset[Part]:
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema")
    return frozenset(Part(type, name, table, _plain(sql)) for type, name, table, sql in rows)


def _plain(sql: Any) -> str | None:
    return None if sql is None else " ".join(str(sql).split())


def _dimension(connection: Connection, known: frozenset[Part]) -> int:
    """The dimension that a namespace's file records, where what it records it in is ours."""
    if not any(part.name == "vector_model" for part in known):
        return FIRST_DIMENSION
    rows = connection.execute(
        "SELECT octet_length(name), dimension FROM vector_model LIMIT 2"
    ).fetchall()
    if len(rows) != 1:
        raise Damaged("The file has lost whose vectors it holds.")
    [(name, dimension)] = rows
    if name is None:
        return FIRST_DIMENSION
    if (
        type(name) is not int
        or name > _LONGEST_MODEL
        or type(dimension) is not int
        or not 1 <= dimension <= limits.DIMENSION
    ):
        raise Damaged("The file holds vectors that cannot be.")
    return dimension


@lru_cache(maxsize=64)
def _known(schema: Schema, steps: int, dimension: int) -> frozenset[Part]:
    with closing(driver.connect(":memory:")) as connection:
        for step in schema.steps[:steps]:
            for statement in step:
                connection.execute(statement)
        if schema is NAMESPACE and dimension != FIRST_DIMENSION:
            connection.execute("DROP TABLE memory_bits")
            connection.execute("DROP TABLE vectors")
            for statement in vector_tables(dimension):
                connection.execute(statement)
        return _parts(connection)
