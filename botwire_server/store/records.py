"""What operators keep in the registry: tenants, keys, the audit. Units of work.

A tenant that is being purged is gone, and its keys with it: whoever looked them up before that
hears `NotFound` from here. The audit names tenants by id only, so that a purge leaves no name
behind.
"""

from __future__ import annotations

from botwire_server.errors import Invalid, NotFound
from botwire_server.store import keys
from botwire_server.store.archive import Built
from botwire_server.store.driver import Connection
from botwire_server.store.namespace import Totals
from botwire_server.store.rows import KeyRow


def add_tenant(connection: Connection, id: str, name: str, tier: str) -> None:
    """Make a tenant. Raises `Invalid` if there is one of this name."""
    added = connection.execute(
        "INSERT INTO tenants (id, name, tier, created_at) VALUES (?, ?, ?, ?)"
        " ON CONFLICT (name) DO NOTHING",
        (id, name, tier, connection.now),
    )
    if not added.rowcount:
        raise Invalid("There is a tenant of this name; take another.", where=("body", "name"))


def set_tier(connection: Connection, tenant_id: str, tier: str) -> None:
    """Give a tenant another tier. Raises `NotFound`."""
    changed = connection.execute(
        "UPDATE tenants SET tier = ? WHERE id = ? AND purging_at IS NULL", (tier, tenant_id)
    )
    if not changed.rowcount:
        raise no_tenant()


_KEY = ", ".join(KeyRow._fields)


def add_key(connection: Connection, row: KeyRow) -> KeyRow:
    """Record a key; from now on keys are required. Raises `NotFound` where its tenant is gone."""
    if (
        row.tenant_id is not None
        and not connection.execute(
            "SELECT 1 FROM tenants WHERE id = ? AND purging_at IS NULL", (row.tenant_id,)
        ).fetchone()
    ):
        raise no_tenant()
    connection.execute(
        f"INSERT INTO keys ({_KEY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
        row,
    )
    connection.execute(
        "INSERT INTO facts (name, value) VALUES ('keys_required', 1) ON CONFLICT DO NOTHING"
    )
    return row


def rotate(
    connection: Connection,
    key: KeyRow,
    made: keys.NewKey,
    *,
    works_until: float,
    expires_at: float | None,
) -> KeyRow:
    """Record the successor of a key and let the key itself end. Raises `NotFound`."""
    _require_key(connection, key.id)
    now = connection.now
    # Without grace it is revoked: that holds whatever the clock does next.
    ended = connection.execute(
        """UPDATE keys SET expires_at = min(coalesce(expires_at, ?1), ?1),
            revoked_at = iif(?1 <= ?2, ?2, NULL)
        WHERE id = ?3 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?2)""",
        (works_until, now, key.id),
    )
    if not ended.rowcount:
        raise Invalid("This key was just rotated or revoked.", where=("path", "id"))
    new = key._replace(
        id=made.id,
        hash=made.hash,
        created_at=now,
        last_used_at=None,
        expires_at=expires_at,
    )
    return add_key(connection, new)


def revoke(connection: Connection, id: str) -> KeyRow:
    """Let a key work no longer. Raises `NotFound`."""
    _require_key(connection, id)
    row = connection.execute(
        f"""UPDATE keys SET revoked_at = coalesce(revoked_at, ?) WHERE id = ?
        RETURNING {_KEY}""",  # noqa: S608
        (connection.now, id),
    ).fetchone()
    return KeyRow(*row)


def no_tenant() -> NotFound:
    """What is said of a tenant that is not there, or not any more."""
    return NotFound("There is no such tenant; `tenants list` names them.")


def no_key() -> NotFound:
    """What is said of a key that is not there, or not any more."""
    return NotFound("There is no key with this id; `keys list` names them.")


def _require_key(connection: Connection, id: str) -> None:
    if not connection.execute(
        """SELECT 1 FROM keys k LEFT JOIN tenants t ON t.id = k.tenant_id
        WHERE k.id = ? AND t.purging_at IS NULL""",
        (id,),
    ).fetchone():
        raise no_key()


def add_audit(
    connection: Connection,
    actor: str,
    action: str,
    tenant_id: str | None,
    subject: str,
    outcome: str,
) -> None:
    """Leave a line in the audit."""
    connection.execute(
        "INSERT INTO audit (at, actor, action, tenant_id, subject, outcome)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (connection.now, actor, action, tenant_id, subject, outcome),
    )


def namespaces_of(connection: Connection, tenant_id: str) -> dict[str, str]:
    """The names of a tenant's namespaces by their ids."""
    return dict(
        connection.execute("SELECT id, name FROM namespaces WHERE tenant_id = ?", (tenant_id,))
    )


def namespace_ids(connection: Connection) -> list[str]:
    """Every id a namespace has or had: none is used twice."""
    rows = connection.execute(
        "SELECT id FROM namespaces UNION ALL SELECT namespace_id FROM tombstones"
    )
    return [id for [id] in rows]


def add_built(
    connection: Connection, tenant_id: str, name: str, tier: str, built: list[Built]
) -> None:
    """Make a tenant of namespaces that are in place."""
    add_tenant(connection, tenant_id, name, tier)
    add_namespaces(connection, tenant_id, built)


def add_namespaces(connection: Connection, tenant_id: str, built: list[Built]) -> None:
    """Record namespaces that are in place."""
    held = ", ".join(Totals._fields)
    places = ", ".join("?" for _ in Totals._fields)
    connection.executemany(
        f"""INSERT INTO namespaces
            (id, tenant_id, name, file, created_at, sweep_at, model, revision, {held})
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, {places})""",  # noqa: S608
        [
            (each.id, tenant_id, each.name, each.file, each.created_at, *each.outlook, *each.totals)
            for each in built
        ],
    )
