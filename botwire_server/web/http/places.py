"""The places of a process: a connection takes a descriptor, and there are only so many.

When they get scarce, connections that rest give theirs back: first those on which nobody with a
key was served, then those that rest longest. A client finds such a connection closed, as it must
expect of any that it keeps.
"""

from __future__ import annotations

import logging
import os
import select
import sys
from asyncio import AbstractEventLoop, Transport
from itertools import islice
from typing import Protocol

from botwire_server.lazy import resource

log = logging.getLogger(__name__)

# The part of the descriptors from which on they are scarce.
SCARCE = 0.9
# Who began to rest only now is about to ask again.
LEAST_REST_SECONDS = 5.0
# How often is looked what else takes descriptors, and said what was done.
LOOK_SECONDS = 1.0


class Resting(Protocol):
    """A connection, as far as its place goes."""

    loop: AbstractEventLoop
    transport: Transport
    resting_since: float
    admitted: bool

    def close(self) -> None: ...


class Places:
    """Who has a place, and who rests. `limit` is the number of descriptors."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._taken = 0
        self._others = 0  # descriptors of files and the rest, at the last look
        self._looked_at = -LOOK_SECONDS
        # Those that rest, the longest first.
        self._strangers: dict[Resting, None] = {}
        self._admitted: dict[Resting, None] = {}
        self._leaving: set[Resting] = set()  # told to go, and not gone yet
        self._waiting = False
        self._closed = 0

    @property
    def limit(self) -> int:
        """How many descriptors there are."""
        if self._limit is not None:
            return self._limit
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return sys.maxsize if soft == resource.RLIM_INFINITY else soft

    def take(self, connection: Resting) -> None:
        """A connection is there."""
        self._taken += 1
        self._relieve(connection.loop)

    def give_back(self, connection: Resting) -> None:
        """It is gone."""
        self._taken -= 1
        self._leaving.discard(connection)
        self.wake(connection)

    def rest(self, connection: Resting) -> None:
        """It waits for a request, from now on."""
        (self._admitted if connection.admitted else self._strangers)[connection] = None

    def wake(self, connection: Resting) -> None:
        """It has one."""
        self._strangers.pop(connection, None)
        self._admitted.pop(connection, None)

    def _relieve(self, loop: AbstractEventLoop) -> None:
        """Let go of as many as are too many."""
        now = loop.time()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            self._others = max(0, descriptors() - self._taken)
        excess = self._taken + self._others - len(self._leaving) - int(SCARCE * self.limit)
        if excess <= 0:
            return
        for resting in (self._strangers, self._admitted):
            for connection in list(islice(resting, excess)):
                if now - connection.resting_since < LEAST_REST_SECONDS:
                    break  # those that follow rest shorter
                if not _speaks(connection):
                    self.wake(connection)
                    self._leaving.add(connection)
                    connection.close()
                    self._closed += 1
                    excess -= 1
        if not self._waiting:
            self._waiting = True
            loop.call_later(LOOK_SECONDS, self._look_again, loop)

    def _look_again(self, loop: AbstractEventLoop) -> None:
        self._waiting = False
        self._relieve(loop)
        if self._closed:
            log.warning(
                "descriptors are scarce: closed %d connections that rested; %d of %d are in use. "
                "Raise the limit of open files (LimitNOFILE=, ulimit -n) if this goes on.",
                self._closed,
                self._taken + self._others,
                self.limit,
            )
            self._closed = 0


def descriptors() -> int:
    """How many descriptors this process has open."""
    try:
        counted = os.stat("/proc/self/fd").st_size  # Linux since 6.2
    except OSError:
        counted = 0
    return counted or len(os.listdir("/dev/fd"))


def _speaks(connection: Resting) -> bool:
    """Whether something has come that nobody has read yet."""
    poll = select.poll()
    poll.register(connection.transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))
