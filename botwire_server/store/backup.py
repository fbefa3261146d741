"""Writing a backup, beside a server or without one.

    control.db                      copied first: what it names has every acknowledged write
    each namespace that changed     copied, looked through, put in place
    the manifest                    written last: until then the generation is not there
    older generations               removed beyond the last few, with the objects only they need

What has not changed since an earlier generation is not copied again. A namespace that is damaged is
named and its last good copy kept; the others go on.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from botwire_server.errors import Damaged, Refusal
from botwire_server.store import control_copies, copying, generations, installation, provenance
from botwire_server.store.control_copies import Known
from botwire_server.store.destinations import claimed
from botwire_server.store.files import located
from botwire_server.store.generations import Copy, Generation, Object
from botwire_server.store.installation import Own
from botwire_server.store.places import Place
from botwire_server.store.pool import DRAFT
from botwire_server.store.rows import TenantRow

Progress = Callable[[int, int], None]

KEEP = 7


@dataclass
class _Work:
    """A backup under way."""

    place: Place
    data_dir: Path
    scratch: Path
    generation_id: str
    earlier: dict[str, Copy]  # the last copy of each namespace, where its object is there
    full: bool
    copied: int = 0
    found: list[Copy] = field(default_factory=list)


def write(
    place: Place,
    data_dir: Path,
    *,
    own: Own,
    tenant_id: str | None = None,
    keep: int = KEEP,
    full: bool = False,
    progress: Progress,
) -> dict[str, Any]:
    """Back up everything, or one tenant; what was done.

    `keep` is how many generations of the same scope stay of this installation (`own`): those of
    others are left alone. `full` copies also what is unchanged.
    """
    with claimed(place), place.scratch(data_dir) as scratch:
        began_at = time.time()
        everybodys, unreadable = _readable(place)
        known = [each for each in everybodys if provenance.of_generation(place, each, own, scratch)]
        work = _Work(
            place,
            data_dir,
            scratch,
            generations.new_id(generations.ids(place)),
            _copies(known, set(place.paths("tenants/"))),
            full,
        )
        control = scratch / "control.db"
        copying.copy(data_dir / "control.db", control)
        wanted = control_copies.namespaces(control)
        if tenant_id is not None:
            wanted = {id: each for id, each in wanted.items() if each.row.tenant_id == tenant_id}
        for number, each in enumerate(wanted.values()):
            progress(number, len(wanted))
            work.found.append(_copy(work, each))
        tenants = _leave_out_purged(work, control, wanted, tenant_id)
        generation = Generation(
            id=work.generation_id,
            installation=own.id,
            tenant_id=tenant_id,
            began_at=began_at,
            control=put_control(place, control, tenant_id=tenant_id, generation=work.generation_id),
            namespaces=tuple(work.found),
        )
        place.settle()
        generations.write(place, generation)
        progress(len(wanted), len(wanted))
        removed = (
            []
            if unreadable
            else prune(place, [*everybodys, generation], own=[*known, generation], keep=keep)
        )
        return {
            "backup": place.shown,
            "generation": generation.id,
            "installation": own.id,
            "scope": "everything" if tenant_id is None else "tenant",
            "tenants": len(tenants),
            "namespaces": len(work.found),
            "copied": work.copied,
            "bytes": generation.bytes,
            "generations": len(known) + 1 - len(removed),
            "damaged": [
                {
                    "tenant": tenants[each.tenant_id].name,
                    "namespace": wanted[each.id].row.name,
                    "problem": each.problem,
                    "kept": each.object is not None,
                }
                for each in work.found
                if each.problem is not None
            ],
            "unreadable": unreadable,
        }


def put_control(place: Place, file: Path, *, tenant_id: str | None, generation: str) -> Object:
    """Put a registry's copy in place; a tenant's lies with what is the tenant's."""
    copying.inspect_control(file)
    folder = "control" if tenant_id is None else f"tenants/{tenant_id}"
    path = f"{folder}/control-{generation}-{secrets.token_hex(3)}.db"
    size, sha256 = copying.digest(file)
    place.put(path, file)
    return Object(path=path, bytes=size, sha256=sha256)


