"""What must hold inside one file: for each that does not, a sentence.

It asks a connection and changes nothing; FTS5's own check is a command that writes nothing but
takes the writer's lock, so a file in use is checked in a `snapshots.snapshot`. Rows are looked at
one after the other, vectors chunk by chunk: memory does not grow with the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from botwire_server.lazy import numpy as np
from botwire_server.store import entries, vectors
from botwire_server.store.driver import Connection, sqlite3
from botwire_server.store.namespace import Totals

# Each counter of `totals`, and how to count it anew.
COUNTED = {
    "entries": "SELECT count(*) FROM entries",
    "states": "SELECT count(*) FROM states",
    "memories": "SELECT count(*) FROM memories",
    "episodes": "SELECT count(*) FROM episodes",
    "vectors": "SELECT count(*) FROM vectors",
    "bytes": """SELECT (SELECT total(bytes) FROM entries) + (SELECT total(bytes) FROM states)
        + (SELECT total(bytes) FROM memories) + (SELECT total(bytes) FROM episodes)""",
    "key_bytes": "SELECT total(octet_length(key)) FROM entries",
    "sessions": """SELECT count(*) FROM (
        SELECT session_id FROM states UNION SELECT session_id FROM episodes)""",
}

# How many rows are what they must not be.
_NONE_MAY = {
    "memories are not in the index of words": """SELECT count(*) FROM memories
        WHERE id NOT IN (SELECT id FROM memory_text_docsize)""",
    "texts in the index of words have no memory": """SELECT count(*) FROM memory_text_docsize
        WHERE id NOT IN (SELECT id FROM memories)""",
    "episodes are not in the index of words": """SELECT count(*) FROM episodes
        WHERE id NOT IN (SELECT id FROM episode_text_docsize)""",
    "texts in the index of words have no episode": """SELECT count(*) FROM episode_text_docsize
        WHERE id NOT IN (SELECT id FROM episodes)""",
    "vectors have no memory": f"""SELECT count(*) FROM vectors
        WHERE id >> {vectors.CHUNK_BITS} NOT IN (SELECT id FROM memories)""",  # noqa: S608
    "replaced texts have no memory": """SELECT count(*) FROM memory_history
        WHERE memory_id NOT IN (SELECT id FROM memories)""",
    "memories lack a part of their history": """SELECT count(*) FROM (
        SELECT 1 FROM memory_history GROUP BY memory_id HAVING max(revision) <> count(*))""",
    "states count other bytes than they have": """SELECT count(*) FROM states
        WHERE bytes <> octet_length(data)""",
    "episodes count other bytes than they have": """SELECT count(*) FROM episodes
        WHERE bytes <> octet_length(content) + octet_length(metadata)""",
    "memories count other bytes than they have": """SELECT count(*) FROM memories AS m
        WHERE bytes <> octet_length(content) + octet_length(metadata) + (
            SELECT total(octet_length(content) + octet_length(metadata))
            FROM memory_history WHERE memory_id = m.id)""",
}

_JSON = {
    "states hold no JSON": "SELECT data FROM states",
    "memories have metadata that are no JSON": "SELECT metadata FROM memories",
    "episodes hold no JSON": "SELECT content FROM episodes UNION ALL SELECT metadata FROM episodes",
}

_MOST_TOLD = 20


def structure(connection: Connection) -> Iterator[str]:
    """What SQLite finds wrong with the pages, indexes and foreign keys of any file."""
    for [verdict] in connection.execute(f"PRAGMA integrity_check({_MOST_TOLD})"):
        if verdict != "ok":
            # Its first line may be a heading.
            yield from (
                f"SQLite: {line}" for line in str(verdict).splitlines() if line[:3] != "***"
            )
    orphans = connection.execute("SELECT count(*) FROM pragma_foreign_key_check").fetchone()[0]
    if orphans:
        yield f"{orphans} rows refer to rows that are not there"


def namespace(connection: Connection) -> Iterator[str]:
    """Everything that is wrong with a namespace's file, of the present schema."""
    damage = list(structure(connection))
    yield from damage
    if damage:  # the rest would say the same in many ways
        return
    for check in (_indexes, _totals, _rows, _bits):
        try:
            yield from check(connection)
        except sqlite3.DatabaseError as error:
            yield f"SQLite: {told(error)}"


def told(error: sqlite3.Error) -> str:
    """An error of SQLite without what it may quote from the data."""
    return getattr(error, "sqlite_errorname", None) or type(error).__name__


def held(connection: Connection) -> tuple[str | None, int, Totals]:
    """Whose file this is, its revision, and what it says it holds."""
    owner, revision, *totals = connection.execute(
        f"SELECT owner, revision, {', '.join(Totals._fields)} FROM totals"  # noqa: S608
    ).fetchone()
    return owner, revision, Totals(*totals)


