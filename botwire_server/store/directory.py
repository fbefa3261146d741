"""One data directory: its lock, its registry and its open namespaces.

One server at a time holds the lock, and only the holder removes files.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

from botwire_server.errors import (
    Closed,
    Damaged,
    Refusal,
    Stopping,
    StorageFull,
    Unavailable,
    Unusable,
)
from botwire_server.metrics import StoreCounters
from botwire_server.store import (
    causes,
    installation,
    leftovers,
    listings,
    premises,
    purges,
    room,
    spent,
    swap,
)
from botwire_server.store.anchor import Anchor
from botwire_server.store.deadlines import READ_SECONDS, Deadline, Readers
from botwire_server.store.driver import (
    Clock,
    Durability,
    require_driver,
    sqlite3,
)
from botwire_server.store.keys import EVERYTHING
from botwire_server.store.lock import Lock, locked
from botwire_server.store.namespace import Namespace, Outlook, Totals
from botwire_server.store.pool import Pool
from botwire_server.store.registry import Registry, file_of, new_id
from botwire_server.store.removals import Removals
from botwire_server.store.room import Limits, Rooms
from botwire_server.store.rows import NamespaceRow, TenantRow
from botwire_server.store.staging import clear_abandoned
from botwire_server.store.usage import Ledger
from botwire_server.store.views import Gate

log = logging.getLogger(__name__)

RECOVERED_AT_ONCE = 16


class DataDirectory:
    """An open data directory. Made by `open`, of no use after `close`.

    `nowhere` is a namespace that is always empty: what does not exist is read there.
    """

    nowhere: Namespace
    pool: Pool
    _removals: Removals

    def __init__(
        self, path: Path, lock: Lock, registry: Registry, *, lasting: bool, readers: Readers
    ) -> None:
        self.path = path
        self._lasting = lasting  # what is committed survives a power loss
        self.registry = registry
        # What is moved or replaced under this process is not written to.
        self.anchor = Anchor(path / premises.CONTROL, rarely=(path / "lock",))
        registry.changes.anchors.append(self.anchor)
        self.ledger = Ledger(registry)
        self.readers = readers
        self.counters = StoreCounters()
        registry.changes.work = self.counters.registry
        self.lock = lock
        self._changed: dict[str, tuple[NamespaceRow, Namespace]] = {}
        self._noting = asyncio.Lock()
        self.rooms = Rooms(self._held_by)
        # Tenants of whom the registry knows what they hold: all (None), until there was a crash;
        # from then on those whose files were looked at.
        self._looked_at: set[str] | None = None
        self._marked = True  # as one that was closed, so that a crash would not be seen
        self._creating: dict[tuple[str, str], asyncio.Task[NamespaceRow]] = {}
        self.gate = Gate()
        # Whether something that was begun before it was opened could not be finished.
        self.unfinished = False
        # Drafts that the registry may have recorded although it said no.
        self._doubtful: list[NamespaceRow] = []

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        durability: Durability,
        clock: Clock,
        most_open: int,
        patience: float = 0.0,
        read_seconds: float = READ_SECONDS,
    ) -> Self:
        """Lock the directory (made if missing), open its registry, finish what a crash left.

        `patience` is for how many seconds a lock that somebody else holds is waited for.
        """
        require_driver()
        premises.enter(path, make=True)
        async with AsyncExitStack() as undo:
            lock = await locked(path, patience)
            undo.callback(lock.release)
            try:
                try:
                    await asyncio.to_thread(swap.finish, path)
                except swap.PutBack as error:  # what was there before is served
                    log.critical("%s", error.message)
                # Always full: files go once the registry says so, and must not be missed after.
                registry = await Registry.open(path, durability="full", clock=clock)
                undo.push_async_callback(registry.close)
                self = cls(
                    path,
                    lock,
                    registry,
                    lasting=durability == "full",
                    readers=Readers(read_seconds),
                )
                self.nowhere = await Namespace.open(
                    ":memory:", durability=durability, clock=clock, keep=False
                )
                undo.push_async_callback(self.nowhere.close)
                self.pool = Pool(
                    path,
                    durability=durability,
                    clock=clock,
                    most_open=most_open,
                    noted=registry.noted_revision,
                    written=registry.written,
                    on_change=self._on_change,
                    counters=self.counters,
                    anchor=self.anchor,
                )
                undo.push_async_callback(self.pool.close_all)
                self._removals = Removals(
                    registry, self.pool, self.rooms, self.counters, forget=self._forget
                )
                await self._recover()
                await self.ledger.load()
            except (sqlite3.Error, Unavailable, OSError) as error:
                cause = error.__cause__ if isinstance(error, Unavailable) else error
                told = causes.told(f"{path} cannot be served", cause or error)
                raise Unusable(f"{told} Nothing was changed.") from error
            undo.pop_all()
        return self

    async def close(self) -> None:
        """End reads, commit what is queued, close every file, release the lock."""
        self.end_reads()
        await self.pool.close_all()
        for write_down in (self._note_the_end, lambda: self.ledger.flush(all=True)):
            try:
                await write_down()
            except Refusal as error:  # counts of the last seconds are not worth staying for
                log.error("closing the data directory: %s", error.message)
        await self.nowhere.close()
        await self.registry.close()
        self.lock.release()

    def end_reads(self) -> None:
        """Let nobody wait for reads any more: they are told `Stopping`."""
        self.readers.stop(Stopping("This server ends; ask again when it is back."))

    async def _note_the_end(self) -> None:
        await self.note_changes()
        if not self._marked:
            await self.registry.change(room.settle, self._looked_at)

    async def warn_of_copy(self) -> None:
        """Say where it lies elsewhere than noted: its id may be another's as well."""
        noted = await self.registry.query(installation.noted_place)
        if noted is not None and installation.is_another(noted, installation.place_of(self.path)):
            log.warning("%s: %s. %s", self.path, installation.COPIED, installation.REMEDY)

    def find(self, tenant: TenantRow, name: str) -> NamespaceRow | None:
        """A namespace of this tenant, if it exists."""
        return self.registry.namespace(tenant.id, name)

    async def create(
        self, tenant: TenantRow, name: str, *, most: int, counted: bool = False
    ) -> NamespaceRow:
        """A namespace of this tenant, made where it does not exist.

        `most` is how many the tenant may have; 0 is no limit. Raises `QuotaExceeded`. Where its
        writes are `counted`, those of its name are waited for while it is being purged.
        """
        key = (tenant.id, name)
        task = self._creating.get(key)
        if task is None:
            task = asyncio.create_task(self._create(tenant, name, most, counted))
            self._creating[key] = task
            task.add_done_callback(lambda _: self._creating.pop(key, None))
        return await asyncio.shield(task)

    async def purge_namespace(self, row: NamespaceRow, *, actor: str) -> dict[str, Any] | None:
        """Remove a namespace, file and all; the receipt, or None if it is gone already.

        From the moment the registry lets go of the name, a write to it starts a new file.
        """
        purge_id = await self.registry.change(
            purges.bury_namespace, row.tenant_id, row.id, actor=actor
        )
        return None if purge_id is None else await self.finish_purge(purge_id)

    async def finish_purge(self, purge_id: str) -> dict[str, Any]:
        """Do what a purge has begun; safe to repeat, and to ask for twice at once."""
        return await self._removals.finish_purge(purge_id)

    async def finish_purges(self) -> None:
        """Finish the purges that another process, or a run before this, has begun."""
        await self._removals.finish_purges()

    async def finish_discards(self) -> None:
        """Remove the files that a restore has replaced."""
        await self._removals.finish_discards()

    async def totals(
        self,
        tenant: TenantRow,
        *,
        pattern: str = EVERYTHING,
        deadline: Deadline | None = None,
    ) -> tuple[int, Totals]:
        """How many namespaces of a tenant fit a key's pattern, and what they hold."""
        await self.note_changes()
        return await self.registry.query_within(
            deadline, listings.totals, tenant.id, pattern=pattern
        )

    async def require_room(self, tenant: TenantRow, limits: Limits, *, vectors: int = 0) -> None:
        """Raise `QuotaExceeded` if the tenant's storage is full, or has no room for `vectors`.

        For who is about to do what costs: what is stored is looked at in its transaction.
        """
        limits = await self.rooms.within(tenant, limits)
        if limits.room is not None:
            limits.room.require(limits, vectors=vectors)

    async def note_changes(self) -> None:
        """Tell the registry what changed in the namespaces since the last time."""
        # When this returns, also what another call was just noting is noted.
        async with self._noting:
            changed = dict(self._changed)
            self._changed.clear()
            if not changed:
                return
            try:
                await self.registry.note(
                    [(row, held.totals, self._known(held)) for row, held in changed.values()]
                )
            except Refusal:
                self._changed = changed | self._changed
                raise

    def _forget(self, file: str) -> None:
        self._changed.pop(file, None)

    def _known(self, namespace: Namespace) -> Outlook:
        outlook = namespace.outlook
        lasting = self._lasting and not namespace.doubtful
        return outlook if lasting else outlook._replace(revision=None)

    async def settle(self) -> None:
        """Write down everything that was counted, so that the registry can be asked."""
        await self.note_changes()
        await self.ledger.flush()

    def _on_change(self, row: NamespaceRow, namespace: Namespace, before: Totals) -> None:
        self._changed[row.file] = row, namespace
        of_all = self.rooms.get(row.tenant_id)
        if of_all is not None:
            after = namespace.totals if self._is_known(row) else before
            of_all.moved(before, after, namespace.promises)

    def _is_known(self, row: NamespaceRow) -> bool:
        """Whether the registry has not let go of a namespace's file: then it counts no more."""
        try:
            found = self.registry.namespace(row.tenant_id, row.name)
        except Unavailable:
            return True
        return found is not None and found.file == row.file

    async def _held_by(self, tenant: TenantRow) -> Totals:
        """What a tenant holds, as far as its files can be read.

        After a crash the registry may be behind them: a second, or what was closed in it.
        """
        if self._marked:
            await self._unmark()
        if self._looked_at is not None and tenant.id not in self._looked_at:
            async for page in listings.every(
                self.registry,
                listings.namespaces,
                tenant.id,
                shape=lambda held: held.row,
                behind=lambda held: held.row.name,
            ):
                rows = iter(page)
                await asyncio.gather(*(self._look_at(rows) for _ in range(RECOVERED_AT_ONCE)))
            self._looked_at.add(tenant.id)
        return (await self.totals(tenant))[1]

    async def _look_at(self, rows: Iterator[NamespaceRow]) -> None:
        for row in rows:
            # What is damaged is logged where it is opened, and counts as last noted.
            with contextlib.suppress(Damaged, Closed):
                self._changed[row.file] = row, await self.pool.open(row)

    async def _create(self, tenant: TenantRow, name: str, most: int, counted: bool) -> NamespaceRow:
        await self._clear_doubts()
        if counted and (purge_id := await self.registry.query(spent.pending, tenant.id, name)):
            await self.finish_purge(purge_id)
        self.anchor.require()  # or the draft would go into another directory
        id = new_id()
        row = NamespaceRow(id, tenant.id, name, file_of(tenant.id, name, id))
        await self.pool.draft(row)
        try:
            # Known to the registry from here on; the draft gets its name when it is opened.
            recorded = await self.registry.add_namespace(
                tenant.id, name, id=id, file=row.file, most=most, counted=counted
            )
        except Refusal as error:
            if isinstance(error, Unavailable) and not isinstance(error, StorageFull | Closed):
                self._doubtful.append(row)
            else:
                await self.pool.discard(row)
            raise
        if recorded.id != id:
            await self.pool.discard(row)
        return recorded

    async def _clear_doubts(self) -> None:
        """Drop the drafts that were refused in doubt, once the registry is sure of itself again.

        Raises `Unavailable` before that, so that they do not fill the disk.
        """
        if not self._doubtful:
            return
        await self.registry.be_sure()
        doubtful, self._doubtful = self._doubtful, []
        for row in doubtful:
            if self.registry.namespace_by_id(row.tenant_id, row.id) is None:
                await self.pool.discard(row)

    async def _recover(self) -> None:
        with contextlib.suppress(
            Unavailable
        ):  # a full disk can be read; who needs room tries again
            await self._unmark()
        for begun in (self.finish_purges, self.finish_discards):
            try:
                await begun()
            except Unavailable as error:
                # What cannot be removed stops no start: it is tried again while this one runs.
                log.error("what was begun before cannot be finished yet: %s", error.message)
                self.unfinished = True
        clear_abandoned(self.path, self.registry.is_tenant, self.registry.files)
        known = self.registry.files()
        leftovers.drop_drafts(self.path, known)
        files = [
            *leftovers.unclean(self.path),
            *await asyncio.to_thread(leftovers.lost, self.path, known),
        ]
        rows = iter(self.registry.rows(files))

        async def recover() -> None:
            for row in rows:
                try:
                    self._changed[row.file] = row, await self.pool.open(row)
                except Damaged:
                    pass  # is logged where it is opened
                except Refusal as error:
                    log.error("namespace %s: %s", row.id, error.message)

        # They wait for the disk, and wait together.
        await asyncio.gather(*(recover() for _ in range(RECOVERED_AT_ONCE)))
        await self.note_changes()

    async def _unmark(self) -> None:
        self._looked_at = await self.registry.change(room.begin)
        self._marked = False
