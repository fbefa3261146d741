"""Memories: texts that are found by meaning. Units of work for `Namespace`.

Who stores the same again finds it merged (see `sameness`): metadata are united, the newer text
stands, and what was replaced can be read in the history, as far as that has room (see `merging`).
Searching is in `search`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from botwire_server.errors import Damaged
from botwire_server.store import merging, vectors
from botwire_server.store.checksums import checksum, require
from botwire_server.store.driver import DAMAGED, Connection
from botwire_server.store.sameness import fingerprint
from botwire_server.vector import Model, Vector


class Draft(NamedTuple):
    """A memory to be stored. `vectors` are of `model`, one for each chunk."""

    content: str
    metadata: dict[str, Any]
    collection: str
    session_id: str | None = None
    model: Model | None = None
    vectors: Sequence[Vector | None] = ()


class Memory(NamedTuple):
    """One memory. `metadata` is JSON; times are Unix seconds."""

    id: str
    content: str
    metadata: bytes
    collection: str
    session_id: str | None
    created_at: float
    updated_at: float


class Replaced(NamedTuple):
    """What a merge replaced. `metadata` is JSON, the time is in Unix seconds."""

    revision: int  # the first is 1
    content: str
    metadata: bytes
    replaced_at: float


# Bytes of a memory that is read by itself. Many short ones come together as JSON, whose decoding
# holds the interpreter's lock.
LONG = 16_384

_COLUMNS = "id, content, metadata, collection, session_id, created_at, updated_at"
_CHECKED = f"{_COLUMNS}, crc"


def put(connection: Connection, draft: Draft) -> tuple[Memory, bool]:
    """Store a memory; True where it was merged with one that says the same."""
    same = fingerprint(draft.collection, draft.session_id, draft.content)
    row = connection.execute(
        f"SELECT {_CHECKED}, bytes FROM memories WHERE same = ?",  # noqa: S608
        (same,),
    ).fetchone()
    # As it will be written out, so that a bound read from a memory includes that memory.
    now = round(connection.now, 6)
    if row is not None:
        *checked, held = row
        memory = _merge(connection, _sound(checked), held, draft, now)
        if memory is not None:
            return memory, True
        _retire(connection, same)
    with_vectors = vectors.adopt(connection, draft.model)
    metadata = _encoded(draft.metadata)
    [id] = connection.execute(
        """INSERT INTO memories
            (collection, content, metadata, session_id, same, bytes, created_at, updated_at, crc)
        VALUES (?1, ?2, ?3, ?4, ?5, octet_length(?2) + octet_length(?3), ?6, ?6, ?7)
        RETURNING id""",
        (
            *(draft.collection, draft.content, metadata, draft.session_id, same, now),
            checksum(draft.content, metadata, now, now),
        ),
    ).fetchone()
    if with_vectors:
        vectors.put(connection, id, draft.vectors)
    row = (id, draft.content, metadata, draft.collection, draft.session_id, now, now, None)
    return _memory(connection, row), False


def put_all(connection: Connection, drafts: Sequence[Draft]) -> list[tuple[Memory, bool]]:
    """Store memories in this order, all or none.

    Where several say the same, each has the metadata that it brought, the last of them all: so the
    answer does not grow faster than what was sent.
    """
    stored: list[tuple[Memory, bool]] = []
    last: dict[str, int] = {}
    for number, draft in enumerate(drafts):
        memory, merged = put(connection, draft)
        before = last.get(memory.id)
        if before is not None:
            own = _encoded(drafts[before].metadata).encode()
            stored[before] = stored[before][0]._replace(metadata=own), stored[before][1]
        last[memory.id] = number
        stored.append((memory, merged))
    return stored


def as_sent(memory: Memory, draft: Draft) -> Memory:
    """A memory that was just stored, holding what `draft` brought and nothing from before."""
    return memory._replace(
        content=draft.content,
        metadata=_encoded(draft.metadata).encode(),
        collection=draft.collection,
        session_id=draft.session_id,
    )


def get(connection: Connection, id: int) -> Memory | None:
    """The memory with this number."""
    row = connection.execute(
        f"SELECT {_CHECKED} FROM memories WHERE id = ?",  # noqa: S608
        (id,),
    ).fetchone()
    return None if row is None else _memory(connection, _sound(row))


def get_all(connection: Connection, ids: Sequence[int]) -> dict[int, Memory]:
    """The memories with these numbers, as far as they are there."""
    [found] = connection.execute(
        f"""SELECT json_group_array(
            iif(octet_length(content) + octet_length(metadata) <= {LONG}, json_array(
                id, content, metadata, collection, session_id, created_at, updated_at, crc
            ), id)
        ) FROM memories WHERE id IN (SELECT value FROM json_each(?))""",  # noqa: S608
        (orjson.dumps(ids).decode(),),
    ).fetchone()
    try:
        rows = orjson.loads(found)
    except orjson.JSONDecodeError as error:  # not even UTF-8
        raise Damaged(DAMAGED) from error
    there = {}
    for row in rows:
        if isinstance(row, int):
            connection.look()
            memory = get(connection, row)
            if memory is not None:
                there[row] = memory
        else:
            there[row[0]] = _memory(connection, _sound(row))
    return there


def delete(connection: Connection, id: int) -> bool:
    """Remove a memory with its words, vectors and history; False when there was none."""
    removed = connection.execute("DELETE FROM memories WHERE id = ? RETURNING id", (id,)).fetchone()
    if removed is None:
        return False
    vectors.remove(connection, id)
    connection.leftovers = True
    return True


def newest(connection: Connection, limit: int) -> list[Memory]:
    """The memories that were stored last, newest first."""
    rows = connection.execute(
        f"SELECT {_CHECKED} FROM memories ORDER BY id DESC LIMIT ?",  # noqa: S608
        (limit,),
    )
    return [_memory(connection, _sound(row)) for row in rows]


def history(
    connection: Connection, id: int, *, after: int = 0, limit: int = -1
) -> Iterator[Replaced]:
    """What a memory replaced, oldest first: at most `limit`, behind the revision `after`."""
    rows = connection.execute(
        """SELECT revision, content, metadata, replaced_at, crc FROM memory_history
        WHERE memory_id = ? AND revision > ? ORDER BY revision LIMIT ?""",
        (id, after, limit),
    )
    for revision, content, text, moment, crc in rows:
        require(crc, content, text, moment)
        yield Replaced(revision, content, text.encode(), moment)


def uuid(namespace_id: str, id: int) -> str:
    """A memory's id for the world: a UUID (version 8) with the namespace's id in it."""
    tail = f"{0b10 << 62 | id:016x}"
    return f"{namespace_id[:8]}-{namespace_id[8:12]}-8{namespace_id[12:]}-{tail[:4]}-{tail[4:]}"


def from_uuid(text: str) -> tuple[str, int] | None:
    """The namespace's id and the memory's number in it; None where it can be none of ours."""
    digits = text.lower().replace("-", "")
    if len(text) != 36 or len(digits) != 32 or not set(digits) <= set("0123456789abcdef"):
        return None
    tail = int(digits[16:], 16)
    if digits[12] != "8" or tail >> 62 != 0b10:
        return None
    found = digits[:12] + digits[13:16], tail & ((1 << 62) - 1)
    return found if uuid(*found) == text.lower() else None


def _merge(
    connection: Connection, row: Sequence[Any], held: int, draft: Draft, now: float
) -> Memory | None:
    """Merge a draft with a memory whose texts are `held` bytes, history and all.

    None where that would be more than a memory may become; then nothing was done.
    """
    id, content, text, collection, session_id, created_at, _, _ = row
    metadata = merging.merged(text, draft.metadata)
    if metadata is None:
        return None
    if (content, text) != (draft.content, metadata):
        # What it holds now is what it will have replaced.
        if held > merging.HISTORY_BYTES:
            return None
        connection.execute(
            """INSERT INTO memory_history
                (memory_id, revision, content, metadata, replaced_at, crc)
            SELECT ?1, 1 + coalesce(max(revision), 0), ?2, ?3, ?4, ?5
            FROM memory_history WHERE memory_id = ?1""",
            (id, content, text, now, checksum(content, text, now)),
        )
        connection.execute(
            "UPDATE memories SET bytes = bytes + octet_length(?) + octet_length(?) WHERE id = ?",
            (draft.content, metadata, id),
        )
        connection.leftovers = True
    if content != draft.content:
        connection.execute("UPDATE memories SET content = ? WHERE id = ?", (draft.content, id))
        # Those of the older text must not stand for the newer, whosever they are.
        vectors.remove(connection, id)
        if vectors.adopt(connection, draft.model):
            vectors.put(connection, id, draft.vectors)
    elif draft.vectors and vectors.recorded(connection).model == draft.model:
        # A request may bring another vector for the same text.
        vectors.replace(connection, id, draft.vectors)
    connection.execute(
        "UPDATE memories SET metadata = ?, updated_at = ?, crc = ? WHERE id = ?",
        (metadata, now, checksum(draft.content, metadata, created_at, now), id),
    )
    return _memory(
        connection, (id, draft.content, metadata, collection, session_id, created_at, now, None)
    )


def _retire(connection: Connection, same: bytes) -> None:
    """Let the memory that is found by `same`, if there is one, be merged with no more."""
    row = connection.execute("SELECT id FROM memories WHERE same = ?", (same,)).fetchone()
    if row is not None:
        connection.execute(
            "UPDATE memories SET same = ? WHERE id = ?", (merging.retired(same, row[0]), row[0])
        )


def dump(connection: Connection) -> Iterator[dict[str, Any]]:
    """Every memory as a record, oldest first: with its history, its vectors and whose they are."""
    model = vectors.recorded(connection).model
    for row in connection.execute(f"SELECT {_CHECKED} FROM memories ORDER BY id"):  # noqa: S608
        id, content, text, collection, session_id, created_at, updated_at, _ = _sound(row)
        held = vectors.held(connection, id)
        yield {
            "id": id,
            "content": content,
            "metadata": orjson.Fragment(text),
            "collection": collection,
            "session_id": session_id,
            "created_at": created_at,
            "updated_at": updated_at,
            "history": [
                {
                    "content": replaced.content,
                    "metadata": orjson.Fragment(replaced.metadata),
                    "replaced_at": replaced.replaced_at,
                }
                for replaced in history(connection, id)
            ],
            "model": list(model) if model and held else None,
            "vectors": {str(number): base64.b64encode(vector).decode() for number, vector in held},
        }


def load(connection: Connection, records: Iterable[dict[str, Any]]) -> None:
    """Take in the records of `dump`, ids and all."""
    for record in records:
        same = fingerprint(record["collection"], record["session_id"], record["content"])
        _retire(connection, same)  # of those that say the same the newest goes on
        model = None if record["model"] is None else Model(*record["model"])
        with_vectors = vectors.adopt(connection, model)
        past = [
            (record["id"], number, one["content"], _encoded(one["metadata"]), one["replaced_at"])
            for number, one in enumerate(record["history"], 1)
        ]
        made, moved = float(record["created_at"]), float(record["updated_at"])
        metadata = _encoded(record["metadata"])
        texts = [record["content"], metadata, *(text for one in past for text in one[2:4])]
        connection.execute(
            f"""INSERT INTO memories ({_CHECKED}, same, bytes) VALUES (:id, :content, :text,
            :collection, :session_id, :created_at, :updated_at, :crc, :same, :bytes)""",  # noqa: S608
            {
                **record,
                "text": metadata,
                "crc": checksum(record["content"], metadata, made, moved),
                "same": same,
                "bytes": sum(len(text.encode()) for text in texts),
            },
        )
        connection.executemany(
            "INSERT INTO memory_history VALUES (?, ?, ?, ?, ?, ?)",
            ((*one, checksum(*one[2:4], float(one[4]))) for one in past),
        )
        if with_vectors:
            given = {int(number): text for number, text in record["vectors"].items()}
            vectors.put(
                connection,
                record["id"],
                [
                    base64.b64decode(given[number]) if number in given else None
                    for number in range(max(given, default=-1) + 1)
                ],
            )


def _encoded(metadata: dict[str, Any]) -> str:
    return orjson.dumps(metadata).decode()


def _memory(connection: Connection, row: Sequence[Any]) -> Memory:
    id, content, text, collection, session_id, created_at, updated_at, _ = row
    return Memory(
        uuid(connection.namespace_id, id),
        content,
        text.encode(),
        collection,
        session_id,
        created_at,
        updated_at,
    )


def _sound(row: Sequence[Any]) -> Sequence[Any]:
    """The row, if it is what was stored. Raises `Damaged`."""
    _, content, text, _, _, created_at, updated_at, crc = row
    require(crc, content, text, created_at, updated_at)
    return row
