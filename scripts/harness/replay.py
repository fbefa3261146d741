"""What a power loss leaves of a directory: a trace of harness/disk.c, replayed up to a moment.

The model. What a finished fsync of a file covered is on the disk. Of what was written or cut off
since, anything may be there and anything may not: whole writes or single sectors of 512 or 4,096
bytes, in any order; where a write beyond the end is missing there are zeros, or the file is
shorter. A name (made, renamed, linked, removed) is on the disk once an fsync of its directory,
begun after, has finished. Of later names some prefix is there: of all of them in their order, as
a journalling file system does it, or of each directory for itself, which is less than any we
know promises. An fsync of a file promises nothing about its name.

After an fsync that failed the system takes for written what was not: what it was for may be
missing for good, unless it is written again, however many fsyncs succeed later.
"""

from __future__ import annotations

import os
import random
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

CREATE, WRITE, TRUNCATE, RENAME, LINK, UNLINK, MKDIR, RMDIR, SYNC, SYNCED, FAILED = range(1, 12)
NAMINGS = (CREATE, RENAME, LINK, UNLINK, MKDIR, RMDIR)
_HEADER = struct.Struct("<dqqII")
SECTORS = (512, 4_096)

LOSSES = ("none", "all", "some", "torn")


class Record(NamedTuple):
    """One change, or the begin or end of an fsync."""

    time: float
    node: int
    offset: int
    kind: int
    data: bytes


def read_trace(path: Path) -> list[Record]:
    """The records of a trace, in their order."""
    return _parsed(path.read_bytes())[0]


def _parsed(content: bytes) -> tuple[list[Record], int]:
    """The records, and where the last whole one ends."""
    found = []
    at = 0
    while at + _HEADER.size <= len(content):
        moment, node, offset, length, kind = _HEADER.unpack_from(content, at)
        end = at + _HEADER.size + length
        if end > len(content):
            break
        found.append(Record(moment, node, offset, kind, content[at + _HEADER.size : end]))
        at = end
    return found, at


def reconcile(trace: Path, root: Path) -> None:
    """Complete the trace of a process that was killed, before another goes on with it.

    The kill may have come when the last call was done and not yet written down, or half.
    """
    records, end = _parsed(trace.read_bytes())
    disk = Disk(str(root), root.stat().st_ino)
    for record in records:
        disk.apply(record)
    with trace.open("r+b") as file:
        file.truncate(end)
        file.seek(end)
        for kind, node, offset, data in disk.differences(root):
            file.write(_HEADER.pack(time.monotonic(), node, offset, len(data), kind) + data)


@dataclass
class _Change:
    number: int
    kind: int
    offset: int
    data: bytes
    given_up: bool = False


