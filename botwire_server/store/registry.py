"""control.db: whose data there is, who may reach it, and which file holds it.

It is asked on every request, so that what another process changed holds at once: a revoked key is
dead with the command that revoked it. Look-ups run on a connection of their own, where they are
called (some microseconds, by index), and are remembered for as long as SQLite says that no other
connection, of this process or another, has committed anything; changes run on a `Database` like
everybody's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from botwire_server.errors import (
    Damaged,
    Unavailable,
    Unusable,
)
from botwire_server.store import causes, driver, installation, keys, making, spent, swap
from botwire_server.store.database import Database
from botwire_server.store.deadlines import Deadline
from botwire_server.store.driver import Clock, Connection, Durability
from botwire_server.store.migrations import CONTROL, template, write_new
from botwire_server.store.names import slug
from botwire_server.store.namespace import Outlook, Totals
from botwire_server.store.rows import KeyRow, NamespaceRow, TenantRow
from botwire_server.store.spent import Spent

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

DEFAULT_TENANT = "default"

# Look-ups that are remembered.
MOST_REMEMBERED = 8_192


class _Control(Database):
    schema = CONTROL


class Registry:
    """An open control.db. Made by `open`, of no use after `close`."""

    def __init__(self, lookups: Connection, changes: Database, clock: Clock) -> None:
        self._lookups = lookups
        self._remembered: dict[tuple[Any, ...], Any] = {}
        self._version = 0  # of what is remembered
        self._current = False  # that was looked at in this round of the loop
        self._changes = changes
        self._clock = clock
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(cls, directory: Path, *, durability: Durability, clock: Clock) -> Self:
        """Open the registry of a data directory, made on first use."""
        path = await asyncio.to_thread(prepare, directory)
        try:
            changes = await _Control.open(path, durability=durability, clock=clock)
        except Damaged as error:
            raise Unusable(f"{path}: {error.message}") from error
        try:
            self = cls(driver.connect(path, clock=clock), changes, clock)
            await self._settle(directory)
            return self
        except BaseException as error:
            await changes.close()
            if isinstance(error, driver.sqlite3.Error):
                raise Unusable(causes.told(f"{path} cannot be opened", error)) from error
            raise

    async def _settle(self, directory: Path) -> None:
        place = installation.place_of(directory)
        if not await self.query(installation.is_settled, place):
            with contextlib.suppress(Unavailable):  # a full disk must not keep readers out
                await self.change(installation.settle, place)

    async def close(self) -> None:
        """Release its connections."""
        self._lookups.close()
        await self._changes.close()

    @property
    def changes(self) -> Database:
        """What changes run on, for who counts."""
        return self._changes

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self._clock()

    # Look-ups, on the caller's thread.

    def key(self, text: str) -> tuple[KeyRow, TenantRow | None] | None:
        """The key with this text and its tenant, if it works now; None for an operator's tenant."""
        id = keys.public_id(text)
        if id is None:
            return None
        found = self._find(
            _key_and_tenant,
            f"SELECT {_KEY_AND_TENANT} FROM keys k LEFT JOIN tenants t ON t.id = k.tenant_id"  # noqa: S608
            " WHERE k.id = ?",
            id,
        )
        if found is None:
            return None
        key: KeyRow = found[0]
        if not hmac.compare_digest(key.hash, keys.digest(text)) or not key.works(self._clock()):
            return None
        return found  # type: ignore[no-any-return]

    def keys_required(self) -> bool:
        """Whether a key was ever made here."""
        return self._one("SELECT value FROM facts WHERE name = 'keys_required'") is not None

    def open_tenant(self, name: str) -> tuple[bool, TenantRow | None]:
        """Whether keys are required, and a tenant by name: one look-up, on every open request."""
        found: tuple[bool, TenantRow | None] = self._find(
            _keyed_and_tenant,
            """SELECT (SELECT 1 FROM facts WHERE name = 'keys_required'), t.id, t.name, t.tier
            FROM (SELECT 1) LEFT JOIN tenants t ON t.name = ? AND t.purging_at IS NULL""",
            name,
        )
        return found

    def tenant(self, name: str) -> TenantRow | None:
        """A tenant by name; one that is being purged is gone."""
        row = self._one(
            "SELECT id, name, tier FROM tenants WHERE name = ? AND purging_at IS NULL", name
        )
        return None if row is None else TenantRow(*row)

    def is_tenant(self, id: str) -> bool:
        """Whether there is a tenant with this id, now."""
        self._refresh()
        return self._one("SELECT 1 FROM tenants WHERE id = ?", id) is not None

    def namespace(self, tenant_id: str, name: str) -> NamespaceRow | None:
        """A namespace of this tenant by name."""
        found: NamespaceRow | None = self._find(
            _namespace,
            "SELECT id, tenant_id, name, file FROM namespaces WHERE tenant_id = ? AND name = ?",
            tenant_id,
            name,
        )
        return found

    def namespace_by_id(self, tenant_id: str, id: str) -> NamespaceRow | None:
        """A namespace of this tenant by id; another tenant's is none."""
        row = self._one(
            "SELECT id, tenant_id, name, file FROM namespaces WHERE id = ? AND tenant_id = ?",
            id,
            tenant_id,
        )
        return None if row is None else NamespaceRow(*row)

    def noted_revision(self, row: NamespaceRow) -> int:
        """The least revision that the namespace's file must have."""
        found = self._one(
            "SELECT revision FROM namespaces WHERE id = ? AND file = ?", row.id, row.file
        )
        return 0 if found is None else found[0] or 0

    def due(self, now: float, limit: int) -> list[NamespaceRow]:
        """Namespaces in which something has expired."""
        rows = self._all(
            "SELECT id, tenant_id, name, file FROM namespaces WHERE sweep_at <= ? LIMIT ?",
            now,
            limit,
        )
        return [NamespaceRow(*row) for row in rows]

    def written(self, tenant_id: str, name: str) -> Spent:
        """The writes of the day that a name had before it was purged."""
        try:
            return spent.of(self._lookups, tenant_id, name)
        except driver.sqlite3.Error as error:
            raise _failed(error) from error

    def any_waiting(self, model: str) -> bool:
        """Whether some namespace holds memories without vectors of this model."""
        # Each of the three is one step in an index; `IS NOT ?` would look at all of them.
        [found] = self._one(
            """SELECT EXISTS (SELECT 1 FROM namespaces WHERE memories > 0 AND model IS NULL)
            OR EXISTS (SELECT 1 FROM namespaces WHERE memories > 0 AND model < ?1)
            OR EXISTS (SELECT 1 FROM namespaces WHERE memories > 0 AND model > ?1)""",
            model,
        )
        return bool(found)

    def files(self) -> set[str]:
        """Every file the registry knows now, relative to the data directory."""
        self._refresh()
        return {
            file
            for [file] in self._all(
                "SELECT file FROM namespaces UNION ALL"
                " SELECT file FROM tombstones WHERE removed_at IS NULL UNION ALL"
                " SELECT file FROM discarded"
            )
        }

    def rows(self, files: Iterable[str]) -> list[NamespaceRow]:
        """The namespaces of these files."""
        rows = (
            self._one("SELECT id, tenant_id, name, file FROM namespaces WHERE file = ?", file)
            for file in files
        )
        return [NamespaceRow(*row) for row in rows if row is not None]

    # Changes, committed when they return.

    async def ensure_tenant(self, name: str, tier: str) -> TenantRow:
        """The tenant of this name, made if there is none."""
        row = self.tenant(name)
        return row if row is not None else await self.change(making.ensure_tenant, name, tier)

    async def add_namespace(
        self, tenant_id: str, name: str, *, id: str, file: str, most: int = 0, counted: bool = False
    ) -> NamespaceRow:
        """Record a namespace whose file is prepared; the one that is there if there is one.

        `most` is how many the tenant may have. Raises `Unauthorized` if the tenant is gone, and
        where its writes are `counted`, `Closed` while those of its name are not.
        """
        return await self.change(making.add_namespace, tenant_id, name, id, file, most, counted)

    async def note(self, totals: Iterable[tuple[NamespaceRow, Totals, Outlook]]) -> None:
        """Record what namespaces hold, and their outlook."""
        await self.change(_note, list(totals))

    async def change(
        self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit of work that changes the registry."""
        result = await self._changes.transact(unit, *args, **kwargs)
        self._refresh()
        return result

    @property
    def doubtful(self) -> bool:
        """Whether a crash could make true what was refused: it may be in the WAL."""
        return self._changes.doubtful

    async def be_sure(self) -> None:
        """Cut out of the WAL what was refused. Raises `Unavailable` while the disk fails."""
        await self.change(_nothing)

    async def query(
        self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit of work that reads much of the registry, on its thread."""
        return await self._changes.read(unit, *args, **kwargs)

    async def query_within(
        self,
        deadline: Deadline | None,
        unit: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`query` on behalf of somebody who may read until a deadline."""
        return await self._changes.read_within(deadline, unit, *args, **kwargs)

    async def erase_leftovers(self) -> None:
        """Erase if something was deleted since the last time."""
        if self._changes.leftovers:
            await self.erase()

    async def erase(self) -> bool:
        """Cut the WAL, in which deleted rows still lie; False if somebody was reading."""
        return await self._changes.checkpoint()

    def _find(self, make: Callable[[Any], Any], sql: str, *parameters: str) -> Any:
        """What `make` makes of the row, None where there is none; as last time while that holds."""
        if not self._current:
            self._look()
        asked = (make, parameters)
        try:
            return self._remembered[asked]
        except KeyError:
            row = self._one(sql, *parameters)
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        found = self._remembered[asked] = None if row is None else make(row)
        return found

    def _look(self) -> None:
        """Forget what is remembered if anybody has committed since.

        Once for a round of the loop: it costs as many system calls as a look-up. A request that
        is read after this runs after `_refresh`.
        """
        [[version]] = self._all("PRAGMA data_version")
        if version != self._version:
            self._remembered.clear()
            self._version = version
        self._current = True
        self._loop.call_soon(self._refresh)

    def _refresh(self) -> None:
        self._current = False

    def _one(self, sql: str, *parameters: Any) -> Any:
        rows = self._all(sql, *parameters)
        return rows[0] if rows else None

    def _all(self, sql: str, *parameters: Any) -> Sequence[Any]:
        try:
            return self._lookups.execute(sql, parameters).fetchall()
        except driver.sqlite3.ProgrammingError:  # a mistake of ours, not the disk's
            raise
        except driver.sqlite3.Error as error:
            raise _failed(error) from error


_KEY_AND_TENANT = ", ".join(f"k.{field}" for field in KeyRow._fields) + ", t.id, t.name, t.tier"


def _failed(error: driver.sqlite3.Error) -> Unavailable:
    log.error("a look-up in the registry: %s", getattr(error, "sqlite_errorname", "failed"))
    return driver.refusal(error)


def _namespace(row: Sequence[Any]) -> NamespaceRow:
    return NamespaceRow(*row)


def _key_and_tenant(row: Sequence[Any]) -> tuple[KeyRow, TenantRow | None]:
    key = KeyRow(*row[:10])
    return key, None if key.tenant_id is None else TenantRow(*row[10:])


def _keyed_and_tenant(row: Sequence[Any]) -> tuple[bool, TenantRow | None]:
    return row[0] is not None, None if row[1] is None else TenantRow(*row[1:])


def new_id() -> str:
    """A namespace's id: 60 random bits as hexadecimal, so that a UUID has room for it."""
    return f"{secrets.randbits(60):015x}"


def is_id(text: str) -> bool:
    """Whether this could be a namespace's id."""
    return re.fullmatch("[0-9a-f]{15}", text) is not None


def file_of(tenant_id: str, name: str, namespace_id: str, *, again: bool = False) -> str:
    """Where a namespace lives, relative to the data directory.

    `again` makes a name that was never used for one that had a file before.
    """
    nonce = f"{secrets.token_hex(3)}-" if again else ""
    return f"tenants/{tenant_id}/{slug(name)}-{nonce}{namespace_id}.db"


def prepare(directory: Path) -> Path:
    """Make control.db where there is none; return its path.

    Raises `Unusable` rather than start afresh over a directory that has lost its registry.
    """
    path = directory / "control.db"
    if swap.is_due(directory):
        raise Unusable(
            f"A restore of {directory} was cut short: start the server, or any command once none "
            "runs, to finish it."
        )
    if path.exists():
        return path
    if any(directory.glob("tenants/*/*.db")):
        raise Unusable(
            f"{path} is missing although {directory} holds namespaces: restore it from a backup, "
            "or name another --data-dir."
        )
    draft = directory / f".control-{secrets.token_hex(6)}.new"
    write_new(draft, template(CONTROL, directory))
    try:
        # Two processes may start at once: the first link wins, both go on with it.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    return path


def _note(connection: Connection, totals: list[tuple[NamespaceRow, Totals, Outlook]]) -> None:
    columns = ", ".join(f"{name} = ?" for name in Totals._fields)
    connection.executemany(
        f"""UPDATE namespaces SET {columns}, sweep_at = ?, model = ?, revision = ?
        WHERE id = ? AND file = ?""",  # noqa: S608
        # What was noted of a file that a restore has replaced says nothing of the new one.
        [(*held, *outlook, row.id, row.file) for row, held, outlook in totals],
    )


def _nothing(connection: Connection) -> None:
    """Change nothing: fails where the registry cannot be written."""
