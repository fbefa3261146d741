"""What an operator does with backups: makes them, restores from them, removes tenants from them.

Each leaves a line in the audit.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from botwire_server.errors import NotFound
from botwire_server.logs import timestamp
from botwire_server.store import (
    backup,
    backup_purge,
    control_copies,
    founding,
    installation,
    provenance,
    purges,
    records,
    replacing,
    restore,
    space,
    swap,
)
from botwire_server.store.lock import Lock
from botwire_server.store.places import Place
from botwire_server.store.provenance import ANY, Present, Standing, Wishes
from botwire_server.store.registry import Registry, new_id
from botwire_server.store.restore import Progress, Source
from botwire_server.store.rows import TenantRow
from botwire_server.store.staging import adding, staging
from botwire_server.store.swap import CONTROL
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
            own=await self._registry.query(installation.own),
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
        wishes: Wishes = ANY,
        progress: Progress,
    ) -> dict[str, Any]:
        """Put a tenant's namespaces, or one, back as in a backup, beside a running server.

        A tenant that is there keeps its keys and its tier; one that is gone is made anew and has
        no key. The holder of the lock removes what is replaced.
        """
        with staging(self._data_dir) as scratch:
            present = await asyncio.to_thread(provenance.present, self._data_dir / CONTROL)
            source = await asyncio.to_thread(
                restore.source,
                place,
                scratch,
                present=present,
                wishes=wishes,
                tenant=name,
                namespace=namespace,
                generation=generation,
            )
            theirs = source.tenant(name)
            assert theirs is not None
            notice = provenance.notice(source.standing)
            copies = source.copies(theirs.id, namespace)
            needed = sum(copy.object.bytes for copy, _ in copies if copy.object is not None)
            space.require(self._data_dir, needed, what="This restore")
            row = self._registry.tenant(name)
            tenant_id = secrets.token_hex(8) if row is None else row.id
            with adding(self._data_dir, tenant_id, self._registry.files):
                restored = await self._restore(
                    source, theirs, namespace, tenant_id, made=row is None, progress=progress
                )
        if source.standing == "lost" and source.generation.installation is not None:
            # Nothing was here before: it goes on as what it came from.
            await self._registry.change(installation.become, source.generation.installation)
        outcome = "1 namespace" if namespace else f"{len(restored.built)} namespaces"
        await self.note("restore tenant", tenant_id, source.generation.id, outcome)
        return {
            "backup": place.shown,
            "generation": source.generation.id,
            "installation": provenance.said(source.generation),
            "tenant": name,
            "tenant_id": tenant_id,
            "made": row is None,
            "namespaces": len(restored.built),
            "not_up_to_date": restored.stale,
            "notice": notice,
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


class Plan(NamedTuple):
    """What a restore of everything is about to do; `keys` are those that will work."""

    generation: str
    installation: str
    began_at: str
    standing: Standing
    tenants: list[dict[str, Any]]  # name, how many namespaces, ids of its keys that will work
    operator_keys: list[str]  # that will work
    keys_off: int  # that would work, and will not


def restore_everything(
    place: Place,
    data_dir: Path,
    *,
    generation: str | None,
    wishes: Wishes = ANY,
    agree: Callable[[Plan], None] = lambda plan: None,
    progress: Progress,
) -> dict[str, Any]:
    """Put a whole backup in the place of a data directory nobody serves; what was restored.

    `agree` is told before anything is done, and raises where it is not to be.
    """
    lock = Lock(data_dir)
    try:
        swap.finish(data_dir)
        with staging(data_dir) as scratch:
            present = provenance.present(data_dir / CONTROL)
            source = restore.source(
                place, scratch, present=present, wishes=wishes, generation=generation
            )
            notice = provenance.notice(source.standing)
            plan = _plan(source, present, wishes)
            agree(plan)
            space.require(
                data_dir,
                source.generation.bytes + source.generation.control.bytes,
                what="This restore",
            )
            restored = restore.everything(
                source, data_dir, present=present, wishes=wishes, progress=progress
            )
    finally:
        lock.release()
    return {
        "backup": place.shown,
        "generation": source.generation.id,
        "installation": plan.installation,
        "tenants": len(source.tenants),
        "namespaces": len(restored.built),
        "keys": sum(len(each["keys"]) for each in plan.tenants),
        "operator_keys": len(plan.operator_keys),
        "keys_off": plan.keys_off,
        "not_up_to_date": restored.stale,
        "notice": notice,
    }


def _plan(source: Source, present: Present | None, wishes: Wishes) -> Plan:
    tenants: dict[str, dict[str, Any]] = {
        row.id: {"tenant": row.name, "namespaces": len(source.copies(row.id)), "keys": []}
        for row in sorted(source.tenants.values(), key=lambda row: row.name)
    }
    operators: list[str] = []
    off = 0
    for key in control_copies.keys(source.control):
        if not key.works:
            continue
        if not founding.stays_on(key, standing=source.standing, present=present, wishes=wishes):
            off += 1
        elif key.tenant_id is None:
            operators.append(key.id)
        else:
            tenants[key.tenant_id]["keys"].append(key.id)
    return Plan(
        source.generation.id,
        provenance.said(source.generation),
        timestamp(source.generation.began_at),
        source.standing,
        list(tenants.values()),
        operators,
        off,
    )


def verify(
    place: Place,
    room: Path,
    data_dir: Path,
    *,
    tenant: str | None,
    generation: str | None,
    wishes: Wishes = ANY,
    progress: Progress,
) -> dict[str, Any]:
    """Look through what a restore would take, in `room`, and restore nothing."""
    with staging(room) as scratch:
        present = provenance.present(data_dir / CONTROL)
        source = restore.source(
            place, scratch, present=present, wishes=wishes, tenant=tenant, generation=generation
        )
        notice = provenance.notice(source.standing)
        row = None if tenant is None else source.tenant(tenant)
        tenant_id = None if row is None else row.id
        restore.verify(source, scratch, tenant_id=tenant_id, progress=progress)
        copies = source.copies(tenant_id)
        return {
            "backup": place.shown,
            "generation": source.generation.id,
            "installation": provenance.said(source.generation),
            "namespaces": len(copies),
            "not_up_to_date": [
                restore.stale(source, copy, known)
                for copy, known in copies
                if copy.problem is not None
            ],
            "sound": True,
            "notice": notice,
        }
