"""A time by which something must have happened on a connection."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

_NEVER = math.inf


class Deadline:
    """Calls `too_late` once the time that was set last is over.

    Every request sets it and lifts it again. A timer that is there stays as it is where it rings
    soon enough: to look then what is due costs less than to set one anew.
    """

    __slots__ = ("_due", "_loop", "_rings_at", "_timer", "_too_late")

    def __init__(self, loop: asyncio.AbstractEventLoop, too_late: Callable[[], None]) -> None:
        self._loop = loop
        self._too_late = too_late
        self._due = self._rings_at = _NEVER
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """From now on, so many seconds."""
        self._due = self._loop.time() + seconds
        if self._due < self._rings_at:
            self.cancel()
            self._wind_up()

    def lift(self) -> None:
        """Nothing is expected."""
        self._due = _NEVER

    def cancel(self) -> None:
        """Stop the timer: for the end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self._rings_at = None, _NEVER

    def _wind_up(self) -> None:
        self._rings_at = self._due
        self._timer = self._loop.call_at(self._due, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_at = None, _NEVER
        if self._due == _NEVER:
            return
        # A timer may be early by the tick of its clock.
        if self._due > self._loop.time() + 0.001:
            self._wind_up()
        else:
            self._due = _NEVER
            self._too_late()
