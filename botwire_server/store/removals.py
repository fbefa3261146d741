"""Files that the registry has let go of are removed: what was purged, what a restore has replaced.

What cannot be removed now keeps nothing else from being removed, and is tried again. Only the
holder of a data directory's lock may do this.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from botwire_server.errors import Damaged, Refusal, Unavailable
from botwire_server.metrics import StoreCounters
from botwire_server.store import purges, replacing
from botwire_server.store.namespace import Namespace
from botwire_server.store.pool import Pool
from botwire_server.store.purges import Tombstone
from botwire_server.store.registry import Registry
from botwire_server.store.room import Rooms
from botwire_server.store.rows import NamespaceRow
from botwire_server.store.spent import Spent

log = logging.getLogger(__name__)

# How often a purge tries to cut the registry's WAL in a row; each try waits for readers to end.
ERASE_ATTEMPTS = 20
ERASE_PAUSE = 0.05


class Removals:
    """What of an open data directory is to be removed. `forget` is told of each file before."""

    def __init__(
        self,
        registry: Registry,
        pool: Pool,
        rooms: Rooms,
        counters: StoreCounters,
        *,
        forget: Callable[[str], None],
    ) -> None:
        self._registry = registry
        self._pool = pool
        self._rooms = rooms
        self._counters = counters
        self._forget = forget
        self._purging: dict[str, asyncio.Task[dict[str, Any]]] = {}

    async def finish_purge(self, purge_id: str) -> dict[str, Any]:
        """Do what a purge has begun; safe to repeat, and to ask for twice at once."""
        task = self._purging.get(purge_id)
        if task is None:
            task = asyncio.create_task(self._finish_purge(purge_id))
            self._purging[purge_id] = task
            task.add_done_callback(lambda _: self._purging.pop(purge_id, None))
        return await asyncio.shield(task)

    async def finish_purges(self) -> None:
        """Finish the purges that another process, or a run before this, has begun."""
        failed: list[Unavailable] = []
        for purge_id in await self._registry.query(purges.unfinished):
            try:
                await self.finish_purge(purge_id)
            except Unavailable as error:
                failed.append(error)
        if failed:
            raise failed[0]

    async def finish_discards(self) -> None:
        """Remove the files that a restore has replaced."""
        removed: list[int] = []
        failed: list[Unavailable] = []
        for discarded in await self._registry.query(replacing.due):
            # What the tenant held, and what was just being counted, is not so any more.
            self._rooms.forget(discarded.tenant_id)
            try:
                if discarded.file:
                    await self._remove_file(discarded.file, discarded.tenant_id)
            except Unavailable as error:
                failed.append(error)
                continue
            removed.append(discarded.id)
        if removed:
            await self._registry.change(replacing.done, removed)
        if failed:
            raise failed[0]

    async def _finish_purge(self, purge_id: str) -> dict[str, Any]:
        with contextlib.suppress(Unavailable):  # nothing of this purge's; it is tried again
            await self.finish_discards()
        failed: list[Unavailable] = []
        after = ""
        while tombstones := await self._registry.query(purges.due, purge_id, after=after):
            for tombstone in tombstones:
                try:
                    await self._remove(tombstone)
                except Unavailable as error:
                    failed.append(error)
            after = tombstones[-1].row.id
        if failed:
            raise failed[0]
        await self._registry.change(purges.clear, purge_id)
        await self._erase()
        receipt = await self._registry.change(purges.finish, purge_id)
        self._counters.purges += 1
        self._rooms.forget(receipt["tenant_id"])
        if receipt["scope"] == purges.TENANT:
            self._rooms.drop(receipt["tenant_id"])
            self._pool.drop_directory(receipt["tenant_id"])
        return receipt

    async def _erase(self) -> None:
        """Cut the registry's WAL, in which the rows of what is purged still lie."""
        for _ in range(ERASE_ATTEMPTS):
            if await self._registry.erase():
                return
            await asyncio.sleep(ERASE_PAUSE)
        raise Unavailable(
            "The purge is begun and goes on by itself: another process is still reading the "
            "registry."
        )

    async def _remove(self, tombstone: Tombstone) -> None:
        row = tombstone.row
        if tombstone.held is None:
            drained = await self._drained(row)
            if drained is None:
                await self._registry.change(purges.record_held, row.id, tombstone.known)
            else:
                await self._registry.change(
                    purges.record_held, row.id, drained.totals, Spent(*drained.written)
                )
        await self._remove_file(row.file, row.tenant_id)
        await self._registry.change(purges.record_removed, row.id)

    async def _remove_file(self, file: str, tenant_id: str) -> None:
        try:
            await self._pool.remove(file, tenant_id=tenant_id)
        except Damaged:
            # Somebody else's, who wrote it into the registry: it stays, and nothing waits for it.
            log.error("the registry names a file to remove that is none of ours: left as it is")
        self._forget(file)

    async def _drained(self, row: NamespaceRow) -> Namespace | None:
        """A buried namespace once its queue has run empty; None if it is damaged."""
        try:
            return await self._pool.retired(row)
        except Refusal as error:
            log.warning("namespace %s is purged uncounted: %s", row.id, error.message)
            return None
