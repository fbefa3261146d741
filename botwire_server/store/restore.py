"""Reading a backup: everything is checked before anything of a data directory is touched.

Every object must have the size and SHA-256 that the manifest says, be a sound file of a schema this
code knows, and belong to its namespace. One that is not stops the restore, and nothing was done.
Restored namespaces get files with new names, so that nobody takes them for what was there before.
"""

from __future__ import annotations

import hmac
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from botwire_server.errors import Damaged, NotFound
from botwire_server.logs import timestamp
from botwire_server.store import (
    control_copies,
    copying,
    founding,
    generations,
    installation,
    provenance,
    registry_rows,
    swap,
)
from botwire_server.store.archive import Built
from botwire_server.store.control_copies import Known
from botwire_server.store.generations import Copy, Generation, Object
from botwire_server.store.migrations import NAMESPACE, template, write_new
from botwire_server.store.namespace import Outlook, Totals
from botwire_server.store.places import Missing, Place
from botwire_server.store.provenance import Present, Standing, Wishes
from botwire_server.store.registry import file_of
from botwire_server.store.rows import TenantRow

Progress = Callable[[int, int], None]


class Source(NamedTuple):
    """A generation that is restored, and what its registry says. `control` is a scratch file."""

    place: Place
    generation: Generation
    standing: Standing
    control: Path
    tenants: dict[str, TenantRow]
    namespaces: dict[str, Known]

    def tenant(self, name: str) -> TenantRow | None:
        """A tenant by name."""
        return next((each for each in self.tenants.values() if each.name == name), None)

    def copies(
        self, tenant_id: str | None = None, namespace: str | None = None
    ) -> list[tuple[Copy, Known]]:
        """What the generation has of a tenant or of all; of one namespace if one is named."""
        return [
            (copy, known)
            for copy in self.generation.namespaces
            if tenant_id in (None, copy.tenant_id)
            for known in [self.namespaces[copy.id]]
            if namespace in (None, known.row.name)
        ]


class Restored(NamedTuple):
    """What was built of a generation: namespaces in place, and those that it has no copy of."""

    built: list[Built]
    stale: list[dict[str, Any]]
    lost: set[str]


def listing(place: Place) -> list[dict[str, Any]]:
    """The generations of a backup, newest first."""
    place.require()
    found: list[dict[str, Any]] = []
    for id in generations.ids(place):
        try:
            generation = generations.read(place, id)
        except Damaged:
            found.append(
                {"generation": id, "scope": "unreadable", "installation": None, "began_at": None}
                | {"namespaces": None, "bytes": None, "damaged": None}
            )
            continue
        found.append(
            {
                "generation": id,
                "scope": "everything" if generation.tenant_id is None else "tenant",
                "installation": provenance.said(generation),
                "tenant_id": generation.tenant_id,
                "began_at": timestamp(generation.began_at),
                "namespaces": len(generation.namespaces),
                "bytes": generation.bytes,
                "damaged": sum(each.problem is not None for each in generation.namespaces),
            }
        )
    return found


def source(
    place: Place,
    scratch: Path,
    *,
    present: Present | None,
    wishes: Wishes,
    tenant: str | None = None,
    namespace: str | None = None,
    generation: str | None = None,
) -> Source:
    """The newest generation that has everything, or this tenant, or the one that is named.

    It is of the installation of the data directory (`present`), or of the one that is wished for.
    Of a `namespace` there is a copy in it. Raises `Invalid` where only another's would do.
    """
    place.require()
    chosen: Source | None = None
    foreign: Generation | None = None
    whose = set[str]()
    for id in generations.ids(place) if generation is None else [generation]:
        try:
            found = generations.read(place, id)
        except Damaged:
            if chosen is None:
                raise
            continue
        if tenant is None and found.tenant_id is not None:
            if generation is not None:
                raise NotFound("This generation holds one tenant only: restore it with --tenant.")
            continue
        standing = _standing(place, found, scratch, present=present, wishes=wishes)
        if standing is None:
            foreign = foreign or found
            continue
        whose.add(provenance.said(found))
        if chosen is None:
            chosen = _holding(place, found, standing, scratch, tenant, namespace)
        if chosen is not None and (present is not None or wishes.installation is not None):
            break  # whose the others are does not matter
    provenance.require_one(whose if present is None else ())
    if chosen is not None:
        return chosen
    if foreign is not None and not whose:
        provenance.require_wished(foreign, present, wishes)
    raise NotFound(
        "The backup holds no generation of everything."
        if tenant is None
        else "The backup does not hold this tenant."
        if namespace is None
        else "The backup holds no copy of this namespace."
    )


