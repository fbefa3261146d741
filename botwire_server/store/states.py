"""States: a versioned JSON document for each session. Units of work for `Namespace`.

A state that has expired is gone from every read and write at once, and erased later. The version
moves by one with every write, also where a state is stored over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from botwire_server.errors import Conflict
from botwire_server.store.checksums import checksum, require
from botwire_server.store.driver import Connection
from botwire_server.store.units import brief, require_short


class State(NamedTuple):
    """One state. `data` is JSON; times are Unix seconds."""

    session_id: str
    data: bytes
    version: int
    created_at: float
    updated_at: float
    expires_at: float | None


class Session(NamedTuple):
    """A state without its data."""

    session_id: str
    version: int
    created_at: float
    updated_at: float
    expires_at: float | None
    id: int


# Where a listing of sessions goes on: when the last one shown was written, and its id.
Behind = tuple[float, int]


# Decides a write whose version is stale: given what is stored, what to store; None to leave it.
# Raises `Conflict` where it cannot tell.
Resolve = Callable[[bytes], bytes | None]

_COLUMNS = "session_id, data, version, created_at, updated_at, expires_at"
# The size of a document is known without reading it.
_SHORT = _COLUMNS.replace("data", "iif(octet_length(data) <= ?, data, NULL)")
_ALIVE = "(expires_at IS NULL OR expires_at > ?)"


@brief
def get(connection: Connection, session_id: str) -> State | None:
    """The state of a session, or None."""
    row = connection.execute(
        f"SELECT {_SHORT}, crc FROM states WHERE session_id = ? AND {_ALIVE}",  # noqa: S608
        (connection.longest, session_id, connection.now),
    ).fetchone()
    if row is None:
        return None
    require_short(connection, row[1])
    return _state(row)


@brief
def put(connection: Connection, session_id: str, data: bytes, *, ttl: float | None = None) -> State:
    """Store a state, over the one that is there; `ttl` is its life in seconds."""
    now = connection.now
    row = connection.execute(
        f"""INSERT INTO states
            (session_id, data, version, bytes, created_at, updated_at, expires_at, crc)
        VALUES (?1, ?2, 1, ?3, ?4, ?4, ?5, ?6)
        ON CONFLICT (session_id) DO UPDATE SET
            data = excluded.data, bytes = excluded.bytes, crc = excluded.crc,
            version = iif(expires_at <= ?4, 1, version + 1),
            created_at = iif(expires_at <= ?4, ?4, created_at),
            updated_at = ?4, expires_at = excluded.expires_at
        RETURNING {_COLUMNS}""",  # noqa: S608
        (
            *(session_id, data, len(data), now, None if ttl is None else now + ttl),
            checksum(data, session_id),
        ),
    ).fetchone()
    connection.leftovers = True
    return State(*row)


@brief
def update(
    connection: Connection,
    session_id: str,
    data: bytes,
    *,
    version: int,
    ttl: float | None = None,
    resolve: Resolve | None = None,
) -> State | None:
    """Replace the data of a state that is at `version`; None when there is none.

    Without `ttl` it keeps the expiry it had. Raises `Conflict` where it is at another version
    and `resolve` does not say what then.
    """
    present = get(connection, session_id)
    if present is None:
        return None
    if present.version != version:
        if resolve is None:
            raise Conflict(
                f"The state is at version {present.version}, not {version}: read it again and "
                "repeat the change."
            )
        resolved = resolve(present.data)
        if resolved is None:
            return present
        data = resolved
    now = connection.now
    row = connection.execute(
        f"""UPDATE states SET data = ?2, bytes = ?3, version = version + 1, updated_at = ?4,
            expires_at = coalesce(?5, expires_at), crc = ?6
        WHERE session_id = ?1 RETURNING {_COLUMNS}""",  # noqa: S608
        (
            *(session_id, data, len(data), now, None if ttl is None else now + ttl),
            checksum(data, session_id),
        ),
    ).fetchone()
    connection.leftovers = True
    return State(*row)


@brief
def delete(connection: Connection, session_id: str) -> bool:
    """Remove the state of a session; False when there was none."""
    removed = connection.execute(
        "DELETE FROM states WHERE session_id = ? RETURNING expires_at", (session_id,)
    ).fetchone()
    if removed is None:
        return False
    connection.leftovers = True
    return removed[0] is None or removed[0] > connection.now


def sessions(
    connection: Connection, *, behind: Behind | None = None, limit: int = -1
) -> Iterator[Session]:
    """Every session that has a state, the last written first; those `behind` one of them."""
    updated_at, id = (math.inf, 0) if behind is None else behind
    rows = connection.execute(
        f"""SELECT session_id, version, created_at, updated_at, expires_at, id FROM states
        WHERE {_ALIVE} AND (updated_at, id) < (?, ?)
        ORDER BY updated_at DESC, id DESC LIMIT ?""",  # noqa: S608
        (connection.now, updated_at, id, limit),
    )
    return (Session(*row) for row in rows)


def latest(connection: Connection, session_id: str) -> tuple[State | None, int]:
    """The state of this session, else the last written one; and how many states there are."""
    row = connection.execute(
        f"""SELECT {_COLUMNS}, crc FROM states WHERE {_ALIVE}
        ORDER BY session_id = ? DESC, updated_at DESC, id DESC LIMIT 1""",  # noqa: S608
        (connection.now, session_id),
    ).fetchone()
    [count] = connection.execute(
        f"SELECT count(*) FROM states WHERE {_ALIVE}",  # noqa: S608
        (connection.now,),
    ).fetchone()
    return None if row is None else _state(row), count


def dump(connection: Connection) -> Iterator[dict[str, Any]]:
    """Every state as a record."""
    for row in connection.execute(f"SELECT {_COLUMNS}, crc FROM states ORDER BY id"):  # noqa: S608
        state = _state(row)
        yield {**state._asdict(), "data": orjson.Fragment(state.data)}


def load(connection: Connection, records: Iterable[dict[str, Any]]) -> None:
    """Take in the records of `dump`, versions and all."""
    for record in records:
        data = orjson.dumps(record["data"])
        connection.execute(
            f"""INSERT INTO states ({_COLUMNS}, bytes, crc) VALUES (:session_id, :data, :version,
            :created_at, :updated_at, :expires_at, :bytes, :crc)""",  # noqa: S608
            {
                **record,
                "data": data,
                "bytes": len(data),
                "crc": checksum(data, record["session_id"]),
            },
        )


def sweep(connection: Connection) -> None:
    """Erase what has expired."""
    connection.execute("DELETE FROM states WHERE expires_at <= ?", (connection.now,))
    connection.leftovers = True


def _state(row: Sequence[Any]) -> State:
    *fields, crc = row
    state = State(*fields)
    require(crc, state.data, state.session_id)
    return state
