"""A whole data directory looked over: the registry, every file, and the one against the other.

Beside a running server as well as without one: each file is one moment of it, the registry is
read before the file, and whatever looks wrong is looked at once more with what the registry says
by then. It repairs nothing, and writes nothing but private copies that are gone afterwards.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from botwire_server.errors import Damaged, NotFound, Refusal, Unusable
from botwire_server.store import checking, driver, schemas
from botwire_server.store.driver import Connection, sqlite3
from botwire_server.store.files import located
from botwire_server.store.migrations import CONTROL, NAMESPACE, migrate
from botwire_server.store.namespace import Totals
from botwire_server.store.pool import DRAFT
from botwire_server.store.rows import NamespaceRow
from botwire_server.store.snapshots import snapshot
from botwire_server.store.staging import MARK, staging

# damaged: something is lost or wrong. unchecked: it could not be looked at. notice: nothing is
# lost, and the operator should know.
Level = Literal["damaged", "unchecked", "notice"]
Progress = Callable[[int, int], None]

# What a server makes, names or removes just now has settled by then.
SECOND_LOOK = 1.5

REGISTRY = "control.db"

_RESTORE = "Restore it from a backup."
_REBUILD = (
    "Restore it from a backup; without one, `tenants export` and `tenants import` build its tenant "
    "anew from what can still be read."
)
_ACCEPT = "Restore it from a backup, or go on with what is there: `namespaces accept TENANT NAME`."
_NO_ROOM = "Make room on the disk, or let this user read the file; then check again."


class Finding(NamedTuple):
    """Something that is not as it should be. `file` is relative to the data directory."""

    level: Level
    tenant: str | None
    namespace: str | None
    file: str
    problem: str
    remedy: str


class _Row(NamedTuple):
    id: str
    tenant_id: str
    tenant: str
    name: str
    file: str
    revision: int | None
    held: Totals


class _Problem(NamedTuple):
    level: Level
    what: str
    remedy: str


_MISPLACED = _Problem(
    "damaged",
    "the registry has it under a tenant or file that cannot be its own",
    "Restore control.db from a backup.",
)

_SELECT = f"""SELECT n.id, n.tenant_id, coalesce(t.name, n.tenant_id), n.name, n.file, n.revision,
    {", ".join(f"n.{name}" for name in Totals._fields)}
    FROM namespaces AS n LEFT JOIN tenants AS t ON t.id = n.tenant_id"""  # noqa: S608


def survey(data_dir: Path, *, tenant: str | None, progress: Progress) -> Iterator[Finding]:
    """Everything that is wrong in a data directory, or with one tenant in it.

    Raises `Unusable` where there is no data directory, `NotFound` where there is no such tenant.
    """
    if not data_dir.is_dir():
        raise Unusable(f"There is no data directory {data_dir}: name it with --data-dir.")
    with ExitStack() as stack:
        try:
            copies = stack.enter_context(staging(data_dir, "check"))
        except OSError as error:
            raise Unusable(
                f"Nothing can be written in {data_dir} ({os.strerror(error.errno or 0)}), and a "
                "check needs room for a copy of the largest file: run it as the server's user, "
                "with room on the disk."
            ) from error
        control = None
        try:
            control = stack.enter_context(_control(data_dir, copies))
        except FileNotFoundError:
            if any(data_dir.glob("tenants/*/*")):
                yield _of_registry(_Problem("damaged", "the registry is missing", _RESTORE))
        except Refusal as error:
            yield _of_registry(_Problem("damaged", error.message, _RESTORE))
        except (sqlite3.Error, OSError) as error:
            yield _of_registry(_unreadable(error))
        if control is not None:
            damage = list(checking.structure(control))
            yield from (_of_registry(_Problem("damaged", it, _RESTORE)) for it in damage)
            if damage:
                control = None
        if control is None:
            yield from _files_alone(data_dir, copies, progress)
            return
        yield from _Survey(data_dir, copies, control, tenant).findings(progress)


class _Survey:
    """One pass over a data directory whose registry can be read."""

    def __init__(
        self, data_dir: Path, copies: Path, control: Connection, tenant: str | None
    ) -> None:
        self._data_dir = data_dir
        self._copies = copies
        self._control = control
        self._tenant_id: str | None = None
        if tenant is not None:
            row = control.execute("SELECT id FROM tenants WHERE name = ?", (tenant,)).fetchone()
            if row is None:
                raise NotFound("There is no such tenant; `tenants list` names them.")
            [self._tenant_id] = row

    def findings(self, progress: Progress) -> Iterator[Finding]:
        # What is listed now and the registry does not know soon was not made meanwhile.
        strange = self._strange()
        listed_at = time.monotonic()
        yield from self._names()
        where, of_tenant = (
            ("WHERE n.tenant_id = ?", (self._tenant_id,)) if self._tenant_id else ("", ())
        )
        [total] = self._control.execute(
            f"SELECT count(*) FROM namespaces AS n {where}",  # noqa: S608  # one of two constants
            of_tenant,
        ).fetchone()
        done = 0
        progress(done, total)
        for fields in self._control.execute(f"{_SELECT} {where} ORDER BY 3, 4", of_tenant):
            row = _row(fields)
            for problem in self._problems(row):
                yield Finding(
                    problem.level, row.tenant, row.name, row.file, problem.what, problem.remedy
                )
            done += 1
            progress(done, total)
        if strange:
            time.sleep(max(0.0, SECOND_LOOK - (time.monotonic() - listed_at)))
            strange &= self._strange()
        for file in sorted(strange):
            yield _stranger(file)
        yield from self._rights()

    def _problems(self, row: _Row) -> list[_Problem]:
        """What is wrong with a namespace, also at the second look."""
        problems = self._look(row)
        if not problems:
            return []
        now = self._now(row.id)
        return [] if now is None else self._look(now)

    def _look(self, row: _Row) -> list[_Problem]:
        try:
            path = located(self._data_dir, NamespaceRow(row.id, row.tenant_id, row.name, row.file))
        except Damaged:
            return [_MISPLACED]
        if not path.exists():
            # Known to the registry, and not opened yet: the draft is the file.
            path = path.with_name(path.name + DRAFT)
            if not path.exists():
                return [_Problem("damaged", "its file is missing", _RESTORE)]
        try:
            with snapshot(path, self._copies) as connection:
                damage = _damage(connection)
                if damage:
                    return [_Problem("damaged", it, _REBUILD) for it in damage]
                return list(_against_registry(row, *checking.held(connection)))
        except Damaged as error:
            return [_Problem("damaged", error.message, _RESTORE)]
        except (sqlite3.Error, OSError) as error:
            return [_unreadable(error)]

    def _now(self, id: str) -> _Row | None:
        """What the registry says of a namespace by now; None if it was purged meanwhile."""
        with _control(self._data_dir, self._copies) as control:
            found = control.execute(f"{_SELECT} WHERE n.id = ?", (id,)).fetchone()
        return None if found is None else _row(found)

    def _names(self) -> Iterator[Finding]:
        """Rows of the registry that no tenant has."""
        for fields in self._control.execute(f"{_SELECT} WHERE t.id IS NULL"):
            row = _row(fields)
            if self._tenant_id in (None, row.tenant_id):
                level, what, remedy = _MISPLACED
                yield Finding(level, row.tenant, row.name, row.file, what, remedy)

    def _strange(self) -> set[str]:
        """Files below `tenants` that the registry does not know, as of now."""
        within = self._tenant_id or "*"
        listed = {
            str(path.relative_to(self._data_dir))
            for pattern in (f"tenants/{within}/*", *(() if self._tenant_id else ("tenants/*",)))
            for path in self._data_dir.glob(pattern)
            if not path.is_dir()
        }
        with _control(self._data_dir, self._copies) as control:
            known = {
                file
                for [file] in control.execute(
                    "SELECT file FROM namespaces UNION ALL"
                    " SELECT file FROM tombstones WHERE removed_at IS NULL UNION ALL"
                    " SELECT file FROM discarded"
                )
            }
        # An import or a restore makes files there that nobody knows before they are whole.
        building = {str(Path(file).parent) for file in listed if Path(file).name == MARK}
        return {
            file
            for file in listed
            if _database_of(file) not in known and str(Path(file).parent) not in building
        }

    def _rights(self) -> Iterator[Finding]:
        """Files that other users of this machine could read, or that the server may not."""
        owner = self._data_dir.stat().st_uid
        within = self._tenant_id or "*"
        paths = [self._data_dir, self._data_dir / REGISTRY, self._data_dir / "tenants"]
        for path in [
            *paths,
            *self._data_dir.glob(f"tenants/{within}"),
            *self._data_dir.glob(f"tenants/{within}/*"),
        ]:
            try:
                found = path.stat()
            except OSError:  # removed meanwhile
                continue
            name = "." if path == self._data_dir else str(path.relative_to(self._data_dir))
            if found.st_uid != owner:
                yield Finding(
                    "notice",
                    None,
                    None,
                    name,
                    "it belongs to another user than the data directory",
                    "Give it to the server's user: chown.",
                )
            elif stat.S_IMODE(found.st_mode) & 0o077:
                yield Finding(
                    "notice",
                    None,
                    None,
                    name,
                    "other users of this machine may read or change it",
                    "chmod go= it.",
                )


def _files_alone(data_dir: Path, copies: Path, progress: Progress) -> Iterator[Finding]:
    """The namespaces' files without a registry that would say whose they are."""
    paths = sorted(data_dir.glob("tenants/*/*.db"))
    for done, path in enumerate(paths):
        progress(done, len(paths))
        try:
            with snapshot(path, copies) as connection:
                problems = [_Problem("damaged", it, _RESTORE) for it in _damage(connection)]
        except Damaged as error:
            problems = [_Problem("damaged", error.message, _RESTORE)]
        except (sqlite3.Error, OSError) as error:
            problems = [_unreadable(error)]
        for problem in problems:
            yield Finding(
                problem.level,
                None,
                None,
                str(path.relative_to(data_dir)),
                problem.what,
                problem.remedy,
            )
    progress(len(paths), len(paths))


