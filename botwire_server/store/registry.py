"""control.db: whose data there is, and which file holds it.

It is asked on every request, so that what another process changed holds at once. Look-ups run on
a connection of their own, where they are called (some microseconds, by index); changes run on a
`Database` like everybody's.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self

from botwire_server.errors import Damaged, Unusable
from botwire_server.store import driver
from botwire_server.store.database import Database
from botwire_server.store.driver import Clock, Connection, Durability
from botwire_server.store.migrations import CONTROL, template, write_new
from botwire_server.store.names import slug
from botwire_server.store.namespace import Totals

DEFAULT_TENANT = "default"


class TenantRow(NamedTuple):
    """A tenant as the registry knows it."""

    id: str
    name: str


class NamespaceRow(NamedTuple):
    """A namespace as the registry knows it. `file` is relative to the data directory."""

    id: str
    name: str
    file: str


class Tombstone(NamedTuple):
    """A file that is to be removed."""

    namespace_id: str
    file: str


class _Control(Database):
    schema = CONTROL


class Registry:
    """An open control.db. Made by `open`, of no use after `close`."""

    def __init__(self, lookups: Connection, changes: Database) -> None:
        self._lookups = lookups
        self._changes = changes

    @classmethod
    async def open(cls, directory: Path, *, durability: Durability, clock: Clock) -> Self:
        """Open the registry of a data directory, made on first use."""
        path = prepare(directory)
        try:
            changes = await _Control.open(path, durability=durability, clock=clock)
        except Damaged as error:
            raise Unusable(f"{path}: {error.message}") from error
        return cls(driver.connect(path, clock=clock), changes)

    async def close(self) -> None:
        """Release its connections."""
        self._lookups.close()
        await self._changes.close()

    # Look-ups: on the caller's thread.

    def tenant(self, name: str) -> TenantRow | None:
        """A tenant by name."""
        row = self._lookups.execute(
            "SELECT id, name FROM tenants WHERE name = ?", (name,)
        ).fetchone()
        return None if row is None else TenantRow(*row)

    def namespace(self, tenant_id: str, name: str) -> NamespaceRow | None:
        """A namespace of this tenant by name."""
        row = self._lookups.execute(
            "SELECT id, name, file FROM namespaces WHERE tenant_id = ? AND name = ?",
            (tenant_id, name),
        ).fetchone()
        return None if row is None else NamespaceRow(*row)

    def namespace_by_id(self, tenant_id: str, id: str) -> NamespaceRow | None:
        """A namespace of this tenant by id; another tenant's is None like one that is not."""
        row = self._lookups.execute(
            "SELECT id, name, file FROM namespaces WHERE id = ? AND tenant_id = ?", (id, tenant_id)
        ).fetchone()
        return None if row is None else NamespaceRow(*row)

    def namespaces_with_memories(self, tenant_id: str) -> list[str]:
        """The names of this tenant's namespaces that hold memories as of the last `note`."""
        rows = self._lookups.execute(
            "SELECT name FROM namespaces WHERE tenant_id = ? AND memories > 0 ORDER BY name",
            (tenant_id,),
        )
        return [name for [name] in rows]

    def totals(self, tenant_id: str) -> tuple[int, Totals]:
        """How many namespaces a tenant has, and what they hold as of the last `note`."""
        row = self._lookups.execute(
            """SELECT count(*), total(entries), total(states), total(memories), total(episodes),
                total(vectors), total(bytes) FROM namespaces WHERE tenant_id = ?""",
            (tenant_id,),
        ).fetchone()
        return row[0], Totals(*map(int, row[1:]))

    def due(self, now: float, limit: int) -> list[NamespaceRow]:
        """Namespaces in which something has expired."""
        rows = self._lookups.execute(
            "SELECT id, name, file FROM namespaces WHERE sweep_at <= ? LIMIT ?", (now, limit)
        )
        return [NamespaceRow(*row) for row in rows]

    def tombstones(self) -> list[Tombstone]:
        """What is still to be removed."""
        rows = self._lookups.execute("SELECT namespace_id, file FROM tombstones")
        return [Tombstone(*row) for row in rows]

    def files(self) -> set[str]:
        """Every file the registry knows, relative to the data directory."""
        rows = self._lookups.execute(
            "SELECT file FROM namespaces UNION ALL SELECT file FROM tombstones"
        )
        return {file for [file] in rows}

    def rows(self, files: Iterable[str]) -> list[NamespaceRow]:
        """The namespaces of these files."""
        found = []
        for file in files:
            row = self._lookups.execute(
                "SELECT id, name, file FROM namespaces WHERE file = ?", (file,)
            ).fetchone()
            if row is not None:
                found.append(NamespaceRow(*row))
        return found

    # Changes: committed when they return.

    async def ensure_tenant(self, name: str) -> TenantRow:
        """The tenant of this name, made if there is none."""
        row = self.tenant(name)
        return row if row is not None else await self._changes.transact(_ensure_tenant, name)

    async def add_namespace(self, tenant_id: str, name: str, *, id: str, file: str) -> NamespaceRow:
        """Record a namespace whose file is prepared; the one that is there if there is one."""
        return await self._changes.transact(_add_namespace, tenant_id, name, id, file)

    async def bury(self, namespace_id: str) -> bool:
        """Turn a namespace into a tombstone: its name is free at once. False if it is gone."""
        return await self._changes.transact(_bury, namespace_id)

    async def forget(self, namespace_id: str) -> None:
        """Drop a tombstone whose files are gone."""
        await self._changes.transact(_forget, namespace_id)

    async def note(self, totals: Iterable[tuple[str, Totals, float | None]]) -> None:
        """Record what namespaces hold and when they next need a sweep."""
        await self._changes.transact(_note, list(totals))


