"""Writes of the day of names that were purged: a name that is made again goes on counting.

No name is kept, only its HMAC under a secret of the day. With the day (UTC) the secret goes, and
with it whatever could tell of which name a count was. Units of work on the registry.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from typing import NamedTuple

from botwire_server.store.driver import Connection
from botwire_server.store.namespace import day_of


class Spent(NamedTuple):
    """So many writes on a UTC day."""

    day: int = 0
    writes: int = 0


def marker(connection: Connection, tenant_id: str) -> Callable[[str], bytes]:
    """What marks a tenant's names today."""
    secret = _secret(connection)
    if secret is None:
        forget(connection)
        secret = secrets.token_bytes(32)
        connection.execute(
            "INSERT INTO day_secret (id, day, secret) VALUES (1, ?, ?)",
            (day_of(connection.now), secret),
        )
    return lambda name: _mark(secret, tenant_id, name)


def record(connection: Connection, mark: bytes, spent: Spent) -> None:
    """Keep what a purged name has spent."""
    row = connection.execute("SELECT day FROM day_secret").fetchone()
    if row is not None and row[0] <= spent.day and spent.writes:
        connection.execute(
            """INSERT INTO spent (mark, writes) VALUES (?, ?)
            ON CONFLICT (mark) DO UPDATE SET writes = max(writes, excluded.writes)""",
            (mark, spent.writes),
        )


def of(connection: Connection, tenant_id: str, name: str) -> Spent:
    """What a name has spent today before it is made again."""
    secret = _secret(connection)
    if secret is None:
        return Spent()
    row = connection.execute(
        "SELECT day, writes FROM spent, day_secret WHERE mark = ?",
        (_mark(secret, tenant_id, name),),
    ).fetchone()
    return Spent() if row is None else Spent(*row)


def pending(connection: Connection, tenant_id: str, name: str) -> str | None:
    """The purge in which the writes of this name are still to be counted."""
    secret = _secret(connection)
    if secret is None:
        return None
    row = connection.execute(
        "SELECT purge_id FROM tombstones WHERE mark = ?", (_mark(secret, tenant_id, name),)
    ).fetchone()
    return None if row is None else str(row[0])


def forget_earlier(connection: Connection) -> None:
    """Erase what was kept for a day that is over."""
    kept = connection.execute("SELECT 1 FROM day_secret").fetchone() is not None
    if kept and _secret(connection) is None:
        forget(connection)


def forget(connection: Connection) -> None:
    """Erase all that is kept."""
    connection.execute("DELETE FROM day_secret")
    connection.execute("DELETE FROM spent")
    connection.execute("UPDATE tombstones SET mark = NULL WHERE mark IS NOT NULL")
    connection.leftovers = True


def _secret(connection: Connection) -> bytes | None:
    """The secret of the day; a clock that is set back does not begin it anew."""
    row = connection.execute(
        "SELECT secret FROM day_secret WHERE day >= ?", (day_of(connection.now),)
    ).fetchone()
    return None if row is None else bytes(row[0])


def _mark(secret: bytes, tenant_id: str, name: str) -> bytes:
    return hmac.digest(secret, f"{tenant_id}\0{name}".encode(), "sha256")