def _holding(
    place: Place,
    found: Generation,
    standing: Standing,
    scratch: Path,
    tenant: str | None,
    namespace: str | None,
) -> Source | None:
    """A generation, opened, if it holds what is asked for."""
    opened = _open(place, found, standing, scratch / f"control-{found.id}.db")
    row = None if tenant is None else opened.tenant(tenant)
    if tenant is None or (
        row is not None and (namespace is None or _has(opened.copies(row.id, namespace)))
    ):
        return opened
    opened.control.unlink()
    return None


def _standing(
    place: Place, found: Generation, scratch: Path, *, present: Present | None, wishes: Wishes
) -> Standing | None:
    """Whose a generation is; None where that is none that may be taken."""
    wished = wishes.installation in (None, provenance.said(found))
    if present is None:
        return "lost" if wished else None
    if provenance.of_generation(place, found, present.own, scratch):
        return "own" if wished else None
    return "foreign" if wishes.installation is not None and wished else None


def verify(source: Source, scratch: Path, *, tenant_id: str | None, progress: Progress) -> None:
    """Do with everything what a restore would do, to copies that are gone. Raises `Damaged`."""
    copies = source.copies(tenant_id)
    for number, (copy, _) in enumerate(copies):
        progress(number, len(copies))
        if copy.object is not None:
            file = scratch / f"{copy.id}.db"
            _fetch(source.place, copy.object, file)
            _adopt(source, file, copy, copy.id)
            file.unlink()
    progress(len(copies), len(copies))


def everything(
    source: Source,
    data_dir: Path,
    *,
    present: Present | None,
    wishes: Wishes,
    progress: Progress,
) -> Restored:
    """Put a generation in the place of a data directory, whose lock the caller holds.

    What was ended in the data directory stays so; see `founding`.
    """
    with swap.building(data_dir) as new:
        by_tenant: dict[str, list[Built]] = defaultdict(list)
        restored = _build(
            source,
            new,
            copies=source.copies(),
            target=lambda copy: (copy.tenant_id, copy.id),
            put=lambda owner, built: by_tenant[owner].append(built),
            progress=progress,
        )
        for copy, known in source.copies():
            if copy.id in restored.lost:
                # Not an empty one: it is damaged until somebody finds its file.
                file = file_of(copy.tenant_id, known.row.name, copy.id, again=True)
                by_tenant[copy.tenant_id].append(
                    Built(copy.id, known.row.name, file, known.created_at, Totals(), Outlook(None))
                )
        own = None if present is None else present.own.id
        control = new / swap.CONTROL
        founding.write(
            control,
            source.control,
            built=by_tenant,
            id=own or source.generation.installation or installation.new_id(),
            place=installation.place_of(data_dir),
            standing=source.standing,
            present=present,
            wishes=wishes,
        )
        copying.sync(control)
        copying.sync(new)
    return restored


def tenant(
    source: Source,
    data_dir: Path,
    *,
    tenant_id: str,
    into: str,
    namespace: str | None,
    new_id: Callable[[str], str],
    progress: Progress,
) -> Restored:
    """Build a tenant's namespaces in the directory of the tenant `into`.

    The registry does not know them yet. `new_id` says which id one gets for the one it had.
    """
    return _build(
        source,
        data_dir,
        copies=source.copies(tenant_id, namespace),
        target=lambda copy: (into, new_id(copy.id)),
        put=lambda owner, built: None,
        progress=progress,
    )