@dataclass
class _File:
    """What of a file is on the disk, and what may be."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[_Change] = field(default_factory=list)


@dataclass
class _Naming:
    number: int
    kind: int
    directory: str
    path: str
    to: str
    file: _File | None


@dataclass
class _Tree:
    """Names: of directories, and of files with what they hold."""

    directories: set[str]
    files: dict[str, _File]

    def apply(self, naming: _Naming) -> None:
        if naming.kind == MKDIR:
            self.directories.add(naming.path)
        elif naming.kind == RMDIR:
            self.directories.discard(naming.path)
        elif naming.kind == UNLINK:
            self.files.pop(naming.path, None)
        elif naming.kind == RENAME:
            file = self.files.pop(naming.path, None)
            if file is not None:
                self.files[naming.to] = file
        else:
            assert naming.file is not None
            self.files[naming.to or naming.path] = naming.file


class Disk:
    """A directory as a trace left it up to some record, with what would not survive.

    `root` is the DISK_ROOT of the trace, whose node number is `node`; it was empty. `chance`
    chooses what is missing after fsyncs that failed: nothing without it, as for who reads now.
    """

    def __init__(self, root: str, node: int, chance: random.Random | None = None) -> None:
        self._root = root
        self._chance = chance
        self._number = 0
        self._live = _Tree({root}, {})
        self._durable = _Tree({root}, {})
        self._namings: list[_Naming] = []
        self._nodes: dict[int, _File] = {}
        self._places: dict[int, str] = {node: root}
        self._syncs: dict[int, int] = {}

    def apply(self, record: Record) -> None:
        """Take the next record."""
        self._number += 1
        kind = record.kind
        if kind == SYNC:
            self._syncs[record.offset] = self._number
        elif kind == SYNCED:
            self._synced(record.node, self._syncs[record.offset])
        elif kind == FAILED:
            if record.node not in self._places:
                for change in self._nodes[record.node].pending:
                    change.given_up = True
        elif kind in (WRITE, TRUNCATE):
            change = _Change(self._number, kind, record.offset, record.data)
            self._nodes[record.node].pending.append(change)
        else:
            self._named(record)

    def _named(self, record: Record) -> None:
        path, _, to = record.data.decode().partition("\0")
        if record.kind == RENAME and path in self._live.directories:
            raise NotImplementedError("a directory is renamed")
        file = self._live.files.get(path)
        if record.kind == CREATE:
            file = self._nodes[record.node] = _File()
            self._places.pop(record.node, None)  # the number is used again
        elif record.kind == MKDIR:
            self._places[record.node] = path
        naming = _Naming(self._number, record.kind, os.path.dirname(to or path), path, to, file)
        self._live.apply(naming)
        self._namings.append(naming)

    def _synced(self, node: int, begun: int) -> None:
        directory = self._places.get(node)
        if directory in self._live.directories:
            later = []
            for naming in self._namings:
                if naming.directory == directory and naming.number < begun:
                    self._durable.apply(naming)
                else:
                    later.append(naming)
            self._namings = later
            return
        file = self._nodes[node]
        while file.pending and file.pending[0].number < begun:
            change = file.pending.pop(0)
            if not (change.given_up and self._chance and self._chance.random() < 0.5):
                _change(file.durable, change)

    def differences(self, root: Path) -> Iterator[tuple[int, int, int, bytes]]:
        """Kind, node, offset and data of records that lead to what is in `root`."""
        there = [path for path in sorted(root.rglob("*")) if not path.name.endswith("-shm")]
        for path in there:
            name = str(path).encode()
            node = path.stat().st_ino
            if path.is_dir():
                if str(path) not in self._live.directories:
                    yield MKDIR, node, 0, name
                continue
            known = self._live.files.get(str(path))
            if known is None:
                known = self._nodes.get(node)
                other = [at for at, file in self._live.files.items() if file is known]
                if other:
                    yield LINK, -1, 0, other[0].encode() + b"\0" + name
                else:
                    known = None
                    yield CREATE, node, 0, name
            content = path.read_bytes()
            traced = b"" if known is None else _surviving_content(known, "all", random.Random())
            for at, piece in _differing(traced, content):
                yield WRITE, node, at, piece
            if len(traced) > len(content):
                yield TRUNCATE, node, len(content), b""
        for gone in self._live.files.keys() - {str(path) for path in there}:
            yield UNLINK, -1, 0, gone.encode()
        for gone in self._live.directories - {str(path) for path in there} - {self._root}:
            yield RMDIR, -1, 0, gone.encode()

    def lose_power(self, directory: Path, chance: random.Random) -> str:
        """Write what a power loss leaves now into `directory`; how it was chosen."""
        names = _Tree(set(self._durable.directories), dict(self._durable.files))
        survived, order = self._surviving_names(chance)
        for naming in survived:
            names.apply(naming)
        overall = chance.choice((*LOSSES, "mixed"))
        contents: dict[int, bytes] = {}
        for path in sorted(names.directories, key=len):
            if self._reachable(path, names):
                (directory / os.path.relpath(path, self._root)).mkdir(exist_ok=True)
        for path, file in names.files.items():
            if not self._reachable(path, names):
                continue
            if id(file) not in contents:
                how = chance.choice(LOSSES) if overall == "mixed" else overall
                contents[id(file)] = _surviving_content(file, how, chance)
            (directory / os.path.relpath(path, self._root)).write_bytes(contents[id(file)])
        return f"names {order}, content {overall}"

    def _reachable(self, path: str, names: _Tree) -> bool:
        while path != self._root:
            path = os.path.dirname(path)
            if path not in names.directories:
                return False
        return True  # the root is above all that was traced

    def _surviving_names(self, chance: random.Random) -> tuple[list[_Naming], str]:
        pending = self._namings
        order = chance.choice(("none", "all", "journal", "by directory"))
        if order == "none":
            return [], order
        if order == "all":
            return list(pending), order
        if order == "journal":
            return pending[: chance.randint(0, len(pending))], order
        kept: dict[str, int] = {}
        for directory in {naming.directory for naming in pending}:
            count = sum(naming.directory == directory for naming in pending)
            kept[directory] = chance.randint(0, count)
        survived = []
        for naming in pending:
            if kept[naming.directory] > 0:
                kept[naming.directory] -= 1
                survived.append(naming)
        return survived, order


def _surviving_content(file: _File, how: str, chance: random.Random) -> bytes:
    if how == "none" or not file.pending:
        return bytes(file.durable)
    content = bytearray(file.durable)
    for change in file.pending:
        if how == "torn" and change.kind == WRITE:
            for piece in _sectors(change, chance.choice(SECTORS)):
                if chance.random() < 0.5:
                    _change(content, piece)
        elif how == "all" or chance.random() < 0.5:
            _change(content, change)
    return bytes(content)


def _differing(old: bytes, new: bytes) -> Iterator[tuple[int, bytes]]:
    """The sectors of `new` that are not so in `old`, with their offsets."""
    size = SECTORS[0]
    for at in range(0, len(new), size):
        if new[at : at + size] != old[at : at + size]:
            yield at, new[at : at + size]


def _sectors(change: _Change, size: int) -> Iterator[_Change]:
    """A write in the pieces that a disk writes at once."""
    at = 0
    while at < len(change.data):
        end = at + size - (change.offset + at) % size
        yield _Change(change.number, WRITE, change.offset + at, change.data[at:end])
        at = end


def _change(content: bytearray, change: _Change) -> None:
    if change.kind == TRUNCATE:
        if change.offset < len(content):
            del content[change.offset :]
        else:
            content.extend(bytes(change.offset - len(content)))
        return
    if change.offset > len(content):
        content.extend(bytes(change.offset - len(content)))
    content[change.offset : change.offset + len(change.data)] = change.data
