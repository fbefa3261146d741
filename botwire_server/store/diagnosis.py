"""What of this machine and a data directory decides whether a server runs well there.

It looks and changes nothing: no directory is made, no schema is moved on. `survey` is for what is
stored; this is for what it is stored with and where.
"""

from __future__ import annotations

import os
import shutil
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

from botwire_server.errors import Unusable
from botwire_server.lazy import fcntl, resource
from botwire_server.logs import timestamp
from botwire_server.store import driver, installation, premises, provenance, swap
from botwire_server.store.driver import SHARED_WAL, sqlite3
from botwire_server.store.migrations import CONTROL, NAMESPACE, Schema
from botwire_server.store.pool import capacity, raise_descriptor_limit

Level = Literal["ok", "warning", "failure"]

FEW_FILES = 64
LITTLE_BYTES, TOO_LITTLE_BYTES = 1_000_000_000, 50_000_000
FEW_INODES = 10_000
# Before this was written, no clock was right.
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
# How far behind the newest thing stored a clock may be.
CLOCK_SLACK = 60.0

_NETWORK = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre"),
    *("fuse.sshfs", "fuse.s3fs", "fuse.glusterfs", "fuse.rclone", "fuse.gcsfuse", "virtiofs"),
}
_FLEETING = {"tmpfs", "ramfs", "overlay"}


class Finding(NamedTuple):
    """What was looked at, what there is, and what to do about it where it is not well."""

    level: Level
    what: str
    says: str
    remedy: str | None = None


def of_machine() -> Iterator[Finding]:
    """Python, the driver, SQLite, sqlite-vec, FTS5, the limit of open files."""
    yield Finding("ok", "python", f"{sys.version.split()[0]} at {sys.executable}")
    try:
        driver.require_driver()
    except Unusable as error:
        yield Finding(
            "failure",
            "driver",
            f"{sqlite3.__name__}, SQLite {sqlite3.sqlite_version}",
            error.message,
        )
    else:
        yield from _drivers()
    before, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_descriptor_limit()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    says = f"{soft} ({before} given, {hard} at most): {capacity()} namespaces open at once"
    if capacity() < FEW_FILES:
        yield Finding(
            "warning", "open files", says, "Raise the limit: LimitNOFILE= in a unit, ulimit -n."
        )
    else:
        yield Finding("ok", "open files", says)


def _drivers() -> Iterator[Finding]:
    with closing(driver.connect(":memory:")) as connection:
        sqlite, vec = connection.execute("SELECT sqlite_version(), vec_version()").fetchone()
        says = f"{sqlite3.__name__.partition('.')[0]}, SQLite {sqlite}"
        if SHARED_WAL:
            yield Finding("ok", "driver", says)
        else:
            yield Finding(
                "warning",
                "driver",
                f"{says}: before 3.51.3 two processes that write one file can corrupt it, so the "
                "registry has a slower journal",
                "Run `pip install pysqlite3`, or take a newer Python image.",
            )
        if sqlite3.sqlite_version_info < provenance.SOUND_WITH_FOREIGN_FILES:
            needed = ".".join(map(str, provenance.SOUND_WITH_FOREIGN_FILES))
            yield Finding(
                "warning",
                "backups",
                f"SQLite {sqlite} restores those of this installation; others' need {needed}",
                "Run `pip install pysqlite3`.",
            )
        else:
            yield Finding("ok", "backups", "also those of other installations can be restored")
        yield Finding("ok", "sqlite-vec", str(vec))
        try:
            connection.execute("CREATE VIRTUAL TABLE temp.words USING fts5 (text)")
            connection.execute("INSERT INTO words (words, rank) VALUES ('secure-delete', 1)")
        except sqlite3.Error as error:
            yield Finding(
                "failure",
                "fts5",
                f"it does not erase for good: {driver.error_name(error)}",
                "Take a SQLite with FTS5, 3.43 or newer: `pip install pysqlite3`.",
            )
        else:
            yield Finding("ok", "fts5", "erases for good")


