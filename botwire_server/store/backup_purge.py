"""Removing a tenant from a backup: from every generation, with its names, keys and texts.

The manifests and the registry's copies are rewritten without it, one generation after the other,
then its objects go. Cut short, it can be repeated.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from botwire_server.errors import Damaged, Unavailable
from botwire_server.store import backup, control_copies, copying, generations
from botwire_server.store.generations import Generation
from botwire_server.store.places import Missing, Place


def purge(place: Place, data_dir: Path, tenant_id: str) -> dict[str, Any]:
    """Remove a tenant from a backup; what was removed.

    Raises `Unavailable` where a generation could not be read and so may still hold it.
    """
    place.require()
    unreadable = []
    known: list[Generation] = []
    removed: set[str] = set()
    rewritten = 0
    with place.locked(), place.scratch(data_dir) as scratch:
        for id in generations.ids(place):
            try:
                generation = generations.read(place, id)
                if generation.tenant_id == tenant_id:
                    removed |= {generation.path}
                    rewritten += 1
                    continue
                without = _without(place, scratch, generation, tenant_id)
            except (Damaged, Missing):
                unreadable.append(id)
                continue
            if without is not generation:
                removed |= {generation.control.path}
                rewritten += 1
            known.append(without)
        objects = place.paths(f"tenants/{tenant_id}/")
        place.remove([*sorted(removed), *objects])
        if not unreadable:
            backup.prune(place, known)
    if unreadable:
        raise Unavailable(
            f"The tenant may still be in generation {', '.join(unreadable)}, which cannot be read: "
            "remove its file in generations/, then do this again."
        )
    return {"backup": place.shown, "generations": rewritten, "objects": len(objects)}


def _without(place: Place, scratch: Path, generation: Generation, tenant_id: str) -> Generation:
    """The generation without the tenant, in place; itself where the tenant is not in it."""
    file = scratch / f"control-{generation.id}.db"
    place.fetch(generation.control.path, file, size=generation.control.bytes)
    if copying.digest(file).sha256 != generation.control.sha256:
        raise Damaged("The registry's copy is not what was written.")
    copying.inspect_control(file)
    found = control_copies.drop_tenant(file, tenant_id)
    left = tuple(each for each in generation.namespaces if each.tenant_id != tenant_id)
    if not found and len(left) == len(generation.namespaces):
        return generation
    without = replace(
        generation,
        namespaces=left,
        control=backup.put_control(
            place, file, tenant_id=generation.tenant_id, generation=generation.id
        ),
    )
    place.settle()
    generations.write(place, without)
    return without
