"""Purges: units of work on the registry that make things gone for good, with proof.

    keys off, namespaces become tombstones   one transaction: from here on nothing finds them
    handles closed, counted, files unlinked  by whoever holds the lock of the data directory
    rows and accounts of it dropped          one transaction
    registry's WAL cut, receipt              what is receipted is not in any file any more

Every step can be repeated, so a purge that a crash cut short goes on at the next start. What
remains holds no name: the ids of what was removed, which are never used again, and the receipt.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from botwire_server.logs import timestamp
from botwire_server.store import spent
from botwire_server.store.driver import Connection
from botwire_server.store.names import first_behind
from botwire_server.store.namespace import Totals
from botwire_server.store.rows import NamespaceRow
from botwire_server.store.spent import Spent

NAMESPACE, PREFIX, TENANT = "namespace", "prefix", "tenant"
# Receipts of single namespaces that are kept of a tenant, with their lines in the audit.
MOST_RECEIPTS = 10_000

NOTHING = Spent()

_HELD = ", ".join(Totals._fields)


class Tombstone(NamedTuple):
    """A namespace that is to be removed. `held` is what it held, once that was counted."""

    row: NamespaceRow
    held: Totals | None
    known: Totals


def bury_namespace(
    connection: Connection, tenant_id: str, namespace_id: str, *, actor: str
) -> str | None:
    """Begin to purge one namespace; the purge's id, or None if there is no such namespace."""
    return _bury(connection, NAMESPACE, tenant_id, "id = ?", [namespace_id], actor=actor)


def bury_prefix(connection: Connection, tenant_id: str, prefix: str, *, actor: str) -> str | None:
    """Begin to purge the namespaces whose names begin so; None if there are none."""
    end = first_behind(prefix)
    names, parameters = "name >= ?", [prefix]
    if end is not None:
        names, parameters = f"{names} AND name < ?", [prefix, end]
    return _bury(connection, PREFIX, tenant_id, names, parameters, actor=actor)


def bury_tenant(connection: Connection, tenant_id: str, *, actor: str) -> str | None:
    """Begin to purge a tenant, keys first; None if there is none."""
    now = connection.now
    if not connection.execute(
        "UPDATE tenants SET purging_at = ? WHERE id = ? AND purging_at IS NULL", (now, tenant_id)
    ).rowcount:
        return None
    connection.execute(
        "UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE tenant_id = ?", (now, tenant_id)
    )
    return _bury(connection, TENANT, tenant_id, "true", [], actor=actor)


def unfinished(connection: Connection) -> list[str]:
    """The purges that have no receipt yet, oldest first."""
    rows = connection.execute("SELECT id FROM purges WHERE receipt IS NULL ORDER BY started_at")
    return [id for [id] in rows]


def begun(connection: Connection, tenant: str) -> str | None:
    """The purge of the tenant of this name, if one was begun and has not ended."""
    row = connection.execute(
        """SELECT p.id FROM tenants t JOIN purges p ON p.tenant_id = t.id AND p.scope = ?
        WHERE t.name = ? AND t.purging_at IS NOT NULL""",
        (TENANT, tenant),
    ).fetchone()
    return None if row is None else str(row[0])


def tenant_purged(connection: Connection, id: str) -> str | None:
    """This id, if a tenant of this id was purged."""
    row = connection.execute(
        "SELECT tenant_id FROM purges WHERE tenant_id = ? AND scope = ?", (id, TENANT)
    ).fetchone()
    return None if row is None else str(row[0])


def due(
    connection: Connection, purge_id: str, *, after: str = "", limit: int = 256
) -> list[Tombstone]:
    """Some of what a purge has still to remove, by id: those behind the namespace `after`."""
    rows = connection.execute(
        """SELECT namespace_id, p.tenant_id, file, held, known
        FROM tombstones JOIN purges p ON p.id = purge_id
        WHERE purge_id = ? AND removed_at IS NULL AND namespace_id > ?
        ORDER BY namespace_id LIMIT ?""",
        (purge_id, after, limit),
    )
    return [
        Tombstone(
            NamespaceRow(id, tenant_id, "", file),
            None if held is None else Totals(*json.loads(held)),
            Totals(*json.loads(known)),
        )
        for id, tenant_id, file, held, known in rows
    ]


def progress(connection: Connection, purge_id: str) -> tuple[int, int]:
    """How many namespaces of a purge are removed, of how many."""
    row = connection.execute(
        "SELECT count(removed_at), count(*) FROM tombstones WHERE purge_id = ?", (purge_id,)
    ).fetchone()
    return row[0], row[1]


def record_held(
    connection: Connection, namespace_id: str, held: Totals, written: Spent = NOTHING
) -> None:
    """Write down what a namespace held, and what was written today, before its file goes."""
    row = connection.execute(
        "SELECT mark FROM tombstones WHERE namespace_id = ? AND held IS NULL", (namespace_id,)
    ).fetchone()
    if row is None:
        return
    if row[0] is not None:
        spent.record(connection, row[0], written)
    connection.execute(
        "UPDATE tombstones SET held = ?, mark = NULL WHERE namespace_id = ?",
        (json.dumps(held), namespace_id),
    )


