"""Deadlines: how long a read may take, and who else may end it.

A read has some seconds of its own, which is what it computes, and may wait as long for its turn.
Past the first it asks for too much; past the second the server is busy. Once it has its turn, a
core, the interpreter's lock or the disk may keep it waiting some times as long. It is ended as well
by whoever knows that nobody waits for it any more, or that its file goes.

A statement of SQLite is ended by `interrupt`, which it looks at from row to row and which costs
nothing while nobody calls it: a progress handler has to win the interpreter's lock each time. Our
own loops over rows ask `Connection.look`. All but `Turn.run` belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from botwire_server.errors import Busy, Closed, TooExpensive
from botwire_server.store.driver import Connection, sqlite3

T = TypeVar("T")

# How many times longer than it may compute a turn may last where others keep it from computing.
SLOWED = 4

# What a read may take where nobody says otherwise.
READ_SECONDS = 5

# How often the open reads are looked at, and one that was ended while it ran is told again: between
# two statements nobody hears an interrupt.
LOOK_EVERY = 0.05


class Readers:
    """The reads of one data directory that are on their way; each may take `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.stopped: Exception | None = None
        self._open: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None

    def stop(self, error: Exception) -> None:
        """End all that are on their way, and let none begin."""
        self.stopped = error
        for deadline in list(self._open):
            deadline.end(error)

    def _add(self, deadline: Deadline) -> None:
        self._open.add(deadline)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look)

    def _remove(self, deadline: Deadline) -> None:
        self._open.discard(deadline)

    def _look(self) -> None:
        self._timer = None
        for deadline in list(self._open):
            deadline.look()
        if self._open:
            self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY, self._look)


class Deadline:
    """What one request may read for, in as many turns as it needs.

    `seconds` of None are those of all `readers`.
    """

    __slots__ = (
        "_ended",
        "_files",
        "_opened",
        "_own",
        "_ran",
        "_readers",
        "_seconds",
        "_spent",
        "_turns",
    )

    def __init__(self, readers: Readers, seconds: float | None = None) -> None:
        self._readers = readers
        self._seconds = readers.seconds if seconds is None else seconds
        self._ended: Exception | None = None
        self._turns: tuple[Turn, ...] = ()  # those that are open
        self._opened = 0.0  # when the first of them was
        self._own = 0.0  # computed, in turns that are closed
        self._ran = 0.0  # and how long those ran
        self._spent = 0.0  # while a turn was open, before the present ones
        self._files = 0

    def turn(self, future: asyncio.Future[Any]) -> Turn:
        """A turn, to be closed: it ends with `future`, and where it is ended the future hears why.

        It may wait in a queue until `run`. Raises what has ended the deadline.
        """
        ended = self._ended or self._readers.stopped
        if ended is not None:
            raise ended
        turn = Turn(self, future)
        future.add_done_callback(turn.forsaken)
        if not self._turns:
            self._opened = time.monotonic()
            self._readers._add(self)
        self._turns += (turn,)
        return turn

    def opened(self, seconds: float) -> None:
        """Say that a file had to be opened for it, and how long that took.

        Who waits for one waits for the disk; who asks for many asks for much.
        """
        self._files += 1
        if self._files > 1:
            self._own += seconds
            if self._own >= self._seconds:
                self.end(TooExpensive(self._seconds))

    def end(self, error: Exception) -> None:
        """Let no turn go on, nor another begin."""
        if self._ended is None:
            self._ended = error
        for turn in self._turns:
            turn.end(error)

    def look(self) -> None:
        """End it if it is due."""
        own, ran = self._own, self._ran
        for turn in self._turns:
            computed, lasted = turn.times
            own += computed
            ran += lasted
        waited = self._spent + time.monotonic() - self._opened - ran
        most = self._seconds
        if self._ended is not None:
            self.end(self._ended)
        elif own >= most or (ran >= SLOWED * most and own >= most / 2):
            self.end(TooExpensive(most))
        elif waited >= most or ran >= SLOWED * most:
            self.end(Busy(f"Others kept this read waiting for {most:g} s; try again."))
        else:
            for turn in self._turns:
                if turn.error is not None:  # ended alone, and did not hear it
                    turn.end(turn.error)

    def _close(self, turn: Turn) -> None:
        if turn not in self._turns:
            return
        own, ran = turn.times
        self._own += own
        self._ran += ran
        self._turns = tuple(each for each in self._turns if each is not turn)
        if not self._turns:
            self._spent += time.monotonic() - self._opened
            self._readers._remove(self)


class Turn:
    """One piece of a read: what a thread does for it without a break. `error` is what ended it."""

    __slots__ = (
        *("_began", "_clock", "_connection", "_deadline", "_lock", "_own", "_ran"),
        *("_began_at", "_future", "error"),
    )

    def __init__(self, deadline: Deadline, future: asyncio.Future[Any]) -> None:
        self._deadline = deadline
        self._future = future
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._own = 0.0
        self._ran = 0.0
        self._clock: int | None = None  # of the thread that runs it
        self._began = 0.0  # on that clock
        self._began_at = 0.0
        self.error: Exception | None = None

    @property
    def times(self) -> tuple[float, float]:
        """Seconds that it has computed, and that it has run."""
        with self._lock:
            if self._clock is None:
                return self._own, self._ran
            return self._computed(self._clock), self._ran + time.monotonic() - self._began_at

    def _computed(self, clock: int) -> float:
        return self._own + _time(clock) - self._began

    def run(self, unit: Callable[[], T], connection: Connection | None = None) -> T:
        """Do it, on any thread; may be called again. Raises what has ended it.

        `connection` is what the unit asks, and nobody else meanwhile.
        """
        with self._lock:
            if self.error is not None:
                raise self.error
            clock = self._clock = _own_clock()
            self._began, self._began_at = _time(clock), time.monotonic()
            self._connection = connection
        if connection is not None:
            connection.turn = self
        try:
            return unit()
        except sqlite3.OperationalError:
            if self.error is None:
                raise
        finally:
            if connection is not None:
                connection.turn = None
            with self._lock:
                self._connection = None
                self._own = self._computed(clock)
                self._ran += time.monotonic() - self._began_at
                self._clock = None
        # Not in the handler: what hangs on its error are statements that are not at their end, and
        # while there are such an interrupt holds for every other one.
        raise self.error

    def look(self) -> None:
        """Raise what has ended it; for loops over rows."""
        if self.error is not None:
            raise self.error

    def end(self, error: Exception) -> None:
        """Let it not go on; whoever waits for it is told at once."""
        if self.error is None:
            self.error = error
            if not self._future.done():
                self._future.set_exception(error)
        with self._lock:
            if self._connection is not None:
                self._connection.interrupt()

    def forsaken(self, future: asyncio.Future[Any]) -> None:
        """End it if the future was cancelled: nobody waits for it."""
        if future.cancelled():
            self.end(Closed("Nobody waits for this any more."))

    def close(self) -> None:
        """It is over; safe to repeat."""
        self._deadline._close(self)


def _own_clock() -> int:
    """The clock that stands while the calling thread waits, for anybody who asks."""
    try:
        return time.pthread_getcpuclockid(threading.get_ident())
    except AttributeError:  # macOS: there what it waits for counts as its own
        return time.CLOCK_MONOTONIC


_time = time.clock_gettime
