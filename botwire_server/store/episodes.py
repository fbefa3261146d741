"""Episodes: what happened in a session, append-only and in order. Units of work for `Namespace`.

The order is that of the ids, not of the clock: two episodes of one millisecond keep it, and a
clock that is set back does not disturb it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from botwire_server.store.checksums import checksum, require
from botwire_server.store.driver import Connection
from botwire_server.store.terms import all_of, any_of, terms
from botwire_server.store.units import brief


class Draft(NamedTuple):
    """An episode to be appended. `content` and `metadata` are JSON, `text` is what can be searched
    of the content.
    """

    session_id: str
    type: str
    content: bytes
    metadata: bytes
    text: str


class Episode(NamedTuple):
    """One episode. `content` and `metadata` are JSON; the time is in Unix seconds."""

    id: int
    session_id: str
    type: str
    content: bytes
    metadata: bytes
    created_at: float


_SEARCHABLE = frozenset({str, int, float})
# Values that are looked at one by one as soon as together.
FEW = 8


class Match(NamedTuple):
    """An episode that a search found, without what it holds."""

    id: int
    created_at: float


class Said(NamedTuple):
    """What an episode says, as a text."""

    id: int
    created_at: float
    text: str


# A content that is longer is not decoded as a whole.
DECODED_BYTES = 16_384
# Characters of an episode that are read where many are.
LONGEST_SAID = 100_000
# Strings and numbers out of a long content.
MOST_ATOMS = 20_000

_COLUMNS = "id, session_id, type, content, metadata, created_at"


@brief
def append(
    connection: Connection, session_id: str, type: str, content: bytes, metadata: bytes, text: str
) -> Episode:
    """Append one episode; see `Draft`."""
    draft = Draft(session_id, type, content, metadata, text)
    return _append(connection, draft, _moment(connection))


def append_all(connection: Connection, drafts: Sequence[Draft]) -> list[Episode]:
    """Append episodes in this order, all or none."""
    now = _moment(connection)
    return [_append(connection, draft, now) for draft in drafts]


def listing(
    connection: Connection,
    *,
    session_id: str | None = None,
    type: str | None = None,
    since: float | None = None,
    until: float | None = None,
    after: int = 0,
    limit: int = -1,
) -> Iterator[Episode]:
    """Episodes, oldest first: of a session, of a type, from `since` to `until` inclusive,
    those behind the id `after`.
    """
    rows = connection.execute(
        f"""SELECT {_COLUMNS}, crc FROM episodes
        WHERE id > :after {"AND session_id = :session" if session_id is not None else ""}
            AND (:type IS NULL OR type = :type)
            AND (:since IS NULL OR created_at >= :since)
            AND (:until IS NULL OR created_at <= :until)
        ORDER BY id LIMIT :limit""",  # noqa: S608  # one of two constants
        {
            "session": session_id,
            "type": type,
            "since": since,
            "until": until,
            "after": after,
            "limit": limit,
        },
    )
    return map(_episode, rows)


def last(connection: Connection, limit: int) -> list[Episode]:
    """The last episodes, oldest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS}, crc FROM episodes ORDER BY id DESC LIMIT ?",  # noqa: S608
        (limit,),
    )
    return [_episode(row) for row in rows][::-1]


def said(connection: Connection, limit: int) -> list[Said]:
    """What the last episodes say, oldest first: each in one line, for people.

    It is what was said, where it is a message. Of a long one it is the beginning: SQLite reads
    that out of the JSON, whose decoding would hold the interpreter's lock.
    """
    rows = connection.execute(
        f"SELECT {_COLUMNS}, crc FROM episodes ORDER BY id DESC LIMIT ?",  # noqa: S608
        (limit,),
    )
    found = []
    for row in rows:
        connection.look()
        episode = _episode(row)
        if len(episode.content) <= DECODED_BYTES:
            text = readable(orjson.loads(episode.content))
        else:
            text = _beginning(connection, episode.content)
        found.append(Said(episode.id, episode.created_at, " ".join(text[:LONGEST_SAID].split())))
    return found[::-1]


def search(connection: Connection, query: str, *, limit: int) -> list[Match]:
    """Episodes with all the words of the query, newest first.

    Where no episode has them all: those that match some of them best, newest first.
    """
    sought = terms(query)
    if not sought:
        return []
    found = _matching(connection, all_of(sought), "e.id DESC", limit)
    if not found and len(sought) > 1:
        found = _matching(connection, any_of(sought), "bm25(episode_text), e.id DESC", limit)
    return sorted(found, key=lambda match: -match.id)


def get_all(connection: Connection, ids: Sequence[int]) -> dict[int, Episode]:
    """The episodes with these numbers, as far as they are there."""
    rows = connection.execute(
        f"""SELECT {_COLUMNS}, crc FROM episodes
        WHERE id IN (SELECT value FROM json_each(?))""",  # noqa: S608
        (orjson.dumps(ids).decode(),),
    )
    return {episode.id: episode for episode in map(_episode, rows)}


