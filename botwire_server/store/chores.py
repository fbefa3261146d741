"""Chores: what a command asks whoever holds the lock of a data directory to do with namespaces.

The command writes them down in the registry and waits; the server, or the command itself where
none runs, does them one after the other. One that a crash cut short is done again.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from botwire_server.errors import NotFound, Refusal
from botwire_server.store.directory import DataDirectory
from botwire_server.store.driver import Connection
from botwire_server.store.rows import NamespaceRow

log = logging.getLogger(__name__)

# Called with how much is done and how much there is.
Progress = Callable[[int, int], Awaitable[None]]
# Does a chore in a namespace; says in a few words how it ended.
Chore = Callable[[DataDirectory, NamespaceRow, Progress], Awaitable[str]]

REEMBED, COMPACT, ACCEPT = "reembed", "compact", "accept"


class State(NamedTuple):
    """How far a chore is. `outcome` is None while it goes on."""

    tenant: str
    namespace: str
    done: int
    total: int
    outcome: str | None


async def do_due(directory: DataDirectory, chores: Mapping[str, Chore]) -> None:
    """Do the chores that were asked for and that `chores` knows."""
    registry = directory.registry
    for kind, chore in chores.items():
        for row in await registry.query(due, kind):

            async def progress(done: int, total: int, kind: str = kind, id: str = row.id) -> None:
                await registry.change(note, kind, id, done, total)

            try:
                outcome = await chore(directory, row, progress)
            except Refusal as error:
                log.warning("%s of namespace %s: %s", kind, row.id, error.message)
                outcome = f"failed: {error.message}"
            await registry.change(finish, kind, row.id, outcome)


# Units of work on the registry.


def ask(
    connection: Connection, kind: str, tenant: str | None, namespace: str | None = None
) -> float:
    """Ask for a chore in one namespace, in every one of a tenant, or in all; the time it is
    known by.
    """
    now = connection.now
    known = connection.execute("SELECT 1 FROM tenants WHERE name = ?", (tenant,)).fetchone()
    if tenant is not None and known is None:
        raise NotFound("There is no such tenant; `tenants list` names them.")
    asked = connection.execute(
        """INSERT INTO chores (kind, namespace_id, asked_at)
        SELECT ?1, n.id, ?2 FROM namespaces n JOIN tenants t ON t.id = n.tenant_id
        WHERE (?3 IS NULL OR t.name = ?3) AND (?4 IS NULL OR n.name = ?4)
        ON CONFLICT (kind, namespace_id) DO UPDATE SET
            asked_at = ?2, done = 0, total = 0, outcome = NULL""",
        (kind, now, tenant, namespace),
    ).rowcount
    if namespace is not None and not asked:
        raise NotFound("This tenant has no such namespace; `namespaces list` names them.")
    return now


def due(connection: Connection, kind: str) -> list[NamespaceRow]:
    """Some of the namespaces that wait for a chore, those asked for first."""
    rows = connection.execute(
        """SELECT n.id, tenant_id, name, file FROM chores JOIN namespaces n ON n.id = namespace_id
        WHERE kind = ? AND outcome IS NULL ORDER BY asked_at LIMIT 16""",
        (kind,),
    )
    return [NamespaceRow(*row) for row in rows]


def note(connection: Connection, kind: str, namespace_id: str, done: int, total: int) -> None:
    """Write down how far a chore is."""
    connection.execute(
        "UPDATE chores SET done = ?, total = ? WHERE kind = ? AND namespace_id = ?",
        (done, total, kind, namespace_id),
    )


def finish(connection: Connection, kind: str, namespace_id: str, outcome: str) -> None:
    """Write down how a chore ended."""
    connection.execute(
        "UPDATE chores SET outcome = ? WHERE kind = ? AND namespace_id = ?",
        (outcome, kind, namespace_id),
    )


def states(connection: Connection, kind: str, asked_at: float) -> list[State]:
    """How far the chores asked for at this time are; those of purged namespaces are gone."""
    rows = connection.execute(
        """SELECT t.name, n.name, done, total, outcome FROM chores
        JOIN namespaces n ON n.id = namespace_id JOIN tenants t ON t.id = n.tenant_id
        WHERE kind = ? AND asked_at = ? ORDER BY t.name, n.name""",
        (kind, asked_at),
    )
    return [State(*row) for row in rows]