def of_directory(data_dir: Path) -> Iterator[Finding]:
    """The disk, the rights, the file system, the clock, the lock, the schemas."""
    there = data_dir
    while not there.exists() and there != there.parent:
        there = there.parent
    yield from _rights(data_dir, there)
    yield from _restores(data_dir)
    yield _file_system(there)
    yield from _room(there)
    yield _lock(data_dir)
    yield _clock(data_dir)
    yield from _installation(data_dir)
    yield from _schemas(data_dir)


def _rights(data_dir: Path, there: Path) -> Iterator[Finding]:
    if there != data_dir:
        if os.access(there, os.W_OK | os.X_OK) and there.is_dir():
            yield Finding("ok", "data directory", f"{data_dir} is made at the first start")
        else:
            yield Finding(
                "failure",
                "data directory",
                f"{data_dir} is not there and cannot be made in {there}",
                "Name another --data-dir, or make it for the server's user.",
            )
        return
    if not data_dir.is_dir():
        yield Finding(
            "failure", "data directory", f"{data_dir} is no directory", "Name another --data-dir."
        )
        return
    found = list(premises.concerns(data_dir))
    for concern in found:
        level: Level = "failure" if concern.fatal else "warning"
        yield Finding(level, "data directory", f"{data_dir}: {concern.says}", concern.remedy)
    if not found:
        yield Finding("ok", "data directory", str(data_dir))


def _restores(data_dir: Path) -> Iterator[Finding]:
    """What a restore has begun or left."""
    place = data_dir / swap.PLACE
    if swap.is_due(data_dir):
        obstacle = swap.obstacle(data_dir)
        if obstacle is None:
            yield Finding(
                "warning",
                "restore",
                f"one was decided and not finished: {place}",
                "Start the server, or run any command: it is finished then. Remove nothing.",
            )
        else:
            yield Finding(
                "warning",
                "restore",
                f"one was decided and cannot be finished: {obstacle}",
                "The next start puts back what was there before. To restore, unmount or move that, "
                f"or {swap.ELSEWHERE}.",
            )
    elif place.exists():
        yield Finding(
            "warning",
            "restore",
            f"one was cut short before anything was replaced: {place}",
            "The next start removes it. Restore again.",
        )
    for path in swap.replaced(data_dir):
        yield Finding(
            "warning",
            "restore",
            f"{path} holds what one has replaced, and could not be removed",
            f"Remove it, as root if need be: rm -r {path} (lsattr shows what is immutable).",
        )


def _file_system(there: Path) -> Finding:
    kind = _kind_of(there)
    if kind in _NETWORK:
        return Finding(
            "warning",
            "file system",
            f"{kind}, a network file system: SQLite's locks do not hold on all of them",
            "Put the data directory on a local disk.",
        )
    if kind in _FLEETING:
        return Finding(
            "warning",
            "file system",
            f"{kind}: what is stored is gone with the machine or the container",
            "Put the data directory on a disk or a volume.",
        )
    return Finding("ok", "file system", kind)


def _kind_of(there: Path) -> str:
    """The file system's name, as Linux tells it."""
    best, kind = "", "unknown"
    try:
        mounts = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return kind
    for line in mounts:
        _, at, name, *_ = line.split(" ")
        at = at.replace("\\040", " ")
        if len(at) >= len(best) and there.resolve().is_relative_to(at):
            best, kind = at, name
    return kind