def dump(connection: Connection) -> Iterator[dict[str, Any]]:
    """Every episode as a record, oldest first."""
    for row in connection.execute(f"SELECT {_COLUMNS}, crc FROM episodes ORDER BY id"):  # noqa: S608
        episode = _episode(row)
        yield {
            **episode._asdict(),
            "content": orjson.Fragment(episode.content),
            "metadata": orjson.Fragment(episode.metadata),
        }


def load(connection: Connection, records: Iterable[dict[str, Any]]) -> None:
    """Take in the records of `dump`, ids and all."""
    for record in records:
        content, metadata = orjson.dumps(record["content"]), orjson.dumps(record["metadata"])
        connection.execute(
            f"""INSERT INTO episodes ({_COLUMNS}, bytes, crc) VALUES (:id, :session_id, :type,
            :content, :metadata, :created_at, :bytes, :crc)""",  # noqa: S608
            {
                **record,
                "content": content,
                "metadata": metadata,
                "bytes": len(content) + len(metadata),
                "crc": checksum(
                    *(content, metadata, record["session_id"], record["type"]),
                    float(record["created_at"]),
                ),
            },
        )
        _index(connection, record["id"], searchable(record["content"]))


def searchable(content: Any) -> str:
    """Everything in an episode's content that can be searched for: its strings and numbers."""
    if isinstance(content, str):
        return content
    found: list[str] = []
    waiting = [content]
    while waiting:
        value = waiting.pop()
        kind = type(value)
        if kind in _SEARCHABLE:
            found.append(str(value))
        elif kind is dict or kind is list:
            inner = value.values() if kind is dict else value
            if len(inner) > FEW and _SEARCHABLE.issuperset(map(type, inner)):
                found.extend(map(str, inner))  # a list of numbers may have half a million
            else:
                waiting.extend(reversed(inner))
    return "\n".join(found)


def readable(content: Any) -> str:
    """An episode's content for people: what was said, where it is a message."""
    if not isinstance(content, dict):
        return searchable(content)
    data = content.get("data")
    message = data if isinstance(data, dict) else content
    parts = (message.get(name) for name in _SAID)
    return next((part for part in parts if isinstance(part, str)), None) or searchable(content)


_SAID = ("content", "text", "message")


def _beginning(connection: Connection, content: bytes) -> str:
    """The beginning of what `readable` makes of a long content."""
    said = ", ".join(
        f"iif(json_type(message, '$.{name}') = 'text', message ->> '$.{name}', NULL)"
        for name in _SAID
    )
    [text] = connection.execute(
        f"""SELECT substr(coalesce(
            iif(json_type(content) = 'text', content ->> '$', NULL),
            nullif(coalesce({said}), ''),
            (SELECT group_concat(atom, char(10)) FROM (
                SELECT atom FROM json_tree(content) WHERE type IN ('text', 'integer', 'real')
                LIMIT {MOST_ATOMS}
            )), ''), 1, {LONGEST_SAID})
        FROM (
            SELECT content,
                iif(json_type(content, '$.data') = 'object', content -> '$.data', content)
                AS message
            FROM (SELECT CAST(? AS TEXT) AS content)
        )""",  # noqa: S608  # constants
        (content,),
    ).fetchone()
    return str(text)


def _matching(connection: Connection, expression: str, order: str, limit: int) -> list[Match]:
    rows = connection.execute(
        f"""SELECT e.id, e.created_at
        FROM episode_text JOIN episodes AS e ON e.id = episode_text.rowid
        WHERE episode_text MATCH ? ORDER BY {order} LIMIT ?""",  # noqa: S608  # one of two
        (expression, limit),
    )
    return [Match(*row) for row in rows]


def _append(connection: Connection, draft: Draft, now: float) -> Episode:
    session_id, type, content, metadata, text = draft
    [id] = connection.execute(
        """INSERT INTO episodes (session_id, type, content, metadata, bytes, created_at, crc)
        VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id""",
        (
            *(session_id, type, content, metadata, len(content) + len(metadata), now),
            checksum(content, metadata, session_id, type, now),
        ),
    ).fetchone()
    _index(connection, id, text)
    return Episode(id, session_id, type, content, metadata, now)


def _episode(row: Sequence[Any]) -> Episode:
    *fields, crc = row
    episode = Episode(*fields)
    _, session_id, type, content, metadata, created_at = episode
    require(crc, content, metadata, session_id, type, created_at)
    return episode


def _index(connection: Connection, id: int, text: str) -> None:
    connection.execute("INSERT INTO episode_text (rowid, text) VALUES (?, ?)", (id, text))


def _moment(connection: Connection) -> float:
    # As it will be written out, so that a bound read from an episode includes that episode.
    return round(connection.now, 6)