def prune(
    place: Place, known: list[Generation], *, own: Collection[Generation] = (), keep: int = KEEP
) -> list[str]:
    """Remove what no generation needs, and of `own` those beyond the newest `keep` of each scope.

    The ids of those that were removed. `known` must be all there are, whoever's.
    """
    removed: list[Generation] = []
    seen: Counter[str | None] = Counter()
    for generation in sorted(own, key=lambda each: each.id, reverse=True):
        seen[generation.tenant_id] += 1
        if seen[generation.tenant_id] > keep:
            removed.append(generation)
    gone = {generation.id for generation in removed}
    kept = [generation for generation in known if generation.id not in gone]
    place.remove(generation.path for generation in removed)
    needed = set[str]().union(*(generation.paths for generation in kept))
    present = [*place.paths("control/"), *place.paths("tenants/")]
    place.remove(path for path in present if path not in needed)
    return [generation.id for generation in removed]


def _readable(place: Place) -> tuple[list[Generation], list[str]]:
    """The generations, newest first, and the ids of those whose manifest is damaged."""
    found, unreadable = [], []
    for id in generations.ids(place):
        try:
            found.append(generations.read(place, id))
        except Damaged:
            unreadable.append(id)
    return found, unreadable


def _copies(known: Iterable[Generation], present: set[str]) -> dict[str, Copy]:
    found: dict[str, Copy] = {}
    for generation in known:  # newest first
        for copy in generation.namespaces:
            if copy.object is not None and copy.object.path in present:
                found.setdefault(copy.id, copy)
    return found


def _copy(work: _Work, known: Known) -> Copy:
    """A namespace's part of the generation; with a `problem` where its file is not sound."""
    row = known.row
    earlier = work.earlier.get(row.id)
    try:
        return _copy_sound(work, known, earlier)
    except Refusal as error:
        if earlier is not None:
            return replace(earlier, problem=error.message)
        return Copy(
            id=row.id,
            tenant_id=row.tenant_id,
            object=None,
            version="",
            copied_at=time.time(),
            problem=error.message,
        )


def _copy_sound(work: _Work, known: Known, earlier: Copy | None) -> Copy:
    row = known.row
    file = located(work.data_dir, row)
    # A file that was restored has another name: its revisions may be those of another history, as
    # they may be after a power loss where they are not promised to last.
    salt = (row.file, None if known.lasting else installation.boot())
    if not file.exists():
        if file.with_name(file.name + DRAFT).exists():
            return Copy(
                id=row.id, tenant_id=row.tenant_id, object=None, version="", copied_at=time.time()
            )
        if not file.exists():  # a draft may just have got its name
            raise Damaged("Its file is missing.")
    if earlier is not None and not work.full and copying.version(file, *salt) == earlier.version:
        return replace(earlier, problem=None)
    copied_at = time.time()
    path = work.scratch / f"{row.id}.db"
    try:
        copying.copy(file, path)
        version = copying.inspect(path, row.id, *salt)
        size, sha256 = copying.digest(path)
        target = f"tenants/{row.tenant_id}/{row.id}-{work.generation_id}.db"
        work.place.put(target, path)
    finally:
        for suffix in ("", "-wal", "-shm", "-journal"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    work.copied += 1
    return Copy(
        id=row.id,
        tenant_id=row.tenant_id,
        object=Object(path=target, bytes=size, sha256=sha256),
        version=version,
        copied_at=copied_at,
    )


def _leave_out_purged(
    work: _Work, control: Path, wanted: dict[str, Known], only: str | None
) -> dict[str, TenantRow]:
    """Take out what was purged meanwhile; the tenants that are left.

    What a restore has replaced meanwhile is copied again.
    """
    now = work.scratch / "now.db"
    copying.copy(work.data_dir / "control.db", now)
    current = control_copies.namespaces(now)
    left = set(control_copies.tenants(now))
    os.unlink(now)
    found, work.found = work.found, []
    for copy in found:
        known = current.get(copy.id)
        if known is None:
            continue
        if copy.problem is not None and known.row.file != wanted[copy.id].row.file:
            copy = _copy(work, known)
        work.found.append(copy)
    gone = set(control_copies.namespaces(control)) - {each.id for each in work.found}
    control_copies.clean(control, tenants=left if only is None else left & {only}, gone=gone)
    if only is not None:
        control_copies.forget_others(control, only)
    return control_copies.tenants(control)
