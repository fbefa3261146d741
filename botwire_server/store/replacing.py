"""Units of work on the registry that put restored namespaces in the place of a tenant's own.

One transaction lets go of every file of the tenant and names the new ones. Whoever asks after it
gets the new; the old are written down until the holder of the lock has closed and removed them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from botwire_server.errors import Unavailable
from botwire_server.store import records
from botwire_server.store.archive import Built
from botwire_server.store.driver import Connection


class Discarded(NamedTuple):
    """A file that is to be removed; `file` is "" where only the tenant's totals are others now."""

    id: int
    tenant_id: str
    file: str


def replace(
    connection: Connection, tenant_id: str, built: list[Built], *, keep: Collection[str]
) -> None:
    """Give a tenant these namespaces for those it has, but for the ids to `keep`.

    Raises `Unavailable` if the tenant went, or an id was given away, since they were built.
    """
    row = connection.execute(
        "SELECT 1 FROM tenants WHERE id = ? AND purging_at IS NULL", (tenant_id,)
    ).fetchone()
    if row is None:
        raise Unavailable("The tenant was purged meanwhile; nothing was restored.")
    rows = connection.execute(
        "SELECT id, file FROM namespaces WHERE tenant_id = ?", (tenant_id,)
    ).fetchall()
    replaced = [(id, file) for id, file in rows if id not in keep]
    connection.executemany("DELETE FROM namespaces WHERE id = ?", [(id,) for id, _ in replaced])
    taken = set(records.namespace_ids(connection))
    if any(each.id in taken for each in built):
        raise Unavailable("A namespace was purged or imported meanwhile; restore again.")
    records.add_namespaces(connection, tenant_id, built)
    connection.executemany(
        "INSERT INTO discarded (tenant_id, file) VALUES (?, ?)",
        [(tenant_id, file) for _, file in replaced] + [(tenant_id, "")],
    )
    connection.leftovers = True


def due(connection: Connection) -> list[Discarded]:
    """What is to be removed."""
    return [
        Discarded(*row) for row in connection.execute("SELECT id, tenant_id, file FROM discarded")
    ]


def left(connection: Connection, tenant_id: str) -> int:
    """How many of a tenant's files are still to be removed."""
    [count] = connection.execute(
        "SELECT count(*) FROM discarded WHERE tenant_id = ?", (tenant_id,)
    ).fetchone()
    return int(count)


def done(connection: Connection, ids: list[int]) -> None:
    """Write down that they are removed."""
    connection.executemany("DELETE FROM discarded WHERE id = ?", [(id,) for id in ids])
    connection.leftovers = True