def new_id() -> str:
    """A namespace's id: 60 random bits as hexadecimal, so that a UUID has room for it."""
    return f"{secrets.randbits(60):015x}"


def file_of(tenant_id: str, name: str, namespace_id: str) -> str:
    """Where a namespace lives, relative to the data directory."""
    return f"tenants/{tenant_id}/{slug(name)}-{namespace_id}.db"


def prepare(directory: Path) -> Path:
    """Make control.db where there is none; return its path.

    Raises `Unusable` rather than start afresh over a directory that has lost its registry.
    """
    path = directory / "control.db"
    if path.exists():
        return path
    if any(directory.glob("tenants/*/*.db")):
        raise Unusable(
            f"{path} is missing although {directory} holds namespaces: restore it from a backup, "
            "or name another --data-dir."
        )
    draft = directory / f".control-{secrets.token_hex(6)}.new"
    write_new(draft, template(CONTROL, directory))
    try:
        # Two processes may start at once: the first link wins, both go on with it.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    return path


def _ensure_tenant(connection: Connection, name: str) -> TenantRow:
    connection.execute(
        "INSERT INTO tenants (id, name, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (secrets.token_hex(8), name, connection.now),
    )
    row = connection.execute("SELECT id, name FROM tenants WHERE name = ?", (name,)).fetchone()
    return TenantRow(*row)


def _add_namespace(
    connection: Connection, tenant_id: str, name: str, id: str, file: str
) -> NamespaceRow:
    connection.execute(
        "INSERT INTO namespaces (id, tenant_id, name, file, created_at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (tenant_id, name) DO NOTHING",
        (id, tenant_id, name, file, connection.now),
    )
    row = connection.execute(
        "SELECT id, name, file FROM namespaces WHERE tenant_id = ? AND name = ?", (tenant_id, name)
    ).fetchone()
    return NamespaceRow(*row)


def _bury(connection: Connection, namespace_id: str) -> bool:
    row = connection.execute(
        "DELETE FROM namespaces WHERE id = ? RETURNING file", (namespace_id,)
    ).fetchone()
    if row is None:
        return False
    connection.execute(
        "INSERT INTO tombstones (namespace_id, file, created_at) VALUES (?, ?, ?)",
        (namespace_id, row[0], connection.now),
    )
    return True


def _forget(connection: Connection, namespace_id: str) -> None:
    connection.execute("DELETE FROM tombstones WHERE namespace_id = ?", (namespace_id,))


def _note(connection: Connection, totals: list[tuple[str, Totals, float | None]]) -> None:
    connection.executemany(
        """UPDATE namespaces SET entries = ?, states = ?, memories = ?, episodes = ?, vectors = ?,
            bytes = ?, sweep_at = ? WHERE id = ?""",
        [(*held, sweep_at, namespace_id) for namespace_id, held, sweep_at in totals],
    )