def _damage(connection: Connection) -> list[str]:
    """What is wrong inside a namespace's file, which is brought up to date for it."""
    schemas.require_kind(connection, NAMESPACE)
    # Before a step is taken: that would run what somebody has put there.
    damage = list(schemas.strange(connection, NAMESPACE))
    if not damage:
        migrate(connection, NAMESPACE)
        damage += checking.namespace(connection)
    return damage


def _against_registry(
    row: _Row, owner: str | None, revision: int, held: Totals
) -> Iterator[_Problem]:
    if owner is not None and owner != row.id:
        yield _Problem("damaged", "its file is another namespace's", _RESTORE)
    elif row.revision is not None and revision < row.revision:
        yield _Problem(
            "damaged",
            f"its file is older than what was stored in it (revision {revision}, and "
            f"{row.revision} was noted): its journal is lost",
            _ACCEPT,
        )
    elif revision == row.revision and held != row.held:
        differing = ", ".join(
            f"{noted} {name} instead of {there}"
            for name, noted, there in zip(Totals._fields, row.held, held, strict=True)
            if noted != there
        )
        yield _Problem(
            "damaged",
            f"the registry counts {differing}",
            "`namespaces accept TENANT NAME` notes what the file holds.",
        )


@contextmanager
def _control(data_dir: Path, copies: Path) -> Iterator[Connection]:
    """A copy of the registry as it is now."""
    path = data_dir / REGISTRY
    if not path.exists():
        raise FileNotFoundError(path)
    with snapshot(path, copies) as connection:
        schemas.require_kind(connection, CONTROL)
        for problem in schemas.strange(connection, CONTROL):
            raise Damaged(f"there is in it {problem}")
        migrate(connection, CONTROL)
        yield connection


