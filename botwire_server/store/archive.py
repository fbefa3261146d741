"""A tenant as one file: what was stored, as JSON Lines in a ZIP, with a manifest that proves it.

    manifest.json                     version, counts and SHA-256 of every other member
    namespaces/0/entries.jsonl        one record a line
    namespaces/0/memories.jsonl       ...

The ZIP's comment, its last bytes, is the SHA-256 of all before it.

Written and read as a stream, with little memory, whether a server runs or not: each namespace is
one snapshot. An archive is checked to its last byte before anything of it is taken in, and a
tenant appears whole or not at all. Counters of the day and keys are not part of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol

import orjson

from botwire_server import limits
from botwire_server.errors import Invalid, Unavailable
from botwire_server.logs import timestamp
from botwire_server.store import bounded, driver, entries, episodes, memories, space, states
from botwire_server.store.archived import check_record
from botwire_server.store.driver import Connection, sqlite3
from botwire_server.store.files import located
from botwire_server.store.manifest import FORMAT, VERSION, check_manifest, damaged
from botwire_server.store.migrations import (
    NAMESPACE,
    migrate,
    sync_directory,
    template,
    write_new,
)
from botwire_server.store.namespace import Outlook, Totals, count
from botwire_server.store.pool import DRAFT
from botwire_server.store.registry import file_of
from botwire_server.store.rows import NamespaceRow, TenantRow

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 64 * 1024 * 1024
SEAL = 64  # hexadecimal digits
# A record holds a value and little else, or a memory with its history and its vectors.
LONGEST_LINE = limits.VALUE + 1_048_576
# What an archive may become, as often as its own size; a small one may become so much anyway.
MOST_EXPANSION = 200
SMALL = 64 * 1024 * 1024
PROGRESS_EVERY = 1_000

Record = dict[str, Any]
Progress = Callable[[int, int], None]


class Kind(Protocol):
    """A module that can write down its records and take them in again."""

    def dump(self, connection: Connection) -> Iterator[Record]: ...
    def load(self, connection: Connection, records: Iterable[Record]) -> None: ...


KINDS: dict[str, Kind] = {
    "entries": entries,
    "states": states,
    "memories": memories,
    "episodes": episodes,
}


class Built(NamedTuple):
    """A namespace that was built from an archive; `file` is relative to the data directory."""

    id: str
    name: str
    file: str
    created_at: float
    totals: Totals
    outlook: Outlook


def write(
    file: Path,
    data_dir: Path,
    tenant: TenantRow,
    namespaces: Sequence[tuple[NamespaceRow, float, Totals]],
    progress: Progress,
) -> Record:
    """Write a tenant to `file`, which must not exist yet; the manifest."""
    if file.exists():
        raise Invalid("The file exists already; name another.", where=("file",))
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    expected = sum(sum(held[:4]) for _, _, held in namespaces)
    done = 0

    def counted(records: Iterable[Record]) -> Iterator[Record]:
        nonlocal done
        for record in records:
            yield record
            done += 1
            if done % PROGRESS_EVERY == 0:
                progress(done, max(done, expected))

    try:
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with (
            open(descriptor, "w+b") as out,
            zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive,
        ):
            manifest: Record = {
                "format": FORMAT,
                "version": VERSION,
                "tenant": tenant.name,
                "tier": tenant.tier,
                "exported_at": timestamp(time.time()),
                "namespaces": [],
            }
            for number, (row, created_at, _) in enumerate(namespaces):
                manifest["namespaces"].append(
                    {
                        "name": row.name,
                        "id": row.id,
                        "created_at": created_at,
                        "members": _write_namespace(
                            archive, f"namespaces/{number}", located(data_dir, row), counted
                        ),
                    }
                )
            archive.writestr(MANIFEST, orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
            archive.comment = b"0" * SEAL
            archive.close()
            seal = _digest(out)
            out.seek(-SEAL, os.SEEK_END)
            out.write(seal)
            out.flush()
            os.fsync(out.fileno())
        _name(draft, file)
        sync_directory(file.absolute().parent)
    except OSError as error:
        if str(error.filename) == str(draft):  # what was asked for is what must be told of
            error.filename = str(file)
        raise
    finally:
        draft.unlink(missing_ok=True)
    progress(done, done)
    return manifest


def _name(draft: Path, file: Path) -> None:
    """Give a draft its name, replacing nothing."""
    try:
        os.link(draft, file)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if file.exists():
            raise
        draft.rename(file)


def check(file: Path, progress: Progress, *, any_size: bool = False) -> Record:
    """Read an archive to its last byte; its manifest. Raises `Invalid` if anything is amiss.

    `any_size` takes also what becomes hundreds of times as large as it is.
    """
    if not file.is_file():
        raise Invalid(f"{file} is no file: name an archive that `tenants export` wrote.")
    with file.open("rb") as sealed:
        if not hmac.compare_digest(_digest(sealed), sealed.read(SEAL)):
            raise damaged("its bytes are not those that were written")
    with _reading(file) as (archive, manifest):
        members = [
            member for namespace in manifest["namespaces"] for member in namespace["members"]
        ]
        listed = [MANIFEST, *(member["path"] for member in members)]
        if sorted(listed) != sorted(archive.namelist()):
            raise damaged("its members are not those of its manifest")
        becomes = _expanded(archive)
        if not any_size and becomes > max(SMALL, MOST_EXPANSION * file.stat().st_size):
            raise Invalid(
                f"{file} has {file.stat().st_size / 1e6:,.1f} MB and would become "
                f"{becomes / 1e6:,.1f} MB. Nothing of it was taken in: if it is your own, give "
                "--any-size."
            )
        expected = sum(member["records"] for member in members)
        done = 0
        for member in members:
            digest = hashlib.sha256()
            records = 0
            with archive.open(member["path"]) as lines:
                for line in _lines(lines):
                    digest.update(line)
                    check_record(member["kind"], bounded.loads(line))
                    records += 1
                    done += 1
                    if done % PROGRESS_EVERY == 0:
                        progress(done, expected)
            if digest.hexdigest() != member["sha256"] or records != member["records"]:
                raise damaged("a member is not what its manifest says")
        progress(done, done)
        return manifest


def build(
    file: Path,
    data_dir: Path,
    staging: Path,
    tenant_id: str,
    *,
    new_id: Callable[[str], str],
    progress: Progress,
) -> Iterator[Built]:
    """Build the namespaces of a checked archive for a tenant that does not exist yet.

    `new_id` says which id a namespace gets for the one it had. They are built in `staging`, and
    in place when the last was yielded; the registry does not know them yet.
    """
    fresh = template(NAMESPACE, staging)
    done = 0
    with _reading(file) as (archive, manifest):
        # Rows, and the indexes over them; and each namespace is a file.
        needed = 2 * _expanded(archive) + len(fresh) * len(manifest["namespaces"])
    space.require(staging, needed, what="This import")
    with _reading(file) as (archive, manifest):
        expected = sum(
            member["records"]
            for namespace in manifest["namespaces"]
            for member in namespace["members"]
        )
        for namespace in manifest["namespaces"]:
            id = new_id(namespace["id"])
            relative = file_of(tenant_id, namespace["name"], id)
            totals, outlook = _build_file(
                staging / Path(relative).name, fresh, archive, namespace["members"]
            )
            done += sum(member["records"] for member in namespace["members"])
            progress(done, expected)
            yield Built(id, namespace["name"], relative, namespace["created_at"], totals, outlook)
    sync_directory(staging)
    tenants = data_dir / "tenants"
    tenants.mkdir(exist_ok=True, mode=0o700)
    os.rename(staging, tenants / tenant_id)
    sync_directory(tenants)
    sync_directory(data_dir)


def _write_namespace(
    archive: zipfile.ZipFile,
    folder: str,
    path: Path,
    counted: Callable[[Iterable[Record]], Iterator[Record]],
) -> list[Record]:
    members = []
    with _snapshot(path) as connection:
        if connection is None:
            return []
        for kind, module in KINDS.items():
            digest = hashlib.sha256()
            records = 0
            name = f"{folder}/{kind}.jsonl"
            with archive.open(name, "w", force_zip64=True) as out:
                for record in counted(module.dump(connection)):
                    line = orjson.dumps(record) + b"\n"
                    digest.update(line)
                    out.write(line)
                    records += 1
            members.append(
                {"kind": kind, "path": name, "records": records, "sha256": digest.hexdigest()}
            )
    return members


@contextlib.contextmanager
def _snapshot(path: Path) -> Iterator[Connection | None]:
    """A namespace's file as it is now; None for one that was made and never written to."""
    if not path.exists():
        if not path.with_name(path.name + DRAFT).exists():
            raise Unavailable(
                "A namespace's file is missing: if it was purged just now, export again; else the "
                "file must be restored from a backup."
            )
        yield None
        return
    try:
        connection = driver.connect(path)
    except sqlite3.Error as error:
        raise driver.refusal(error) from error
    try:
        migrate(connection, NAMESPACE)
        connection.execute("PRAGMA query_only = ON")
        connection.execute("BEGIN")
        yield connection
    except sqlite3.Error as error:
        raise driver.refusal(error) from error
    finally:
        connection.close()