def _room(there: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(there).free
    says = f"{free / 1e9:.1f} GB free"
    if free < TOO_LITTLE_BYTES:
        yield Finding("failure", "disk", says, "Make room: writes are about to be refused.")
    elif free < LITTLE_BYTES:
        yield Finding("warning", "disk", says, "Make room, or `botwire-server compact`.")
    else:
        yield Finding("ok", "disk", says)
    inodes = os.statvfs(there)
    if inodes.f_files and inodes.f_favail < FEW_INODES:
        yield Finding(
            "warning",
            "inodes",
            f"{inodes.f_favail} free; an open namespace has three files",
            "Remove small files, or take a file system with more inodes.",
        )


def _lock(data_dir: Path) -> Finding:
    try:
        descriptor = os.open(data_dir / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return Finding("ok", "server", "none runs here")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return Finding("ok", "server", f"one runs here{_holder(os.fstat(descriptor))}")
    finally:
        os.close(descriptor)
    return Finding("ok", "server", "none runs here")


def _holder(lock: os.stat_result) -> str:
    """Which process holds a lock, as Linux tells it."""
    end = f":{lock.st_ino}"
    try:
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].endswith(end):
                return f": process {fields[4]}"
    except (OSError, IndexError):
        pass
    return ""


def _clock(data_dir: Path) -> Finding:
    now = time.time()
    says = timestamp(now)
    if now < EARLIEST:
        return Finding("failure", "clock", f"{says} cannot be right", "Set the clock: NTP.")
    newest = max(
        (
            path.stat().st_mtime
            for path in (data_dir / "control.db", *data_dir.glob("tenants/*/*.db"))
            if path.exists()
        ),
        default=0.0,
    )
    if newest > now + CLOCK_SLACK:
        return Finding(
            "warning",
            "clock",
            f"{says}, and something here was written at {timestamp(newest)}",
            "Set the clock: NTP. Until it catches up, what should expire lives longer.",
        )
    return Finding("ok", "clock", says)


def _installation(data_dir: Path) -> Iterator[Finding]:
    control = data_dir / "control.db"
    if not control.exists():
        return
    try:
        with closing(driver.connect(control)) as connection:
            connection.execute("PRAGMA query_only = ON")
            id, noted = installation.of(connection), installation.noted_place(connection)
    except sqlite3.Error:
        return  # what is wrong with the registry is told of it
    if id is None:
        yield Finding("ok", "installation", "it gets an id at the next start")
    elif noted is not None and installation.is_another(noted, installation.place_of(data_dir)):
        yield Finding(
            "warning", "installation", f"{id}: {installation.COPIED}", installation.REMEDY
        )
    else:
        yield Finding("ok", "installation", id)


def _schemas(data_dir: Path) -> Iterator[Finding]:
    control = data_dir / "control.db"
    files = list(data_dir.glob("tenants/*/*.db"))
    if not control.exists() and not files:
        return
    for what, schema, paths in (
        ("registry", CONTROL, [control]),
        ("namespaces", NAMESPACE, files),
    ):
        found = Counter(_version_of(path, schema) for path in paths)
        if found:
            yield _schema(what, schema, found)


def _schema(what: str, schema: Schema, found: Counter[int | None]) -> Finding:
    newest = len(schema.steps)
    says = ", ".join(
        f"{count} unreadable" if version is None else f"{count} at version {version}"
        for version, count in sorted(found.items(), key=lambda each: each[0] or 0)
    )
    if None in found:
        return Finding("failure", what, says, "Run `botwire-server check`: it names them.")
    if any(version is not None and version > newest for version in found):
        return Finding(
            "failure",
            what,
            f"{says}; this botwire-server knows {newest}",
            "They were written by a newer botwire-server: update this one.",
        )
    older = any(version != newest for version in found)
    return Finding("ok", what, says + ("; older ones are brought up to date" if older else ""))


def _version_of(path: Path, schema: Schema) -> int | None:
    """How many steps a file has taken, by its header; None if it is no file of this kind."""
    try:
        with path.open("rb") as file:
            header = file.read(100)
        [version] = struct.unpack(">I", header[60:64])
        [kind] = struct.unpack(">I", header[68:72])
    except (OSError, struct.error):
        return None
    return int(version) if kind == schema.application_id and version else None
