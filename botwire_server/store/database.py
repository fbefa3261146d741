"""One open SQLite file: one connection, one thread, units of work in the order they came.

A unit of work is a plain function `unit(connection, ...)`. It runs whole, so a request that is
cancelled half-way leaves nothing half-done. What has queued up meanwhile runs in one transaction
and shares one commit; each writing unit has its savepoint, so one that fails spoils no other.
Answers go out after COMMIT.

It refuses to hand out its connection, and knows nothing of tenants or quotas.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

import aiosqlite

from botwire_server.errors import Closed, Refusal, Unavailable
from botwire_server.store import driver
from botwire_server.store.driver import Clock, Connection, Durability, sqlite3
from botwire_server.store.migrations import Schema, migrate

log = logging.getLogger(__name__)

# aiosqlite logs the function it runs, arguments and all: keys and values must not get there.
logging.getLogger("aiosqlite").setLevel(logging.WARNING)

P = ParamSpec("P")
T = TypeVar("T")

# Bounds how long one transaction can keep the units that came first waiting.
LONGEST_BATCH = 256


class _Worker(aiosqlite.Connection):
    """aiosqlite's connection thread, with a way in for functions that see the connection.

    The version of aiosqlite is pinned: `_tx`, `_thread` and `_conn` are its private names, and
    the tests of this module fail should they change.
    """

    def __init__(self, connector: Callable[[], Connection]) -> None:
        super().__init__(connector, iter_chunk_size=64)
        # A process that is told to die does not wait for a thread that waits for work.
        self._thread.daemon = True

    @property
    def raw(self) -> Connection:
        """The connection itself; only for who knows that the thread is idle."""
        connection = self._conn
        assert isinstance(connection, Connection)
        return connection

    def post(self, function: Callable[[], None]) -> None:
        """Run `function` on the connection's thread. It must not raise."""
        self._tx.put_nowait((None, function))


class _Job(Generic[T]):
    __slots__ = ("alone", "error", "future", "result", "unit", "writes")

    def __init__(
        self,
        unit: Callable[[Connection], T],
        future: asyncio.Future[T],
        *,
        writes: bool,
        alone: bool,
    ) -> None:
        self.unit = unit
        self.future = future
        self.writes = writes
        self.alone = alone  # must not share a transaction
        self.result: Any = None
        self.error: BaseException | None = None