def _build_file(
    path: Path, fresh: bytes, archive: zipfile.ZipFile, members: list[Record]
) -> tuple[Totals, Outlook]:
    write_new(path, fresh)
    connection = driver.connect(path)
    try:
        connection.execute("BEGIN IMMEDIATE")
        for member in members:
            with archive.open(member["path"]) as lines:
                KINDS[member["kind"]].load(connection, map(bounded.loads, _lines(lines)))
        counted = count(connection)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
    return counted


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[tuple[zipfile.ZipFile, Record]]:
    try:
        with zipfile.ZipFile(file) as archive:
            if any(each.compress_type != zipfile.ZIP_DEFLATED for each in archive.infolist()):
                raise damaged("its members are not compressed as they were written")
            if archive.getinfo(MANIFEST).file_size > LARGEST_MANIFEST:
                raise damaged("its manifest is too large")
            yield archive, check_manifest(bounded.loads(archive.read(MANIFEST)), kinds=KINDS)
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, KeyError, TypeError, ValueError),
        *(NotImplementedError, RuntimeError),  # encrypted, or patched: ours never are
    ) as error:
        raise damaged("it cannot be read") from error
    except sqlite3.Error as error:
        raise damaged("a record does not fit") from error


def _expanded(archive: zipfile.ZipFile) -> int:
    """How many bytes its members say that they become; more is never read of one."""
    return sum(each.file_size for each in archive.infolist())


def _digest(file: IO[bytes]) -> bytes:
    """The SHA-256, as text, of a file up to its seal, which is read next."""
    file.flush()
    left = max(0, file.seek(0, os.SEEK_END) - SEAL)
    file.seek(0)
    digest = hashlib.sha256()
    while left and (part := file.read(min(left, 1 << 20))):
        digest.update(part)
        left -= len(part)
    return digest.hexdigest().encode()


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    while line := stream.readline(LONGEST_LINE):
        yield line
