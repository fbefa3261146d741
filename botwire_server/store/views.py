"""Views: one moment of a file, read in slices through a connection of its own while others write.

A list of any length is read so: what is in memory at a time is a slice. A unit that lists is a
generator over rows. A view is for seconds; while it is open the file's journal cannot be cut, and
a file that is removed does not wait for its views.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from botwire_server.errors import Closed, Unavailable
from botwire_server.store import driver
from botwire_server.store.deadlines import Deadline, Turn
from botwire_server.store.driver import Clock, Connection

P = ParamSpec("P")
T = TypeVar("T")
Row = TypeVar("Row", bound=Sequence[Any])

SLICE_ROWS = 1_000
SLICE_BYTES = 262_144  # of text; the row that exceeds it is the slice's last
_CACHE_KB = 1_024
# Each has three descriptors, a cache and a thread for a while.
MOST_VIEWS = 16
MOST_VIEWS_EACH = 4
WAIT_SECONDS = 10.0

_CLOSED = "This file was closed; try again."

# A list, as its rows in order.
Listing = Callable[Concatenate[Connection, P], Iterator[Row]]


def few(
    connection: Connection, unit: Listing[P, Row], /, *args: P.args, **kwargs: P.kwargs
) -> list[Row] | None:
    """The rows of a list that fits into one slice, None of a longer one: a unit of work."""
    with closing(_rows(unit(connection, *args, **kwargs))) as rows:
        found = _slice(rows)
        return None if next(rows, None) is not None else found


class View:
    """An open view of a namespace's file. Of no use after `close`, which may be called again.

    Reading in it takes turns of `deadline`.
    """

    def __init__(
        self,
        path: Path | str,
        deadline: Deadline,
        *,
        namespace_id: str,
        clock: Clock,
        frozen: bool,
    ) -> None:
        self._open = partial(_open, path, namespace_id, clock, frozen)
        self._deadline = deadline
        self._connection: Connection | None = None
        self._turn: Turn | None = None
        self._cut = False
        self._one = asyncio.Lock()  # the connection is for one thread at a time

    async def slices(
        self, unit: Listing[P, Row], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[list[Row]]:
        """The rows of a list, slice by slice.

        Raises `Closed` once the file is removed, and what ends the deadline.
        """
        found = await self._run(lambda connection: _rows(unit(connection, *args, **kwargs)))
        with closing(found) as rows:
            while part := await self._run(lambda _: _slice(rows)):
                yield part

    def cut(self) -> None:
        """End what is being read, and let nothing more be read."""
        self._cut = True
        if self._turn is not None:
            self._turn.end(Closed(_CLOSED))

    async def close(self) -> None:
        """Let go of the file."""
        self._cut = True
        async with self._one:
            if self._connection is not None:
                connection, self._connection = self._connection, None
                await _finished(connection.close)

    async def _run(self, read: Callable[[Connection], T]) -> T:
        async with self._one:
            if self._cut:
                raise Closed(_CLOSED)
            told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._turn = turn = self._deadline.turn(told)
            try:
                if self._connection is None:
                    self._connection = await _finished(self._open)
                work = partial(turn.run, partial(read, self._connection), self._connection)
                return await _finished(work, given_up=turn.forsaken)
            except driver.sqlite3.Error as error:
                raise driver.refusal(error) from error
            finally:
                self._turn = None
                turn.close()
                if told.done():  # what it was told has been raised
                    told.exception()


class Gate:
    """Who may have a view: so many at once in all, so many for each tenant; others wait a while."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(MOST_VIEWS)
        self._each: dict[str, tuple[asyncio.Semaphore, int]] = {}

    @asynccontextmanager
    async def opened(self, tenant_id: str) -> AsyncIterator[None]:
        """A place. Raises `Unavailable` where none was free in time."""
        own, waiting = self._each.get(tenant_id, (asyncio.Semaphore(MOST_VIEWS_EACH), 0))
        self._each[tenant_id] = own, waiting + 1
        try:
            async with AsyncExitStack() as places:
                try:
                    async with asyncio.timeout(WAIT_SECONDS):
                        await places.enter_async_context(own)
                        await places.enter_async_context(self._all)
                except TimeoutError:
                    raise Unavailable(
                        "Too many long lists are being read at once; try again, or page through "
                        "this one with limit."
                    ) from None
                yield
        finally:
            own, waiting = self._each.pop(tenant_id)
            if waiting > 1:
                self._each[tenant_id] = own, waiting - 1


async def _finished(
    work: Callable[[], T], *, given_up: Callable[[asyncio.Future[Any]], None] | None = None
) -> T:
    """Run `work` on a thread, and go on only when it has ended, also where nobody waits any more.

    The connection belongs to one thread at a time. `given_up` is told of a future cancelled.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work))
    waiting = asyncio.shield(task)
    if given_up is not None:
        waiting.add_done_callback(given_up)
    try:
        return await waiting
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _open(path: Path | str, namespace_id: str, clock: Clock, frozen: bool) -> Connection:
    try:
        connection = driver.connect(path, clock=clock, read_only=True, frozen=frozen)
    except driver.sqlite3.Error as error:
        raise driver.refusal(error) from error
    connection.namespace_id = namespace_id
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KB}")
    connection.execute("BEGIN")  # the first statement that reads fixes the moment
    return connection


def _rows(found: Iterator[Row]) -> Generator[Row, None, None]:
    """The same as a generator, which can be closed."""
    yield from found


def _slice(rows: Iterator[Row]) -> list[Row]:
    found: list[Row] = []
    size = 0
    for row in rows:
        found.append(row)
        size += sum(len(part) for part in row if isinstance(part, str | bytes))
        if len(found) >= SLICE_ROWS or size >= SLICE_BYTES:
            break
    return found
