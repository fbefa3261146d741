"""Tenants and namespaces are made, while there are not too many: units of work of the registry."""

from __future__ import annotations

import secrets

from botwire_server.errors import Closed, QuotaExceeded, Unauthorized, Unavailable
from botwire_server.store import spent
from botwire_server.store.driver import Connection
from botwire_server.store.names import first_behind
from botwire_server.store.rows import NamespaceRow, TenantRow

# What no honest user meets: namespaces of a tenant whose tier has no limit for them (each is a
# file), and tenants that made-up keys open on a server without keys.
MOST_NAMESPACES = 1_000_000
SANDBOX = "sandbox-"
MOST_SANDBOXES = 10_000


def ensure_tenant(connection: Connection, name: str, tier: str) -> TenantRow:
    """The tenant of this name, made if there is none."""
    if name.startswith(SANDBOX):
        _require_room_for_sandbox(connection, name)
    connection.execute(
        "INSERT INTO tenants (id, name, tier, created_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        (secrets.token_hex(8), name, tier, connection.now),
    )
    row = connection.execute(
        "SELECT id, name, tier FROM tenants WHERE name = ? AND purging_at IS NULL", (name,)
    ).fetchone()
    if row is None:
        raise Unavailable("This tenant is being purged; try again when that is done.")
    return TenantRow(*row)


def _require_room_for_sandbox(connection: Connection, name: str) -> None:
    there, count = connection.execute(
        """SELECT EXISTS (SELECT 1 FROM tenants WHERE name = ?1),
            (SELECT count(*) FROM tenants WHERE name >= ?2 AND name < ?3)""",
        (name, SANDBOX, first_behind(SANDBOX)),
    ).fetchone()
    if not there and count >= MOST_SANDBOXES:
        raise QuotaExceeded(
            f"This open server has its {MOST_SANDBOXES} sandboxes, one for each key that was made "
            "up and stored something; its operator can purge them, or create keys.",
            limit=MOST_SANDBOXES,
            resets_at=None,
            kind="sandboxes",
        )


def add_namespace(
    connection: Connection,
    tenant_id: str,
    name: str,
    id: str,
    file: str,
    most: int,
    counted: bool,
) -> NamespaceRow:
    """Record a namespace; see `Registry.add_namespace`."""
    if (
        connection.execute(
            "SELECT 1 FROM tenants WHERE id = ? AND purging_at IS NULL", (tenant_id,)
        ).fetchone()
        is None
    ):
        raise Unauthorized("This tenant is gone, and its keys with it.")
    if counted and spent.pending(connection, tenant_id, name) is not None:
        raise Closed("A namespace of this name is just being removed.")
    connection.execute(
        "INSERT INTO namespaces (id, tenant_id, name, file, created_at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (tenant_id, name) DO NOTHING",
        (id, tenant_id, name, file, connection.now),
    )
    [count] = connection.execute(
        "SELECT namespaces FROM tenants WHERE id = ?", (tenant_id,)
    ).fetchone()
    most = most or MOST_NAMESPACES
    if count > most:
        raise QuotaExceeded(
            f"This tenant has its {most} agents (namespaces); remove one first.",
            limit=most,
            resets_at=None,
            kind="agents",
        )
    row = connection.execute(
        "SELECT id, tenant_id, name, file FROM namespaces WHERE tenant_id = ? AND name = ?",
        (tenant_id, name),
    ).fetchone()
    return NamespaceRow(*row)
