"""One data directory: its lock, its registry and its open namespaces.

One server at a time holds the lock, and only the holder removes files.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from pathlib import Path
from typing import Self

from botwire_server.errors import Closed, Refusal, Unusable
from botwire_server.store.driver import Clock, Durability, require_driver
from botwire_server.store.namespace import Namespace, Totals
from botwire_server.store.pool import DRAFT, Pool
from botwire_server.store.registry import (
    NamespaceRow,
    Registry,
    TenantRow,
    Tombstone,
    file_of,
    new_id,
)

log = logging.getLogger(__name__)


class Lock:
    """The right to serve a data directory; held until `release` or the end of the process."""

    def __init__(self, directory: Path) -> None:
        self._descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise Unusable(
                f"Another botwire-server is serving {directory}: stop it, or name another "
                "--data-dir."
            ) from error

    def release(self) -> None:
        """Let another server in."""
        os.close(self._descriptor)


class DataDirectory:
    """An open data directory. Made by `open`, of no use after `close`.

    `nowhere` is a namespace that is always empty: what does not exist is read there.
    """

    def __init__(self, path: Path, lock: Lock, registry: Registry) -> None:
        self.path = path
        self.registry = registry
        self.nowhere: Namespace
        self.pool: Pool
        self._lock = lock
        self._changed: dict[str, Namespace] = {}
        self._purging: set[str] = set()
        self._creating: dict[tuple[str, str], asyncio.Task[NamespaceRow]] = {}

    @classmethod
    async def open(
        cls, path: Path, *, durability: Durability, clock: Clock, most_open: int
    ) -> Self:
        """Lock the directory (made if missing), open its registry, finish what a crash left."""
        require_driver()
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = Lock(path)
        except OSError as error:
            raise Unusable(
                f"{path} cannot be used as data directory ({os.strerror(error.errno or 0)}): name "
                "another --data-dir, or give this user the right to write there."
            ) from error
        try:
            registry = await Registry.open(path, durability=durability, clock=clock)
            self = cls(path, lock, registry)
            self.nowhere = await Namespace.open(
                ":memory:", durability=durability, clock=clock, keep=False
            )
            self.pool = Pool(
                path,
                durability=durability,
                clock=clock,
                most_open=most_open,
                on_change=self._changed.__setitem__,
            )
            await self._recover()
        except BaseException:
            lock.release()
            raise
        return self

    async def close(self) -> None:
        """Commit what is queued, close every file, release the lock."""
        await self.pool.close_all()
        await self.note_changes()
        await self.nowhere.close()
        await self.registry.close()
        self._lock.release()

    def find(self, tenant: TenantRow, name: str) -> NamespaceRow | None:
        """A namespace of this tenant, if it exists."""
        return self.registry.namespace(tenant.id, name)

    def find_by_id(self, tenant: TenantRow, id: str) -> NamespaceRow | None:
        """A namespace of this tenant by its id, if it exists."""
        return self.registry.namespace_by_id(tenant.id, id)

    async def with_memories(self, tenant: TenantRow) -> list[str]:
        """The names of this tenant's namespaces that hold memories."""
        await self.note_changes()
        return self.registry.namespaces_with_memories(tenant.id)

    async def create(self, tenant: TenantRow, name: str) -> NamespaceRow:
        """A namespace of this tenant, made where it does not exist."""
        key = (tenant.id, name)
        task = self._creating.get(key)
        if task is None:
            task = asyncio.create_task(self._create(tenant, name))
            self._creating[key] = task
            task.add_done_callback(lambda _: self._creating.pop(key, None))
        return await asyncio.shield(task)

    async def purge(self, row: NamespaceRow) -> Totals | None:
        """Remove a namespace, file and all; what it held, or None if it is gone already.

        From the moment the registry lets go of the name, a write to it starts a new file.
        """
        self._purging.add(row.id)
        try:
            if not await self.registry.bury(row.id):
                return None
            held = await self._drained(row)
            await self.remove(Tombstone(row.id, row.file))
            return held
        finally:
            self._purging.discard(row.id)

    async def remove_buried(self) -> None:
        """Remove the files of namespaces that another process has buried."""
        for tombstone in self.registry.tombstones():
            if tombstone.namespace_id not in self._purging:
                await self.remove(tombstone)

    async def remove(self, tombstone: Tombstone) -> None:
        """Do what a tombstone says; safe to repeat."""
        await self.pool.remove(tombstone.namespace_id, tombstone.file)
        self._changed.pop(tombstone.namespace_id, None)
        await self.registry.forget(tombstone.namespace_id)

    async def totals(self, tenant: TenantRow) -> tuple[int, Totals]:
        """How many namespaces a tenant has, and what they hold."""
        await self.note_changes()
        return self.registry.totals(tenant.id)

    async def note_changes(self) -> None:
        """Tell the registry what changed in the namespaces since the last time."""
        changed = dict(self._changed)
        self._changed.clear()
        if changed:
            await self.registry.note(
                [(id, namespace.totals, namespace.sweep_at) for id, namespace in changed.items()]
            )

    async def _create(self, tenant: TenantRow, name: str) -> NamespaceRow:
        id = new_id()
        row = NamespaceRow(id, name, file_of(tenant.id, name, id))
        await self.pool.draft(row)
        # Known to the registry from here on; the draft gets its name when it is opened.
        recorded = await self.registry.add_namespace(tenant.id, name, id=id, file=row.file)
        if recorded.id != id:
            await self.pool.discard(row)
        return recorded

    async def _drained(self, row: NamespaceRow) -> Totals:
        """What a buried namespace held, once its queue has run empty."""
        try:
            namespace = await self.pool.open(row)
        except (Closed, Refusal):
            return Totals()  # removed by somebody else, or damaged: its file goes all the same
        await self.pool.close(row.id)
        return namespace.totals

    async def _recover(self) -> None:
        await self.remove_buried()
        known = self.registry.files()
        for draft in self.path.glob(f"tenants/*/*.db{DRAFT}"):
            file = str(draft.relative_to(self.path)).removesuffix(DRAFT)
            if file not in known:  # nothing was ever acknowledged into it
                draft.unlink()
        # A WAL that is still there was not closed in peace: the registry may be a second behind.
        unclean = [
            str(wal.relative_to(self.path)).removesuffix("-wal")
            for wal in self.path.glob("tenants/*/*.db-wal")
        ]
        for row in self.registry.rows(unclean):
            try:
                self._changed[row.id] = await self.pool.open(row)
            except Refusal as error:
                log.error("namespace %s: %s", row.id, error.message)
        await self.note_changes()
