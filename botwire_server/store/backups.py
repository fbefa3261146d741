"""What an operator does with backups: makes them, restores from them, removes tenants from them.

Each leaves a line in the audit.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from botwire_server.errors import NotFound
from botwire_server.store import backup, backup_purge, purges, records, replacing, restore, space
from botwire_server.store.lock import Lock
from botwire_server.store.places import Place
from botwire_server.store.registry import Registry, new_id
from botwire_server.store.restore import Progress, Source
from botwire_server.store.rows import TenantRow
from botwire_server.store.staging import adding, staging
from botwire_server.tiers import UNLIMITED, Tier


class Backups:
    """The backups of a data directory, whether a server runs there or not.

    `actor` is who is known in the audit.
    """

    def __init__(
        self, registry: Registry, data_dir: Path, *, tiers: Mapping[str, Tier], actor: str
    ) -> None:
        self._registry = registry
        self._data_dir = data_dir
        self._tiers = tiers
        self._actor = actor

    async def make(
        self, place: Place, *, tenant: str | None, keep: int, full: bool, progress: Progress
    ) -> dict[str, Any]:
        """Back up everything, or one tenant; what was done."""
        row = None if tenant is None else self._registry.tenant(tenant)
        if tenant is not None and row is None:
            raise NotFound("There is no such tenant; `tenants list` names them.")
        done = await asyncio.to_thread(
            backup.write,
            place,
            self._data_dir,
            tenant_id=None if row is None else row.id,
            keep=keep,
            full=full,
            progress=progress,
        )
        outcome = f"{done['namespaces']} namespaces, {done['copied']} copied"
        if done["damaged"]:
            outcome += f", {len(done['damaged'])} damaged"
        await self.note("backup", None if row is None else row.id, done["generation"], outcome)
        return done

    def has(self, tenant: str) -> bool:
        """Whether there is a tenant of this name."""
        return self._registry.tenant(tenant) is not None

    async def restore_tenant(
        self,
        place: Place,
        name: str,
        *,
        namespace: str | None = None,
        generation: str | None,
        progress: Progress,
    ) -> dict[str, Any]:
        """Put a tenant's namespaces, or one, back as in a backup, beside a running server.

        A tenant that is there keeps its keys and its tier; one that is gone is made anew and has
        no key. The holder of the lock removes what is replaced.
        """
        with staging(self._data_dir) as scratch:
            source = await asyncio.to_thread(
                restore.source,
                place,
                scratch,
                tenant=name,
                namespace=namespace,
                generation=generation,
            )
            theirs = source.tenant(name)
            assert theirs is not None
            copies = source.copies(theirs.id, namespace)
            needed = sum(copy.object.bytes for copy, _ in copies if copy.object is not None)
            space.require(self._data_dir, needed, what="This restore")
            row = self._registry.tenant(name)
            tenant_id = secrets.token_hex(8) if row is None else row.id
            with adding(self._data_dir, tenant_id, self._registry.files):
                restored = await self._restore(
                    source, theirs, namespace, tenant_id, made=row is None, progress=progress
                )
        outcome = "1 namespace" if namespace else f"{len(restored.built)} namespaces"
        await self.note("restore tenant", tenant_id, source.generation.id, outcome)
        return {
            "backup": place.shown,
            "generation": source.generation.id,
            "tenant": name,
            "tenant_id": tenant_id,
            "made": row is None,
            "namespaces": len(restored.built),
            "not_up_to_date": restored.stale,
        }

    async def _restore(
        self,
        source: Source,
        theirs: TenantRow,
        namespace: str | None,
        tenant_id: str,
        *,
        made: bool,
        progress: Progress,
    ) -> restore.Restored:
        own = await self._registry.query(records.namespaces_of, tenant_id)
        taken = set(await self._registry.query(records.namespace_ids)) - set(own)
        restored = await asyncio.to_thread(
            restore.tenant,
            source,
            self._data_dir,
            tenant_id=theirs.id,
            into=tenant_id,
            namespace=namespace,
            # An id that was purged is never used again; the others, and with them those of the
            # memories, stay.
            new_id=lambda id: new_id() if id in taken else id,
            progress=progress,
        )
        if made:
            tier = theirs.tier if theirs.tier in self._tiers else UNLIMITED
            await self._registry.change(
                records.add_built, tenant_id, theirs.name, tier, restored.built
            )
        else:
            others = {id for id, name in own.items() if namespace not in (None, name)}
            await self._registry.change(
                replacing.replace, tenant_id, restored.built, keep=restored.lost | others
            )
        return restored

    async def files_left(self, tenant_id: str) -> int:
        """How many replaced files of a tenant are still to be removed."""
        return await self._registry.query(replacing.left, tenant_id)

    async def purged_before(self, id: str) -> str | None:
        """The id, if a tenant of this id was purged."""
        return await self._registry.query(purges.tenant_purged, id)

    async def purge(self, place: Place, tenant_id: str) -> dict[str, Any]:
        """Remove a tenant from a backup; what was removed."""
        done = await asyncio.to_thread(backup_purge.purge, place, self._data_dir, tenant_id)
        outcome = f"{done['generations']} generations, {done['objects']} objects"
        await self.note("purge backup", tenant_id, tenant_id, outcome)
        return done

    async def note(self, action: str, tenant_id: str | None, subject: str, outcome: str) -> None:
        """Leave a line in the audit."""
        await self._registry.change(
            records.add_audit, self._actor, action, tenant_id, subject, outcome
        )


def restore_everything(
    place: Place, data_dir: Path, *, generation: str | None, progress: Progress
) -> dict[str, Any]:
    """Put a whole backup in the place of a data directory nobody serves; what was restored."""
    lock = Lock(data_dir)
    try:
        with staging(data_dir) as scratch:
            source = restore.source(place, scratch, generation=generation)
            space.require(data_dir, source.generation.bytes, what="This restore")
            restored = restore.everything(source, data_dir, progress=progress)
    finally:
        lock.release()
    return {
        "backup": place.shown,
        "generation": source.generation.id,
        "tenants": len(source.tenants),
        "namespaces": len(restored.built),
        "not_up_to_date": restored.stale,
    }


def verify(
    place: Place, data_dir: Path, *, tenant: str | None, generation: str | None, progress: Progress
) -> dict[str, Any]:
    """Look through what a restore would take, and restore nothing."""
    with staging(data_dir) as scratch:
        source = restore.source(place, scratch, tenant=tenant, generation=generation)
        row = None if tenant is None else source.tenant(tenant)
        tenant_id = None if row is None else row.id
        restore.verify(source, scratch, tenant_id=tenant_id, progress=progress)
        copies = source.copies(tenant_id)
        return {
            "backup": place.shown,
            "generation": source.generation.id,
            "namespaces": len(copies),
            "not_up_to_date": [
                restore.stale(source, copy, known)
                for copy, known in copies
                if copy.problem is not None
            ],
            "sound": True,
        }
