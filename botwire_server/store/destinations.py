"""Which places may hold backups: none that has to do with a data directory, and only marked ones.

A backup puts a marker into its place before anything else. A place without one is taken when it
holds nothing that looks like a backup, or a manifest of ours that can be read.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from botwire_server.errors import Damaged, Refusal, Unusable
from botwire_server.store import generations
from botwire_server.store.buckets import place_at
from botwire_server.store.generations import FORMAT, VERSION
from botwire_server.store.migrations import CONTROL
from botwire_server.store.places import MARKER, Directory, Missing, Place

_TENANT = re.compile("[0-9a-f]{16}")
_NAMESPACE = re.compile(r"[0-9a-z-]+-[0-9a-f]{15}\.db(\.new)?")
# How far below a place data directories are looked for, and among how many directories.
_DEPTH, _MOST_LOOKED_AT = 3, 2_000
_MARK = orjson.dumps({"format": FORMAT, "version": VERSION}) + b"\n"


def place_apart(text: str, data_dir: Path) -> Place:
    """Where `text` says that a backup lies. Raises `Unusable` where that is, holds or lies inside
    a data directory, this or another.
    """
    place = place_at(text)
    if isinstance(place, Directory):
        _require_apart(place.root, data_dir)
    return place


@contextmanager
def claimed(place: Place) -> Iterator[None]:
    """The right to write to a place, which is marked as ours. Raises `Unusable` if it is not."""
    _is_marked(place)  # before a lock is made there
    with place.locked():
        if not _is_marked(place):
            place.write(MARKER, _MARK)
        yield


def _is_marked(place: Place) -> bool:
    """Whether a place has our marker. Raises `Unusable` where it must not get one."""
    try:
        _check_mark(place, place.read(MARKER, most=4096))
    except Missing:
        known = generations.ids(place)
        looks_so = known or place.paths("control/") or place.paths("tenants/")
        if looks_so and not any(_is_readable(place, id) for id in known):
            raise _not_ours(
                place, "it holds files like a backup's and no manifest to go by"
            ) from None
        return False
    except Damaged as error:
        raise _not_ours(place, f"its {MARKER} is not one that we write") from error
    return True


def _check_mark(place: Place, mark: bytes) -> None:
    try:
        found = orjson.loads(mark)
        ours, version = found["format"] == FORMAT, found["version"]
    except (ValueError, KeyError, TypeError, IndexError):
        ours, version = False, None
    if not ours:
        raise _not_ours(place, f"its {MARKER} is not one that we write")
    if version != VERSION:
        raise Unusable(f"{place.shown} was made by another botwire-server: update this one.")


def _is_readable(place: Place, id: str) -> bool:
    try:
        generations.read(place, id)
    except Refusal:
        return False
    return True


def _not_ours(place: Place, why: str) -> Unusable:
    return Unusable(
        f"{place.shown} cannot be told to be a backup's: {why}. Nothing was written there; name "
        "another place, or move away what is there."
    )


def _require_apart(root: Path, data_dir: Path) -> None:
    place, own = root.resolve(), data_dir.resolve()
    if place == own or _same(place, own):
        raise _within(root, "is", data_dir)
    if place.is_relative_to(own):
        raise _within(root, "lies inside", data_dir)
    if own.is_relative_to(place):
        raise _within(root, "holds", data_dir)
    if is_data_directory(place):
        raise _within(root, "is", place)
    for above in place.parents:
        if _same(above, own) or is_data_directory(above):
            raise _within(root, "lies inside", above)
    for below in _below(place, _DEPTH):
        if _same(below, own) or is_data_directory(below):
            raise _within(root, "holds", below)


def _within(root: Path, how: str, data_dir: Path) -> Unusable:
    if how == "is":
        what = f"{root} is a data directory" + ("" if root == data_dir else f" ({data_dir})")
    else:
        what = f"{root} {how} a data directory ({data_dir})"
    return Unusable(
        f"{what}, and a backup lies apart from what is served: name another place. Nothing was "
        "read or written there."
    )


def is_data_directory(path: Path) -> bool:
    """Whether a server's data lies there, also where its registry is lost."""
    control = path / "control.db"
    try:
        with control.open("rb") as file:
            header = file.read(72)
    except FileNotFoundError:
        pass
    except NotADirectoryError:
        return False
    except OSError:  # it is there and not for us to read: in doubt it is one
        return os.path.lexists(control)
    else:
        if header[68:72] == struct.pack(">I", CONTROL.application_id):
            return True
        if (path / "lock").exists() and (path / "tenants").exists():
            return True
    return (path / ".restore" / "ready").exists() or any(
        _NAMESPACE.fullmatch(file.name)
        for tenant in _scanned(path / "tenants")
        if _TENANT.fullmatch(tenant.name)
        for file in _scanned(Path(tenant.path))
    )


def _below(path: Path, depth: int) -> Iterator[Path]:
    """The directories below a place, the nearest first, as far as it is worth looking."""
    level, looked_at = [path], 0
    for _ in range(depth):
        following: list[Path] = []
        for directory in level:
            for entry in _scanned(directory):
                # Not what a backup itself has: there are many of them.
                if not entry.is_dir(follow_symlinks=False) or _TENANT.fullmatch(entry.name):
                    continue
                looked_at += 1
                if looked_at > _MOST_LOOKED_AT:
                    return
                following.append(Path(entry.path))
                yield Path(entry.path)
        level = following


def _scanned(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:
        return []


def _same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one directory, through whatever mounts."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
