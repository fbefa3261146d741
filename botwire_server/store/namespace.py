"""One namespace's open file: what `Database` does, and the counters that belong to it.

Every accepted write counts for its UTC day in the transaction that stores it, and the totals of
the file are known without asking it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Concatenate, NamedTuple, ParamSpec, Self, TypeVar

from botwire_server.errors import Closed, Damaged, QuotaExceeded
from botwire_server.store.database import CLOSED, Database
from botwire_server.store.deadlines import Deadline
from botwire_server.store.driver import Clock, Connection, Durability, sqlite3
from botwire_server.store.migrations import NAMESPACE
from botwire_server.store.room import Limits as Limits
from botwire_server.store.room import Promises
from botwire_server.store.units import brief, is_brief
from botwire_server.store.views import View

P = ParamSpec("P")
T = TypeVar("T")

DAY = 86_400
# How much larger a limited tenant's file may be than all that it may store: for keys, ids, indexes
# and vectors, which do not count. No honest user comes near.
DISK_TIMES = 16
DISK_MORE = 64 * 1024 * 1024


class Totals(NamedTuple):
    """What a namespace holds. `bytes` are those of values, documents, texts and metadata.

    `sessions` are those that have a state or episodes.
    """

    entries: int = 0
    states: int = 0
    memories: int = 0
    episodes: int = 0
    vectors: int = 0
    bytes: int = 0
    sessions: int = 0


class Outlook(NamedTuple):
    """What the registry is told beside the totals.

    `sweep_at` is when something next expires, in Unix seconds; `model` is whose vectors all
    memories have, None where some have none; `revision` moves with every change.
    """

    sweep_at: float | None = None
    model: str | None = None
    revision: int | None = 0


class Namespace(Database):
    """An open namespace. `totals` and `outlook` are those of the last committed batch."""

    schema = NAMESPACE
    freezes = True
    totals = Totals()
    _views: set[View]
    # When something next expires, Unix seconds.
    sweep_at: float | None = None
    # Told, on the loop, the totals before when they or the outlook may have moved.
    on_change: Callable[[Totals], None] | None = None
    # The day and its writes, once it was closed.
    written = (0, 0)
    # What the transaction under way was promised.
    promises: Promises
    _keeps = True

    @classmethod
    async def open(
        cls, path: Path | str, *, durability: Durability, clock: Clock, keep: bool = True
    ) -> Self:
        """Open an existing namespace file, or raise `Damaged`."""
        namespace = await super().open(path, durability=durability, clock=clock, keep=keep)
        namespace._keeps = keep
        namespace.promises = Promises()
        namespace.totals, namespace.outlook = namespace._connection.seen
        namespace._views = set()
        return namespace

    @staticmethod
    def look(connection: Connection) -> tuple[Totals, Outlook]:
        """See `count`."""
        return count(connection)

    async def identify(
        self, id: str, *, revision: int, written: Callable[[], tuple[int, int]] = lambda: (0, 0)
    ) -> None:
        """Tell the units of work which namespace this is: ids of memories carry it.

        A new one goes on from the writes of a day that its name had before, as `written` says.
        Raises `Damaged` if the file is another's, or behind the `revision` that it had.
        """
        if await self.read(_owner) is None:
            await self.transact(_claim, id, *written())
        if await self.read(_owner) != id:
            raise Damaged(
                "This namespace's file is another namespace's; it was left as it is, and the "
                "operator can restore the right one from a backup."
            )
        if (self.outlook.revision or 0) < revision:
            raise Damaged(
                "This namespace's file is older than what was stored in it: its journal is lost. "
                "It was left as it is, and the operator can restore it from a backup."
            )
        self._connection.namespace_id = id

    @property
    def id(self) -> str:
        """What it was identified as."""
        return self._connection.namespace_id

    @property
    def busy(self) -> bool:
        """Whether a unit of work waits or runs, or somebody has a view."""
        return super().busy or bool(self._views)

    @asynccontextmanager
    async def view(self, deadline: Deadline) -> AsyncIterator[View]:
        """A view of the file, which ends when the file is closed."""
        if self.closing:
            raise Closed(CLOSED)
        connection = self._connection
        view = View(
            self._path,
            deadline,
            namespace_id=self.id,
            clock=connection.clock,
            frozen=connection.frozen,
        )
        self._views.add(view)
        try:
            yield view
        finally:
            await view.close()
            self._views.discard(view)

    async def _close(self) -> None:
        for view in self._views:
            view.cut()
        await asyncio.gather(*(view.close() for view in self._views))
        await self._idle.wait()
        with suppress(sqlite3.Error):
            self.written = self._connection.execute("SELECT day, writes FROM totals").fetchone()
        await super()._close()

    async def write(
        self,
        unit: Callable[Concatenate[Connection, P], T],
        limits: Limits,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run a unit that stores something: it counts for the day and stays within `limits`."""
        run = self._counted if self._keeps else self._tried
        return await self._submit(
            lambda connection: run(connection, lambda: unit(connection, *args, **kwargs), limits),
            writes=True,
            brief=is_brief(unit, args),
        )

    async def delete(
        self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit that only removes: always allowed, never counted."""
        return await self._submit(
            lambda connection: _marked(connection, lambda: unit(connection, *args, **kwargs)),
            writes=True,
            brief=is_brief(unit, args),
        )

    _observed: tuple[Totals, Outlook] | None = None

    # Written to since the WAL was last cut.
    grown = False

    async def checkpoint(self) -> bool:
        """See `Database`."""
        self.grown = False
        return await super().checkpoint()

    def observe(self, connection: Connection) -> None:
        """Take the totals of what is about to be committed."""
        self._observed = count(connection) if self._keeps else None
        self.grown = True

    def undone(self) -> None:
        """Forget them, and give back what it was promised."""
        self._observed = None
        self.promises.free()

    def settled(self) -> None:
        """Let the new totals be known."""
        if self._observed is not None:
            before = self.totals
            self.totals, self.outlook = self._observed
            self._observed = None
            if self.on_change is not None:
                self.on_change(before)
        self.promises.free()

    def _tried(self, connection: Connection, unit: Callable[[], T], limits: Limits) -> T:
        """Run a unit and undo it, so that none sees what another did where nothing is."""
        connection.execute("SAVEPOINT tried")
        try:
            return self._counted(connection, unit, limits)
        finally:
            connection.execute("ROLLBACK TO tried")
            connection.execute("RELEASE tried")

    def _counted(self, connection: Connection, unit: Callable[[], T], limits: Limits) -> T:
        _count_write(connection, limits)
        if not limits.namespace_bytes and limits.room is None:
            return unit()
        before = _held(connection)
        used = _used(connection) if limits.storage_bytes else 0
        result = unit()
        after = _held(connection)
        _require_size(limits, before, after)
        if limits.storage_bytes:
            _require_disk(limits, used, _used(connection))
        # The last that can fail: what is promised is used, or given back with the transaction.
        self.promises.ask(
            limits, bytes=after.bytes - before.bytes, vectors=after.vectors - before.vectors
        )
        return result


@brief
def totals(connection: Connection) -> Totals:
    """What the namespace holds: a unit of work."""
    return count(connection)[0]


def count(connection: Connection) -> tuple[Totals, Outlook]:
    """What a file holds, and what the registry has to know of it."""
    row = connection.execute(
        """SELECT entries, states, memories, episodes, vectors, bytes, sessions, revision,
            (SELECT name FROM vector_model WHERE complete),
            (SELECT min(expires_at) FROM entries WHERE expires_at IS NOT NULL),
            (SELECT min(expires_at) FROM states WHERE expires_at IS NOT NULL)
        FROM totals"""
    ).fetchone()
    held = Totals(*row[: len(Totals._fields)])
    revision, model, *moments = row[len(held) :]
    due = [moment for moment in moments if moment is not None]
    return held, Outlook(min(due, default=None), model, revision)


@brief
def _owner(connection: Connection) -> str | None:
    [owner] = connection.execute("SELECT owner FROM totals").fetchone()
    return None if owner is None else str(owner)


def _claim(connection: Connection, id: str, day: int, writes: int) -> None:
    connection.execute(
        """UPDATE totals SET owner = ?1, writes = iif(?2 > day, ?3, writes), day = max(day, ?2)
        WHERE owner IS NULL""",
        (id, day, writes),
    )


def _marked(connection: Connection, unit: Callable[[], T]) -> T:
    before = connection.total_changes
    result = unit()
    if connection.total_changes != before:
        connection.execute("UPDATE totals SET revision = revision + 1")
    return result


def _count_write(connection: Connection, limits: Limits) -> None:
    """Count a write for the day, or raise `QuotaExceeded`."""
    now = connection.now
    # A clock that is set back does not begin the day anew.
    [writes] = connection.execute(
        """UPDATE totals SET revision = revision + 1, day = max(day, ?1),
            writes = CASE WHEN ?1 > day THEN 1 ELSE writes + 1 END RETURNING writes""",
        (day_of(now),),
    ).fetchone()
    if limits.daily_writes and writes > limits.daily_writes:
        raise no_more_writes(limits, now)


def no_more_writes(limits: Limits, now: float) -> QuotaExceeded:
    """The refusal of a namespace that has had its writes of the day."""
    return QuotaExceeded(
        f"This namespace has had its {limits.daily_writes} writes of the day (UTC); reading "
        "and deleting go on, writing again after midnight UTC.",
        limit=limits.daily_writes,
        resets_at=midnight_after(now),
        kind="writes",
    )


class _Held(NamedTuple):
    """What a namespace holds in the midst of a transaction."""

    bytes: int
    key_bytes: int
    vectors: int


def _held(connection: Connection) -> _Held:
    return _Held(*connection.execute("SELECT bytes, key_bytes, vectors FROM totals").fetchone())


def _require_size(limits: Limits, before: _Held, after: _Held) -> None:
    size = after.bytes + after.key_bytes
    if limits.namespace_bytes and size > max(
        limits.namespace_bytes, before.bytes + before.key_bytes
    ):
        raise QuotaExceeded(
            f"This namespace would grow over its {limits.namespace_bytes} bytes; delete "
            "something first.",
            limit=limits.namespace_bytes,
            resets_at=None,
            kind="namespace_bytes",
        )


def _require_disk(limits: Limits, before: int, after: int) -> None:
    """Refuse to let a file grow that is far larger than what may be stored: full of names."""
    if after > max(before, DISK_TIMES * limits.storage_bytes + DISK_MORE):
        raise QuotaExceeded(
            "The keys, ids and indexes of this namespace take far more room than what may be "
            "stored; delete something first.",
            limit=limits.storage_bytes,
            resets_at=None,
            kind="storage",
        )


def _used(connection: Connection) -> int:
    """The bytes of a file's pages that hold something."""
    [[pages], [free], [size]] = (
        connection.execute(f"PRAGMA {what}").fetchone()
        for what in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def day_of(now: float) -> int:
    """The UTC day of a Unix time, counted from 1970."""
    return int(now // DAY)


def midnight_after(now: float) -> float:
    """The Unix time at which the next UTC day begins."""
    return float((day_of(now) + 1) * DAY)
