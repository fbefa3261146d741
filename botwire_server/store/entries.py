"""Entries: a key with its JSON value. Units of work for `Namespace`.

Values are JSON text as bytes, so that reading one back needs no parsing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple
from zlib import crc32

import orjson

from botwire_server.errors import Conflict, Damaged
from botwire_server.store.driver import DAMAGED, Connection
from botwire_server.store.names import first_behind
from botwire_server.store.units import brief, require_short


class Entry(NamedTuple):
    """One entry. Times are Unix seconds; `size` is what the value counts, in UTF-8 bytes."""

    key: str
    value: bytes
    size: int
    created_at: float
    updated_at: float
    expires_at: float | None
    revision: int


class Detail(NamedTuple):
    """What a listing shows of an entry."""

    key: str
    size: int
    updated_at: float
    revision: int


Condition = Callable[[Entry | None], bool]

NEWEST = 2**63 - 1  # no revision is

_COLUMNS = "key, value, bytes, created_at, updated_at, expires_at, revision"
# The size of a value is known without reading it.
_SHORT = _COLUMNS.replace("value", "iif(octet_length(value) <= ?1, value, NULL)")


def crc_of(key: str, value: bytes) -> int:
    """The checksum of an entry."""
    return crc32(value, crc32(key.encode()))


@brief
def get(connection: Connection, key: str) -> Entry | None:
    """The entry, or None; one that has expired is gone."""
    row = connection.execute(
        f"SELECT {_SHORT}, crc FROM entries WHERE key = ?2",  # noqa: S608
        (connection.longest, key),
    ).fetchone()
    if row is None:
        return None
    require_short(connection, row[1])
    entry = _entry(row)
    return None if _expired(entry.expires_at, connection.now) else entry


@brief
def put(
    connection: Connection,
    key: str,
    value: bytes,
    *,
    size: int,
    ttl: float | None = None,
    condition: Condition | None = None,
) -> Entry:
    """Store `value` (JSON) under `key`, replacing what was there.

    `size` is what it counts in bytes, `ttl` its life in seconds. Raises `Conflict` where
    `condition` says no to the present entry.
    """
    _require(connection, key, condition)
    now = connection.now
    cursor = connection.execute(
        """INSERT INTO entries
            (revision, key, value, bytes, created_at, updated_at, expires_at, crc)
        VALUES ((SELECT revision FROM totals), ?1, ?2, ?3, ?4, ?4, ?5, ?6)
        ON CONFLICT (key) DO UPDATE SET
            revision = excluded.revision, value = excluded.value, bytes = excluded.bytes,
            crc = excluded.crc,
            created_at = iif(expires_at <= ?4, ?4, created_at),
            updated_at = ?4, expires_at = excluded.expires_at
        RETURNING revision, created_at, expires_at""",
        (key, value, size, now, None if ttl is None else now + ttl, crc_of(key, value)),
    )
    revision, created_at, expires_at = cursor.fetchone()
    # Only a row that was inserted is the last one inserted; what replaces an expired entry has
    # its own time of creation.
    connection.leftovers |= created_at != now or cursor.lastrowid != revision
    return Entry(key, value, size, created_at, now, expires_at, revision)


@brief
def delete(connection: Connection, key: str, *, condition: Condition | None = None) -> bool:
    """Remove the entry; False when there was none. Raises `Conflict` like `put`."""
    _require(connection, key, condition)
    removed = connection.execute(
        "DELETE FROM entries WHERE key = ? RETURNING expires_at", (key,)
    ).fetchone()
    if removed is None:
        return False
    connection.leftovers = True
    return not _expired(removed[0], connection.now)


def listing(
    connection: Connection, *, prefix: str = "", before: int = NEWEST, limit: int = -1
) -> Iterator[Detail]:
    """Keys and their details, newest first: those that begin with `prefix`, older than `before`."""
    within = "AND key >= :start AND (:end IS NULL OR key < :end)" if prefix else ""
    rows = connection.execute(
        f"""SELECT key, bytes, updated_at, revision FROM entries
        WHERE (expires_at IS NULL OR expires_at > :now) AND revision < :before {within}
        ORDER BY revision DESC LIMIT :limit""",  # noqa: S608  # `within` is one of two constants
        {
            "now": connection.now,
            "before": before,
            "start": prefix,
            "end": first_behind(prefix),
            "limit": limit,
        },
    )
    return (Detail(*row) for row in rows)


def dump(connection: Connection) -> Iterator[dict[str, Any]]:
    """Every entry as a record, oldest first."""
    for row in connection.execute(f"SELECT {_COLUMNS}, crc FROM entries ORDER BY revision"):  # noqa: S608
        entry = _entry(row)
        yield {
            "key": entry.key,
            "value": orjson.Fragment(entry.value),
            "bytes": entry.size,
            "created_at": entry.created_at,
            "updated_at": entry.updated_at,
            "expires_at": entry.expires_at,
            "revision": entry.revision,
        }


def load(connection: Connection, records: Iterable[dict[str, Any]]) -> None:
    """Take in the records of `dump`, revisions and all."""
    connection.executemany(
        f"""INSERT INTO entries ({_COLUMNS}, crc) VALUES (:key, :value, :bytes, :created_at,
        :updated_at, :expires_at, :revision, :crc)""",  # noqa: S608
        map(_row, records),
    )
    connection.execute(
        "UPDATE totals SET revision = max(revision, (SELECT coalesce(max(revision), 0)"
        " FROM entries))"
    )


def _row(record: dict[str, Any]) -> dict[str, Any]:
    value = record["value"]
    encoded = orjson.dumps(value)
    return {
        **record,
        "value": encoded,
        "bytes": size_of(value, encoded),
        "crc": crc_of(record["key"], encoded),
    }


def _entry(row: Sequence[Any]) -> Entry:
    crc = row[-1]
    if crc is not None:
        try:
            right = crc32(row[1], crc32(row[0].encode())) == crc
        except (AttributeError, TypeError):  # not even of its type
            right = False
        if not right:
            raise Damaged(DAMAGED)
    return Entry(*row[:-1])


def size_of(value: Any, encoded: bytes) -> int:
    """What a value counts: the bytes of a string, or of any other value's JSON."""
    return len(value.encode()) if isinstance(value, str) else len(encoded)


def sweep(connection: Connection) -> None:
    """Erase what has expired."""
    connection.execute("DELETE FROM entries WHERE expires_at <= ?", (connection.now,))
    connection.leftovers = True


def _require(connection: Connection, key: str, condition: Condition | None) -> None:
    if condition is not None and not condition(get(connection, key)):
        raise Conflict("The entry is not what the request's condition asks for; read it again.")


def _expired(expires_at: float | None, now: float) -> bool:
    return expires_at is not None and expires_at <= now