def _indexes(connection: Connection) -> Iterator[str]:
    for table, compare in (("memory_text", 1), ("episode_text", 0)):
        try:
            # With 1 it compares the index with the texts; there are none behind `episode_text`.
            connection.execute(
                f"INSERT INTO {table} ({table}, rank) VALUES ('integrity-check', ?)",  # noqa: S608
                (compare,),
            )
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 11) & 0xFF != 11:  # SQLITE_CORRUPT
                raise
            yield f"the index of words {table} is not that of the texts"


def _totals(connection: Connection) -> Iterator[str]:
    for column, count in COUNTED.items():
        said, counted = connection.execute(f"SELECT {column}, ({count}) FROM totals").fetchone()  # noqa: S608
        if said != counted:
            yield f"totals say {said} {column}, and there are {counted:.0f}"
    newest, revision = connection.execute(
        "SELECT (SELECT max(revision) FROM entries), revision FROM totals"
    ).fetchone()
    if newest is not None and newest > revision:
        yield f"revision {newest} was given, and totals stand at {revision}"


def _rows(connection: Connection) -> Iterator[str]:
    for what, count in _NONE_MAY.items():
        [found] = connection.execute(count).fetchone()
        if found:
            yield f"{found} {what}"
    wrong = sum(
        not _counts(value, size)
        for value, size in connection.execute("SELECT value, bytes FROM entries")
    )
    if wrong:
        yield f"{wrong} entries hold no JSON, or count other bytes than they have"
    for what, select in _JSON.items():
        found = sum(_parsed(text) is None for [text] in connection.execute(select))
        if found:
            yield f"{found} {what}"


def _counts(value: Any, size: int) -> bool:
    parsed = _parsed(value)
    return parsed is not None and entries.size_of(parsed[0], value) == size


def _parsed(text: Any) -> tuple[Any] | None:
    """The value that this JSON stands for, or None if it is no JSON."""
    try:
        return (orjson.loads(text),)
    except orjson.JSONDecodeError:
        return None


def _bits(connection: Connection) -> Iterator[str]:
    """Whether vec0 holds the signs of every vector, and those of nothing else."""
    model = vectors.recorded(connection).model
    [stored] = connection.execute("SELECT count(*) FROM vectors").fetchone()
    [listed] = connection.execute("SELECT count(*) FROM memory_bits_rowids").fetchone()
    dimension = 256 if model is None else model.dimension
    seen = 0
    wrong = 0
    chunks = connection.execute(
        """SELECT chunk_id, validity, rowids, vectors FROM memory_bits_chunks AS c
        LEFT JOIN memory_bits_vector_chunks00 AS v ON v._rowid_ = c.chunk_id"""
    )
    for chunk in chunks:
        valid, differing = _chunk(connection, dimension, *chunk)
        seen += valid
        wrong += differing
    if wrong:
        yield f"{wrong} vectors are not those that vec0 searches by"
    elif not seen == listed == stored:
        yield f"vec0 holds {seen} vectors, lists {listed}, and there are {stored}"


def _chunk(
    connection: Connection, dimension: int, id: int, validity: bytes, rowids: bytes, bits: bytes
) -> tuple[int, int]:
    """How many vectors a chunk of vec0 holds, and how many of them are not as they are stored."""
    width = (dimension + 7) // 8
    slots = len(rowids) // 8
    if bits is None or len(bits) != slots * width or len(validity) * 8 != slots:
        return 0, 1
    [used] = np.nonzero(np.unpackbits(np.frombuffer(validity, np.uint8), bitorder="little"))
    ids = np.frombuffer(rowids, np.int64)[used]
    signs = np.frombuffer(bits, np.uint8).reshape(slots, width)[used]
    place = {int(vector): number for number, vector in enumerate(ids)}
    good = 0
    for vector, embedding, chunk, offset in connection.execute(
        """SELECT v.id, v.embedding, r.chunk_id, r.chunk_offset FROM json_each(?) AS wanted
        JOIN vectors AS v ON v.id = wanted.value JOIN memory_bits_rowids AS r ON r.rowid = v.id""",
        (orjson.dumps(list(place)).decode(),),
    ):
        number = place[vector]
        if (chunk, offset) == (id, int(used[number])) and len(embedding) == 4 * dimension:
            floats = np.frombuffer(embedding, np.float32)
            length = float(floats.astype(np.float64) @ floats)
            own = np.packbits(floats > 0, bitorder="little")
            good += abs(length - 1) < 0.01 and bool((own == signs[number]).all())
    return len(ids), len(ids) - good