def record_removed(connection: Connection, namespace_id: str) -> None:
    """Write down that a namespace's files are gone."""
    connection.execute(
        "UPDATE tombstones SET removed_at = ?, file = '' WHERE namespace_id = ?",
        (connection.now, namespace_id),
    )
    connection.leftovers = True


def clear(connection: Connection, purge_id: str) -> None:
    """Drop the rows of what was purged, once no file is left."""
    tenant_id, scope = connection.execute(
        "SELECT tenant_id, scope FROM purges WHERE id = ?", (purge_id,)
    ).fetchone()
    if scope == TENANT:
        for table in ("keys", "calls", "holdings"):
            connection.execute(
                f"DELETE FROM {table} WHERE tenant_id = ?",  # noqa: S608
                (tenant_id,),
            )
        connection.execute("DELETE FROM tenants WHERE id = ?", (tenant_id,))
    connection.leftovers = True


def finish(connection: Connection, purge_id: str) -> dict[str, Any]:
    """Write the receipt, once nothing of what was purged is left in any file."""
    receipt = receipt_of(connection, purge_id)
    if receipt is not None:
        return receipt
    tenant_id, scope, actor, started_at = connection.execute(
        "SELECT tenant_id, scope, actor, started_at FROM purges WHERE id = ?", (purge_id,)
    ).fetchone()
    sums = ", ".join(
        f"coalesce(sum(json_extract(held, '$[{place}]')), 0)"
        for place in range(len(Totals._fields))
    )
    count, *held = connection.execute(
        f"SELECT count(*), {sums} FROM tombstones WHERE purge_id = ?",  # noqa: S608
        (purge_id,),
    ).fetchone()
    receipt = {
        "purge_id": purge_id,
        "scope": scope,
        "tenant_id": tenant_id,
        "namespaces": count,
        **Totals(*held)._asdict(),
        "started_at": timestamp(started_at),
        "finished_at": timestamp(connection.now),
        "actor": actor,
    }
    connection.execute(
        "UPDATE purges SET receipt = ? WHERE id = ?", (json.dumps(receipt), purge_id)
    )
    connection.execute(
        "INSERT INTO audit (at, actor, action, tenant_id, subject, outcome)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (
            connection.now,
            actor,
            f"purge {scope}",
            tenant_id,
            purge_id,
            f"{count} namespaces, {receipt['bytes']} bytes",
        ),
    )
    if scope == NAMESPACE:
        _drop_oldest(connection, tenant_id)
    return receipt


def _drop_oldest(connection: Connection, tenant_id: str) -> None:
    """Keep the last `MOST_RECEIPTS` of what was purged one by one: a tenant can do so for ever."""
    oldest = """SELECT id FROM purges WHERE tenant_id = ?1 AND scope = ?2 AND receipt IS NOT NULL
        ORDER BY started_at DESC LIMIT -1 OFFSET ?3"""
    which = (tenant_id, NAMESPACE, MOST_RECEIPTS)
    connection.execute(f"DELETE FROM tombstones WHERE purge_id IN ({oldest})", which)  # noqa: S608
    connection.execute(f"DELETE FROM purges WHERE id IN ({oldest})", which)  # noqa: S608
    connection.execute(
        """DELETE FROM audit WHERE id IN (SELECT id FROM audit
            WHERE tenant_id = ?1 AND action = 'purge ' || ?2
            ORDER BY id DESC LIMIT -1 OFFSET ?3)""",
        which,
    )


def receipt_of(connection: Connection, purge_id: str) -> dict[str, Any] | None:
    """The receipt of a purge, None while it goes on."""
    row = connection.execute("SELECT receipt FROM purges WHERE id = ?", (purge_id,)).fetchone()
    if row is None or row[0] is None:
        return None
    receipt: dict[str, Any] = json.loads(row[0])
    return receipt


def _bury(
    connection: Connection,
    scope: str,
    tenant_id: str,
    wanted: str,
    parameters: Sequence[str],
    *,
    actor: str,
) -> str | None:
    """Make tombstones of the namespaces of a tenant for which `wanted`, a condition of ours, holds.

    SQLite does it for all at once: a tenant may have a hundred thousand.
    """
    purge_id = secrets.token_hex(8)
    connection.execute(
        "INSERT INTO purges (id, tenant_id, scope, actor, started_at) VALUES (?, ?, ?, ?, ?)",
        (purge_id, tenant_id, scope, actor, connection.now),
    )
    which = f"tenant_id = ? AND {wanted}"
    mark = "NULL"
    if scope != TENANT:  # whose id is never used again
        connection.create_function("mark", 1, spent.marker(connection, tenant_id))
        mark = "mark(name)"
    buried = connection.execute(
        f"""INSERT INTO tombstones (namespace_id, purge_id, file, known, mark)
        SELECT id, ?, file, json_array({_HELD}), {mark} FROM namespaces WHERE {which}""",  # noqa: S608
        (purge_id, tenant_id, *parameters),
    ).rowcount
    if not buried and scope != TENANT:
        connection.execute("DELETE FROM purges WHERE id = ?", (purge_id,))
        return None
    connection.execute(f"DELETE FROM namespaces WHERE {which}", (tenant_id, *parameters))  # noqa: S608
    connection.leftovers = True
    return purge_id
