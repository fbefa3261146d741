"""One open SQLite file: one connection, units of work in the order they came.

A unit of work is a plain function `unit(connection, ...)`. It runs whole, so a request that is
cancelled half-way leaves nothing half-done. What has queued up meanwhile runs in one transaction
and shares one commit; a unit that fails is undone alone and spoils no other.
Answers go out after COMMIT.

The connection has a thread of its own for what takes time: commits, which wait for the disk, and
units that touch more than a few rows. Units marked `brief` run on the event loop, because every
statement run on a thread has to win the interpreter's lock back from the loop: with 16 writers
that cost more than all the rest (see docs/performance.md).

It refuses to hand out its connection, and knows nothing of tenants or quotas.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from botwire_server.errors import Closed, Damaged, Refusal, Unavailable
from botwire_server.metrics import Work
from botwire_server.store import driver, opening
from botwire_server.store.anchor import anchor_of
from botwire_server.store.deadlines import Deadline, Turn
from botwire_server.store.driver import Clock, Connection, Durability, error_name, sqlite3
from botwire_server.store.migrations import Schema, sync_directory
from botwire_server.store.units import (
    BRIEF_BYTES,
    Batch,
    Job,
    Long,
    is_brief,
    next_batch,
    perform_in_savepoint,
    perform_in_snapshot,
)
from botwire_server.store.worker import Worker

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

CLOSED = "This file was closed; try again."


class Database:
    """An open file. Made by `open`, of no use after `close`.

    `keep=False` makes one that rolls every unit back: whatever is done to it, it stays empty.
    """

    schema: Schema
    # Whether nobody else writes to such files, so that they may be read without a journal.
    freezes = False

    @staticmethod
    def look(connection: Connection) -> Any:
        """What is to be known of a file as soon as it is open; `Connection.seen` keeps it."""

    def __init__(self, path: Path | str, worker: Worker, *, keep: bool, names: Path | None) -> None:
        self._path = path
        self._worker = worker
        # What must lie where it lay for anything to be stored; nothing for one in memory.
        self.anchors = [] if path == ":memory:" else [anchor_of(Path(path))]
        # The directory whose fsync makes the journal's name last; None once that is done.
        self._names = names
        self._connection = worker.raw
        self._connection.longest = BRIEF_BYTES
        self._turns: set[Turn] = set()  # of reads that wait or run
        self.work = Work()  # what it counts
        self._committing: float | None = None  # how long the last commit took
        self._commit = "COMMIT" if keep else "ROLLBACK"
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Job[Any]] = deque()
        self._pumping = False  # a round of the pump is on its way
        self._away = False  # the connection is with its thread
        self._patient = True  # it waits for other processes' locks
        self._closing: asyncio.Future[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    @classmethod
    async def open(
        cls, path: Path | str, *, durability: Durability, clock: Clock, keep: bool = True
    ) -> Self:
        """Open an existing file and bring its schema up to date, or raise `Damaged`."""
        worker = Worker(partial(_connect, path, cls, durability, clock))
        try:
            await worker
        except BaseException as error:
            await worker.ended()
            if not isinstance(error, sqlite3.Error):
                raise
            if path != ":memory:" and not Path(path).is_file():
                raise Damaged(driver.DAMAGED) from error
            raise _explain(error) from error
        named = durability == "full" and path != ":memory:"
        return cls(path, worker, keep=keep, names=Path(path).parent if named else None)

    @property
    def busy(self) -> bool:
        """Whether a unit of work waits or runs."""
        return not self._idle.is_set()

    @property
    def waiting(self) -> int:
        """How many units of work wait for those that run."""
        return len(self._queue)

    @property
    def closing(self) -> bool:
        """Whether it takes no more units."""
        return self._closing is not None

    @property
    def leftovers(self) -> bool:
        """Whether what was deleted still lies in the WAL."""
        return self._connection.leftovers

    @property
    def frozen(self) -> bool:
        """Whether it can only be read, because the disk did not take what opening it needs."""
        return self._connection.frozen

    @property
    def doubtful(self) -> bool:
        """Whether what was committed may not be on the disk."""
        return self._connection.doubtful

    async def read(
        self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit that reads. It sees every write that was asked for before it."""
        return await self.read_within(None, unit, *args, **kwargs)

    async def read_within(
        self,
        deadline: Deadline | None,
        unit: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`read`, as long as somebody may wait for it. Raises what ended it, such as `Busy`."""
        brief = is_brief(unit)
        if brief and self._idle.is_set() and self._closing is None:
            try:
                return unit(self._connection, *args, **kwargs)
            except Long:
                brief = False
            except sqlite3.Error as error:
                raise _explain(error) from error
        return await self._submit(
            lambda connection: unit(connection, *args, **kwargs),
            writes=False,
            brief=brief,
            deadline=deadline,
        )

    async def transact(
        self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit that writes; when this returns, it is committed."""
        return await self._submit(
            lambda connection: unit(connection, *args, **kwargs),
            writes=True,
            brief=is_brief(unit, args),
        )

    async def alone(
        self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit outside any transaction, for what SQLite does not do in one.

        It must leave no transaction open.
        """
        return await self._submit(
            lambda connection: unit(connection, *args, **kwargs),
            writes=False,
            brief=False,
            alone=True,
        )

    async def checkpoint(self) -> bool:
        """Move the WAL into the file and cut it to nothing; False if a reader was in the way.

        What deleted rows left in the WAL is gone afterwards.
        """
        return await self.alone(opening.checkpoint)

    async def close(self) -> None:
        """End reads, finish what else is queued, take nothing more, release thread and descriptors.

        May be called again: every call returns when the file is closed.
        """
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
            self.end_reads()
        await asyncio.shield(self._closing)

    def end_reads(self) -> None:
        """Let nobody wait for reads that somebody asked for: they are told `Closed`."""
        for turn in list(self._turns):
            turn.end(Closed(CLOSED))

    async def _close(self) -> None:
        await self._idle.wait()
        try:
            await self._worker.close()
        except sqlite3.Error as error:
            # Everything acknowledged is in the WAL; the next open goes on from there.
            log.warning("closing a file: %s", error_name(error))

    def _submit(
        self,
        unit: Callable[[Connection], T],
        *,
        writes: bool,
        brief: bool,
        alone: bool = False,
        deadline: Deadline | None = None,
    ) -> asyncio.Future[T]:
        if self._closing is not None:
            raise Closed(CLOSED)
        future: asyncio.Future[T] = self._loop.create_future()
        turn = None
        if deadline is not None:
            turn = deadline.turn(future)
            self._turns.add(turn)
        self._queue.append(Job(unit, future, writes=writes, brief=brief, alone=alone, turn=turn))
        if not self._away and not self._pumping:
            # Not at once: what else arrives in this round of the loop shares the commit.
            self._pumping = True
            self._idle.clear()
            self._loop.call_soon(self._pump)
        return future

    def _pump(self) -> None:
        """Run what has queued up, until the connection goes to its thread or nothing is left."""
        self._pumping = False
        while self._queue:
            batch = next_batch(self._queue)
            if not batch[0].brief:
                self._send(self._run_on_thread, batch)
                return
            try:
                transaction = self._run(batch, patient=False)
            except BlockingIOError:
                self._send(self._run_on_thread, batch)
                return
            if transaction:
                self._send(self._commit_on_thread, batch)
                return
            self._deliver(batch)
        self._idle.set()

    def _send(self, function: Callable[[Batch], None], batch: Batch) -> None:
        self._away = True
        self._connection.longest = sys.maxsize
        self._worker.post(partial(function, batch))

    def _returned(self, batch: Batch) -> None:
        self._away = False
        self._connection.longest = BRIEF_BYTES
        self._deliver(batch)
        self._pump()

    def _deliver(self, batch: Batch) -> None:
        self.settled()
        if self._committing is not None:
            self.work.committed(sum(job.writes for job in batch), self._committing)
            self._committing = None
        for job in batch:
            if job.turn is not None:
                self._turns.discard(job.turn)
                job.turn.close()
            if isinstance(job.error, (sqlite3.Error, OSError)):
                self.work.failures += 1
            if job.future.done():  # the request was cancelled; the unit ran whole all the same
                continue
            if job.error is None:
                job.future.set_result(job.result)
            elif isinstance(job.error, OSError):
                job.future.set_exception(driver.disk_refusal(job.error))
            elif isinstance(job.error, sqlite3.Error):
                job.future.set_exception(_explained(job.error, job.asked_by))
            else:
                job.future.set_exception(job.error)

    # What may run on the thread.

    def _run_on_thread(self, batch: Batch) -> None:
        while len(batch) > 1 and not any(job.writes for job in batch):
            # Who reads does not wait for those who read behind.
            self._attempt(batch[:1])
            self._call(self._deliver, batch[:1])
            batch = batch[1:]
        self._attempt(batch)
        self._report(batch)

    def _attempt(self, batch: Batch) -> None:
        try:
            if self._run(batch, patient=True):
                self._end(batch)
        except BaseException as error:
            self._undo(batch, error)

    def _commit_on_thread(self, batch: Batch) -> None:
        self._end(batch)
        self._report(batch)

    def _report(self, batch: Batch) -> None:
        self._call(self._returned, batch)

    def _call(self, told: Callable[[Batch], None], batch: Batch) -> None:
        try:
            self._loop.call_soon_threadsafe(told, batch)
        except RuntimeError:  # the loop is gone, and with it everybody who could be told
            log.debug("an answer came after the loop was closed")

    def _run(self, batch: Batch, *, patient: bool) -> bool:
        """Run the units of a batch; True if that left a transaction to be committed.

        Where we are not `patient`, raises `BlockingIOError` if another process holds the lock, or
        a row is too long for the loop.
        """
        connection = self._connection
        if not any(job.writes for job in batch):
            if patient and not batch[0].alone:
                perform_in_snapshot(batch, connection)
            else:
                for job in batch:
                    job.perform(connection)
            if not patient:
                _require_short(batch)
            return False
        if connection.doubtful and not patient:
            raise BlockingIOError
        try:
            for anchor in self.anchors:
                anchor.require()
            if connection.doubtful:
                opening.settle(connection)
            if self._patient is not patient:
                timeout = driver.BUSY_TIMEOUT_MS if patient else 0
                connection.execute(f"PRAGMA busy_timeout = {timeout}")
                self._patient = patient
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not patient and "locked" in str(error):
                    raise BlockingIOError from error
                raise
            for job in batch:
                job.perform(connection)
            failed = [job for job in batch if job.error is not None]
            if failed and not patient:
                _require_short(failed, connection)
            if any(job.writes for job in failed):
                # Rare, so that savepoints are taken only now: undo all, and once more with them.
                connection.execute("ROLLBACK")
                self.undone()
                if len(batch) == 1:
                    return False
                connection.execute("BEGIN IMMEDIATE")
                for job in batch:
                    perform_in_savepoint(job, connection)
            self.observe(connection)
        except BlockingIOError:
            raise
        except BaseException as error:
            self._undo(batch, error)
            return False
        return True

    def _end(self, batch: Batch) -> None:
        began = time.perf_counter()
        try:
            if self._names is not None:
                # The journal is there since the file was opened. SQLite does so too when it first
                # syncs one that it made, but takes no notice of an error.
                sync_directory(self._names)
                self._names = None
            self._connection.execute(self._commit)
            # Counted on the loop: threads of many files would get in each other's way.
            self._committing = time.perf_counter() - began
        except BaseException as error:
            # Where there was no room it is not there. After another error nobody can know.
            if isinstance(error, sqlite3.Error) and not driver.is_full(error):
                self._connection.doubtful = True
            self._undo(batch, error)

    def _undo(self, batch: Batch, error: BaseException) -> None:
        connection = self._connection
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error as failure:
            log.error("undoing: %s", error_name(failure))
            connection.doubtful = True
        self.undone()
        for job in batch:
            if job.writes:
                job.error = error
            else:
                # It may have seen what is now undone; without the writes it can still be told.
                job.perform(connection)

    def observe(self, connection: Connection) -> None:
        """Called before every commit; for subclasses that keep count."""

    def undone(self) -> None:
        """Called when what was done, and what `observe` saw of it, is not committed."""

    def settled(self) -> None:
        """Called on the loop after every batch; for subclasses that keep count."""


def _require_short(batch: Batch, connection: Connection | None = None) -> None:
    """Raise `BlockingIOError` where a row was too long; the transaction is undone."""
    if any(isinstance(job.error, Long) for job in batch):
        if connection is not None:
            connection.execute("ROLLBACK")
        raise BlockingIOError


def _connect(
    path: Path | str, kind: type[Database], durability: Durability, clock: Clock
) -> Connection:
    connection = opening.connect(path, kind.schema, durability, clock, kind.freezes)
    try:
        connection.seen = kind.look(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _explain(error: sqlite3.Error, asked_by: str | None = None) -> Refusal:
    log.error("SQLite: %s", error_name(error), extra={"request_id": asked_by})
    explained: Unavailable = driver.refusal(error)
    explained.__cause__ = error
    return explained


def _explained(error: sqlite3.Error, asked_by: str) -> Exception:
    # A ProgrammingError is a mistake of ours, not the disk's.
    return error if isinstance(error, sqlite3.ProgrammingError) else _explain(error, asked_by)
