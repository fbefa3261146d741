"""What a backup says of itself: one manifest for each generation, written last.

A manifest may come from anybody and holds no names: tenants and namespaces by their ids, objects by
path, size and SHA-256, the installation by its id. It is sealed with a checksum of its own, which
says that it is whole and not whose it is.
"""

from __future__ import annotations

import calendar
import hashlib
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import orjson

from botwire_server.errors import Damaged, Invalid, NotFound
from botwire_server.store.moments import is_count, is_moment
from botwire_server.store.places import GENERATION, Place, is_ours
from botwire_server.store.registry import is_id

FORMAT = "botwire-server backup"
VERSION = 1

# So many bytes a manifest has at most: some 300,000 namespaces.
LARGEST = 128 * 1024 * 1024

_ID = re.compile(GENERATION)
_HEX_16 = re.compile("[0-9a-f]{16}")
# What a manifest that we wrote stays below. One of mere brackets and commas would take a hundred
# times its size in memory.
_BYTES_PER_CONTAINER, _BYTES_PER_COMMA, _SLACK = 96, 12, 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Object:
    """A file in a backup."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Copy:
    """A namespace in a generation.

    `object` is None for one that was never written to, and for one that was damaged when no
    earlier copy was there. `problem` says why the copy is not of this generation's time.
    """

    id: str
    tenant_id: str
    object: Object | None
    version: str
    copied_at: float
    problem: str | None = None


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One backup of everything, or of one tenant.

    `installation` is the id of the data directory it is of; None where it was made before there
    were ids.
    """

    id: str
    installation: str | None
    tenant_id: str | None
    began_at: float
    control: Object
    namespaces: tuple[Copy, ...] = field(default=())

    @property
    def path(self) -> str:
        """Where its manifest lies."""
        return f"generations/{self.id}.json"

    @property
    def paths(self) -> set[str]:
        """Every object it needs."""
        objects = {each.object.path for each in self.namespaces if each.object is not None}
        return objects | {self.control.path}

    @property
    def bytes(self) -> int:
        """The size of all its objects."""
        sizes = (each.object.bytes for each in self.namespaces if each.object is not None)
        return self.control.bytes + sum(sizes)


def new_id(after: Iterable[str]) -> str:
    """An id for a generation, which sorts after all that are there."""
    latest = max(after, default="")
    now = time.time()
    while True:
        moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        if moment > latest[: len(moment)]:
            return f"{moment}-{secrets.token_hex(2)}"
        now = max(now + 0.001, _time_of(latest) + 0.001)


def _time_of(id: str) -> float:
    return calendar.timegm(time.strptime(id[:15], "%Y%m%dT%H%M%S")) + int(id[16:19]) / 1000


def write(place: Place, generation: Generation) -> None:
    """Put a generation in place: from here on it is there."""
    manifest = orjson.dumps({"format": FORMAT, "version": VERSION, **asdict(generation)})
    if len(manifest) > LARGEST:
        raise Invalid("These are too many namespaces for one backup: back up tenants alone.")
    seal = hashlib.sha256(manifest).hexdigest().encode()
    place.write(generation.path, manifest + b"\n" + seal + b"\n")


def ids(place: Place) -> list[str]:
    """The ids of all generations, newest first."""
    names = (path.removeprefix("generations/") for path in place.paths("generations/"))
    found = (name.removesuffix(".json") for name in names if name.endswith(".json"))
    return sorted((id for id in found if _ID.fullmatch(id)), reverse=True)


def read(place: Place, id: str) -> Generation:
    """A generation by id. Raises `NotFound` or `Damaged`."""
    if not _ID.fullmatch(id):
        raise NotFound("There is no such generation in this backup; `backups` lists them.")
    try:
        content = place.read(f"generations/{id}.json", most=LARGEST + 1024)
    except Damaged as error:
        raise _damaged(id) from error
    manifest, _, seal = content.rstrip(b"\n").rpartition(b"\n")
    if hashlib.sha256(manifest).hexdigest().encode() != seal:
        raise _damaged(id)
    try:
        _require(_is_plain(manifest))
        found = _parse(orjson.loads(manifest))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(id) from error
    if found.id != id:
        raise _damaged(id)
    return found


def _is_plain(manifest: bytes) -> bool:
    containers = manifest.count(b"{") + manifest.count(b"[")
    return (
        containers <= _SLACK + len(manifest) // _BYTES_PER_CONTAINER
        and manifest.count(b",") <= _SLACK + len(manifest) // _BYTES_PER_COMMA
    )


def _parse(manifest: Any) -> Generation:
    if manifest["format"] != FORMAT:
        raise ValueError("format")
    if manifest["version"] != VERSION:
        raise Invalid("This backup was written by another botwire-server: update this one.")
    namespaces = tuple(map(_copy, manifest["namespaces"]))
    tenant_id = manifest["tenant_id"]
    installation = manifest.get("installation")
    _require(
        is_moment(manifest["began_at"])
        and isinstance(manifest["id"], str)
        and (tenant_id is None or _is_hex_16(tenant_id))
        and (installation is None or _is_hex_16(installation))
        and len({each.id for each in namespaces}) == len(namespaces)
        and all(tenant_id in (None, each.tenant_id) for each in namespaces)
    )
    folder = "control" if tenant_id is None else f"tenants/{tenant_id}"
    return Generation(
        id=manifest["id"],
        installation=installation,
        tenant_id=tenant_id,
        began_at=manifest["began_at"],
        control=_object(manifest["control"], f"{folder}/control-"),
        namespaces=namespaces,
    )


def _copy(value: Any) -> Copy:
    found = Copy(**{**value, "object": None})
    _require(
        isinstance(found.id, str)
        and is_id(found.id)
        and _is_hex_16(found.tenant_id)
        and isinstance(found.version, str)
        and is_moment(found.copied_at)
        and (found.problem is None or isinstance(found.problem, str))
    )
    if value["object"] is None:
        return found
    return replace(found, object=_object(value["object"], f"tenants/{found.tenant_id}/{found.id}-"))


def _object(value: Any, begins: str) -> Object:
    """An object, which lies where only its own tenant's and namespace's do."""
    found = Object(**value)
    _require(isinstance(found.path, str) and isinstance(found.sha256, str))
    _require(is_count(found.bytes))
    _require(is_ours(found.path) and found.path.startswith(begins))
    return found


def _is_hex_16(value: Any) -> bool:
    return isinstance(value, str) and _HEX_16.fullmatch(value) is not None


def _require(holds: bool) -> None:
    if not holds:
        raise ValueError("a field of the manifest")


def _damaged(id: str) -> Damaged:
    return Damaged(
        f"The manifest of generation {id} is damaged; take another with --generation "
        "(`backups` lists them)."
    )
