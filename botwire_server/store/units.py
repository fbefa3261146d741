"""Units of work: plain functions `unit(connection, ...)` that run whole, alone or in a batch.

What is here performs them on a connection; when, and on which thread, is `Database`'s to say.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from botwire_server.logs import request_id
from botwire_server.store.deadlines import Turn
from botwire_server.store.driver import Connection

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

# A unit that is given more than this is not brief, whatever it says; nor is one that finds a row
# that holds more.
BRIEF_BYTES = 65_536

_marked: set[Callable[..., Any]] = set()


class Long(Exception):
    """A row holds more than `Connection.longest`: the unit has to run on the thread, from its
    beginning."""


def brief(unit: F) -> F:
    """Mark a unit of work that touches a few rows by index: it may run on the event loop.

    It raises `Long` rather than read a row that is longer than `Connection.longest`.
    """
    _marked.add(unit)
    return unit


def require_short(connection: Connection, value: object) -> None:
    """Raise `Long` where a row's value was left out because it is."""
    if value is None and connection.longest < sys.maxsize:
        raise Long


def is_brief(unit: Callable[..., Any], args: tuple[Any, ...] = ()) -> bool:
    """Whether a unit may run on the event loop with these arguments."""
    return unit in _marked and not any(
        type(value) is bytes and len(value) > BRIEF_BYTES for value in args
    )


class Job(Generic[T]):
    """A unit that somebody waits for, and what came of it."""

    __slots__ = (
        "alone",
        "asked_by",
        "brief",
        "error",
        "future",
        "result",
        "turn",
        "unit",
        "writes",
    )

    def __init__(
        self,
        unit: Callable[[Connection], T],
        future: asyncio.Future[T],
        *,
        writes: bool,
        brief: bool,
        alone: bool,
        turn: Turn | None,
    ) -> None:
        self.unit = unit
        self.future = future
        self.writes = writes
        self.brief = brief
        self.alone = alone  # must not share a transaction
        self.turn = turn  # of a read that has a deadline
        self.asked_by = request_id.get()
        self.result: Any = None
        self.error: BaseException | None = None

    def perform(self, connection: Connection) -> None:
        """Run the unit; what it raises is kept."""
        self.error = None
        try:
            if self.turn is None:
                self.result = self.unit(connection)
            else:
                self.result = self.turn.run(partial(self.unit, connection), connection)
        except BaseException as error:
            self.error = error


Batch = list[Job[Any]]


# Bounds how long one transaction can keep the units that came first waiting.
LONGEST_BATCH = 256


def next_batch(queue: deque[Job[Any]]) -> Batch:
    """Take the next units that may share a transaction: all brief or none, in their order.

    Of those for the thread, which may take long, writes do not wait for reads between them.
    """
    first = queue.popleft()
    batch = [first]
    if first.brief:
        while queue and queue[0].brief and len(batch) < LONGEST_BATCH:
            batch.append(queue.popleft())
        return batch
    if first.alone:
        return batch
    passed: Batch = []
    while queue and len(batch) + len(passed) < LONGEST_BATCH:
        job = queue[0]
        if job.brief or job.alone or (job.writes and not first.writes):
            break
        (batch if job.writes is first.writes else passed).append(queue.popleft())
    queue.extendleft(reversed(passed))
    return batch


def perform_in_snapshot(batch: Batch, connection: Connection) -> None:
    """Units that read see one state whoever else writes, and lock the file once for all."""
    connection.execute("BEGIN")
    try:
        for job in batch:
            job.perform(connection)
    finally:
        if connection.in_transaction:  # some errors end it
            connection.execute("COMMIT")


def perform_in_savepoint(job: Job[Any], connection: Connection) -> None:
    """Run a unit so that it can be undone alone."""
    connection.execute("SAVEPOINT unit")
    job.perform(connection)
    if job.error is None:
        connection.execute("RELEASE unit")
    elif connection.in_transaction:
        connection.execute("ROLLBACK TO unit")
        connection.execute("RELEASE unit")
    else:  # some errors (a full disk) end the whole transaction
        raise job.error