def _row(fields: Sequence[Any]) -> _Row:
    id, tenant_id, tenant, name, file, revision, *held = fields
    return _Row(id, tenant_id, tenant, name, file, revision, Totals(*held))


def _database_of(file: str) -> str:
    """The database that a file below `tenants` belongs to."""
    for ending in ("-wal", "-shm", "-journal", DRAFT):
        file = file.removesuffix(ending)
    return file


def _stranger(file: str) -> Finding:
    if file.endswith(DRAFT):
        return Finding(
            "notice",
            None,
            None,
            file,
            "a namespace was being made when its server was killed",
            "The next start of the server removes it.",
        )
    return Finding(
        "damaged",
        None,
        None,
        file,
        "no namespace of the registry has this file",
        "Restore the control.db that knows it, or move the file away.",
    )


def _of_registry(problem: _Problem) -> Finding:
    return Finding(problem.level, None, None, REGISTRY, problem.what, problem.remedy)


def _unreadable(error: Exception) -> _Problem:
    if isinstance(error, sqlite3.Error):
        refusal = driver.refusal(error)
        if isinstance(refusal, Damaged):
            return _Problem("damaged", f"SQLite: {driver.error_name(error)}", _RESTORE)
        return _Problem("unchecked", f"SQLite: {driver.error_name(error)}", _NO_ROOM)
    reason = os.strerror(error.errno or 0) if isinstance(error, OSError) else type(error).__name__
    return _Problem("unchecked", f"it could not be read: {reason}", _NO_ROOM)