def _open(place: Place, generation: Generation, standing: Standing, control: Path) -> Source:
    _fetch(place, generation.control, control)
    try:
        copying.inspect_control(control)
        with copying.opened(control) as connection:
            registry_rows.check(connection)
        opened = Source(
            place,
            generation,
            standing,
            control,
            control_copies.tenants(control),
            control_copies.namespaces(control),
        )
    except Damaged as error:
        raise _damaged(error.message) from error
    listed = {copy.id: copy.tenant_id for copy in generation.namespaces}
    if listed != {id: known.row.tenant_id for id, known in opened.namespaces.items()}:
        raise _damaged("its manifest and its registry do not belong together")
    return opened


def _build(
    source: Source,
    root: Path,
    *,
    copies: list[tuple[Copy, Known]],
    target: Callable[[Copy], tuple[str, str]],
    put: Callable[[str, Built], None],
    progress: Progress,
) -> Restored:
    restored = Restored([], [], set())
    fresh = template(NAMESPACE, root)
    directories = {root, root / "tenants"}
    for number, (copy, known) in enumerate(copies):
        progress(number, len(copies))
        owner, id = target(copy)
        if copy.problem is not None:
            restored.stale.append(stale(source, copy, known))
        if copy.problem is not None and copy.object is None:
            restored.lost.add(copy.id)
            continue
        relative = file_of(owner, known.row.name, id, again=True)
        file = root / relative
        file.parent.mkdir(exist_ok=True, mode=0o700)
        directories.add(file.parent)
        if copy.object is None:
            write_new(file, fresh)
            totals, outlook = copying.adopt(file, id, thorough=False)
        else:
            _fetch(source.place, copy.object, file)
            totals, outlook = _adopt(source, file, copy, id)
        copying.sync(file)
        built = Built(id, known.row.name, relative, known.created_at, totals, outlook)
        restored.built.append(built)
        put(owner, built)
    for directory in directories:
        if directory.exists():
            copying.sync(directory)
    progress(len(copies), len(copies))
    return restored


def _has(copies: list[tuple[Copy, Known]]) -> bool:
    return any(copy.object is not None or copy.problem is None for copy, _ in copies)


def stale(source: Source, copy: Copy, known: Known) -> dict[str, Any]:
    """What an operator is told of a copy that is not of its generation's time."""
    return {
        "tenant": source.tenants[copy.tenant_id].name,
        "namespace": known.row.name,
        "problem": copy.problem,
        "restored_from": None if copy.object is None else timestamp(copy.copied_at),
    }


def _fetch(place: Place, wanted: Object, file: Path) -> None:
    try:
        place.fetch(wanted.path, file, size=wanted.bytes)
    except Missing as error:
        raise _damaged(f"{wanted.path} is missing") from error
    except Damaged as error:
        raise _damaged(error.message) from error
    if not hmac.compare_digest(copying.digest(file).sha256, wanted.sha256):
        raise _damaged(f"{wanted.path} is not what was written")


def _adopt(source: Source, file: Path, copy: Copy, id: str) -> tuple[Totals, Outlook]:
    """Look through a namespace's copy and make it the file of the namespace `id`."""
    thorough = source.standing == "foreign"
    try:
        copying.inspect_foreign(file, copy.id, thorough=thorough)
        return copying.adopt(file, id, thorough=thorough)
    except Damaged as error:
        raise _damaged(f"a namespace in it is not sound: {error.message}") from error


def _damaged(why: str) -> Damaged:
    return Damaged(
        f"This backup cannot be restored: {why.rstrip('.')}. Nothing was changed; an older "
        "generation may be sound (`backups` lists them, --generation takes one)."
    )