class Database:
    """An open file. Made by `open`, of no use after `close`.

    `keep=False` makes one that rolls every unit back: whatever is done to it, it stays empty.
    """

    schema: Schema

    def __init__(self, worker: _Worker, *, keep: bool) -> None:
        self._worker = worker
        self._connection = worker.raw
        self._keep = keep
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Job[Any]] = deque()
        self._draining = False
        self._closing: asyncio.Future[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @classmethod
    async def open(
        cls, path: Path | str, *, durability: Durability, clock: Clock, keep: bool = True
    ) -> Self:
        """Open an existing file and bring its schema up to date, or raise `Damaged`."""
        worker = _Worker(partial(_connect, path, cls.schema, durability, clock))
        try:
            await worker
        except sqlite3.Error as error:
            raise _explain(error) from error
        return cls(worker, keep=keep)

    @property
    def busy(self) -> bool:
        """Whether a unit of work waits or runs."""
        return self._draining

    @property
    def closing(self) -> bool:
        """Whether it takes no more units."""
        return self._closing is not None

    async def lookup(
        self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit that reads a row or two by index.

        On an idle file it runs where it is called, without a change of threads, which costs more
        than the look-up itself; on a busy one it queues and so sees every write before it.
        """
        if self._draining or self._closing is not None:
            return await self._submit(
                lambda connection: unit(connection, *args, **kwargs), writes=False
            )
        try:
            return unit(self._connection, *args, **kwargs)
        except sqlite3.Error as error:
            raise _explain(error) from error

    async def read(
        self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit that reads."""
        return await self._submit(
            lambda connection: unit(connection, *args, **kwargs), writes=False
        )

    async def transact(
        self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit that writes; when this returns, it is committed."""
        return await self._submit(lambda connection: unit(connection, *args, **kwargs), writes=True)

    async def checkpoint(self) -> bool:
        """Move the WAL into the file and cut it to nothing; False if a reader was in the way.

        What deleted rows left in the WAL is gone afterwards.
        """
        return await self._submit(_checkpoint, writes=False, alone=True)

    async def close(self) -> None:
        """Finish what is queued, take nothing more, release thread and descriptors.

        May be called again: every call returns when the file is closed.
        """
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await self._idle.wait()
        try:
            await self._worker.close()
        except sqlite3.Error as error:
            # Everything acknowledged is in the WAL; the next open goes on from there.
            log.warning("closing a file: %s", _name(error))

    def _submit(
        self, unit: Callable[[Connection], T], *, writes: bool, alone: bool = False
    ) -> asyncio.Future[T]:
        if self._closing is not None:
            raise Closed("This file was closed; try again.")
        future: asyncio.Future[T] = self._loop.create_future()
        self._queue.append(_Job(unit, future, writes=writes, alone=alone))
        if not self._draining:
            self._draining = True
            self._idle.clear()
            self._worker.post(self._drain)
        return future

    # Below: on the connection's thread, except _deliver and _rest.

    def _drain(self) -> None:
        while batch := self._take():
            self._run(batch)
            self._call(self._deliver, batch)
        self._call(self._rest)

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop is gone, and with it everybody who could be told
            log.debug("an answer came after the loop was closed")

    def _take(self) -> list[_Job[Any]]:
        batch: list[_Job[Any]] = []
        queue = self._queue
        while queue and len(batch) < LONGEST_BATCH:
            if queue[0].alone and batch:
                break
            batch.append(queue.popleft())
            if batch[-1].alone:
                break
        return batch

    def _run(self, batch: list[_Job[Any]]) -> None:
        try:
            if any(job.writes for job in batch):
                self._transact(batch)
            else:
                for job in batch:
                    self._perform(job)
        except BaseException as error:
            for job in batch:
                job.error = error
        try:
            self.settled(self._connection)
        except sqlite3.Error as error:
            log.error("after a batch: %s", _name(error))

    def _transact(self, batch: list[_Job[Any]]) -> None:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                if job.writes:
                    self._perform_in_savepoint(job)
                else:
                    self._perform(job)
            connection.execute("COMMIT" if self._keep else "ROLLBACK")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            for job in batch:
                if job.writes:
                    job.error = error
                else:
                    # It may have seen what is now undone; without writes it can still be told.
                    self._perform(job)

    def _perform_in_savepoint(self, job: _Job[Any]) -> None:
        connection = self._connection
        connection.execute("SAVEPOINT unit")
        self._perform(job)
        if job.error is None:
            connection.execute("RELEASE unit")
        elif connection.in_transaction:
            connection.execute("ROLLBACK TO unit")
            connection.execute("RELEASE unit")
        else:  # some errors (a full disk) end the whole transaction
            raise job.error

    def _perform(self, job: _Job[Any]) -> None:
        job.error = None
        try:
            job.result = job.unit(self._connection)
        except BaseException as error:
            job.error = error

    def settled(self, connection: Connection) -> None:
        """Called on the thread after every batch; for subclasses that keep count."""

    # On the loop.

    def _deliver(self, batch: list[_Job[Any]]) -> None:
        for job in batch:
            if job.future.done():  # the request was cancelled; the unit ran whole all the same
                continue
            if job.error is None:
                job.future.set_result(job.result)
            else:
                job.future.set_exception(_explained(job.error))

    def _rest(self) -> None:
        if self._queue:
            self._worker.post(self._drain)
        else:
            self._draining = False
            self._idle.set()


def _connect(path: Path | str, schema: Schema, durability: Durability, clock: Clock) -> Connection:
    connection = driver.connect(path, durability=durability, clock=clock)
    try:
        if path == ":memory:":
            for step in schema.steps:
                for statement in step:
                    connection.execute(statement)
        else:
            migrate(connection, schema)
    except BaseException:
        connection.close()
        raise
    return connection


def _checkpoint(connection: Connection) -> bool:
    [busy, _, _] = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if not busy:
        connection.leftovers = False
    return not busy


def _explained(error: BaseException) -> BaseException:
    return _explain(error) if isinstance(error, sqlite3.Error) else error


def _explain(error: sqlite3.Error) -> Refusal:
    if isinstance(error, sqlite3.ProgrammingError):
        # A mistake of ours, or a file closed meanwhile; not the disk's fault.
        raise error
    log.error("SQLite: %s", _name(error))
    explained: Unavailable = driver.refusal(error)
    explained.__cause__ = error
    return explained


def _name(error: sqlite3.Error) -> str:
    """The error without what it may quote from the data."""
    return getattr(error, "sqlite_errorname", None) or type(error).__name__
