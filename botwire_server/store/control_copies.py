"""The registry's copy in a backup: what it holds, and taking out what must not be in it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from botwire_server.store import spent
from botwire_server.store.copying import opened
from botwire_server.store.driver import Connection
from botwire_server.store.rows import NamespaceRow, TenantRow


class Known(NamedTuple):
    """A namespace that a registry knows; `lasting` where its revision is promised to last."""

    row: NamespaceRow
    created_at: float
    lasting: bool


class KnownKey(NamedTuple):
    """A key that a registry knows; an operator's has no tenant."""

    id: str
    tenant_id: str | None
    created_at: float
    works: bool


def tenants(file: Path) -> dict[str, TenantRow]:
    """The tenants by id; one that is being purged is gone."""
    with opened(file) as connection:
        rows = connection.execute("SELECT id, name, tier FROM tenants WHERE purging_at IS NULL")
        return {row[0]: TenantRow(*row) for row in rows}


def namespaces(file: Path) -> dict[str, Known]:
    """The namespaces of these tenants by id."""
    with opened(file) as connection:
        rows = connection.execute(
            """SELECT n.id, tenant_id, n.name, file, n.created_at, revision IS NOT NULL
            FROM namespaces n JOIN tenants t ON t.id = tenant_id WHERE purging_at IS NULL
            ORDER BY tenant_id, n.id"""
        )
        return {row[0]: Known(NamespaceRow(*row[:4]), row[4], bool(row[5])) for row in rows}


def clean(file: Path, *, tenants: Collection[str], gone: Collection[str]) -> None:
    """Take out all but these tenants, and the namespaces that are `gone`, with every byte."""
    with opened(file) as connection:
        connection.execute("BEGIN IMMEDIATE")
        rows = connection.execute("SELECT id, purging_at IS NOT NULL FROM tenants").fetchall()
        for id, purging in rows:
            if purging or id not in tenants:
                _drop_tenant(connection, id)
        connection.executemany("DELETE FROM namespaces WHERE id = ?", [(id,) for id in gone])
        # There are no files beside a copy, and nobody waits for what was asked for.
        connection.execute(
            """UPDATE tombstones SET file = '', held = coalesce(held, known),
                removed_at = coalesce(removed_at, ?)""",
            (connection.now,),
        )
        spent.forget(connection)  # or a copy would tell for good which names were purged
        connection.execute("DELETE FROM facts WHERE name = 'settled'")
        for table in ("discarded", "chores"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608
        connection.execute("COMMIT")
        connection.execute("VACUUM")


def forget_others(file: Path, tenant_id: str) -> None:
    """Take out what is about no tenant or another: operators' keys, receipts, the audit."""
    with opened(file) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM keys WHERE tenant_id IS NULL")
        connection.execute(
            """DELETE FROM tombstones WHERE purge_id IN
                (SELECT id FROM purges WHERE tenant_id <> ?)""",
            (tenant_id,),
        )
        for table in ("audit", "purges"):
            connection.execute(
                f"DELETE FROM {table} WHERE tenant_id IS NOT ?",  # noqa: S608
                (tenant_id,),
            )
        connection.execute("COMMIT")
        connection.execute("VACUUM")


def drop_tenant(file: Path, tenant_id: str) -> bool:
    """Take a tenant out for good, with every byte; whether it was there."""
    with opened(file) as connection:
        connection.execute("BEGIN IMMEDIATE")
        found = _drop_tenant(connection, tenant_id)
        connection.execute("COMMIT")
        connection.execute("VACUUM")
        return found


def keys_required(connection: Connection) -> bool:
    """Whether a key was ever made."""
    row = connection.execute("SELECT 1 FROM facts WHERE name = 'keys_required'").fetchone()
    return row is not None


def keys(file: Path) -> list[KnownKey]:
    """The keys in a registry's copy."""
    with opened(file) as connection:
        return known_keys(connection)


def known_keys(connection: Connection) -> list[KnownKey]:
    """The keys, tenant by tenant, oldest first."""
    rows = connection.execute(
        """SELECT id, tenant_id, created_at, revoked_at IS NULL AND coalesce(expires_at > ?, 1)
        FROM keys ORDER BY tenant_id, created_at, id""",
        (connection.now,),
    )
    return [KnownKey(id, tenant_id, at, bool(works)) for id, tenant_id, at, works in rows]


def _drop_tenant(connection: Connection, tenant_id: str) -> bool:
    connection.execute(
        "DELETE FROM tombstones WHERE purge_id IN (SELECT id FROM purges WHERE tenant_id = ?)",
        (tenant_id,),
    )
    for table in ("purges", "namespaces", "keys", "calls", "holdings"):
        connection.execute(
            f"DELETE FROM {table} WHERE tenant_id = ?",  # noqa: S608
            (tenant_id,),
        )
    return bool(connection.execute("DELETE FROM tenants WHERE id = ?", (tenant_id,)).rowcount)
