"""The thread of an open file's connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import aiosqlite

from botwire_server.store.driver import Connection
from botwire_server.store.turns import take_long_turns

# aiosqlite logs the function it runs, arguments and all: keys and values must not get there.
logging.getLogger("aiosqlite").setLevel(logging.WARNING)


class Worker(aiosqlite.Connection):
    """aiosqlite's connection thread, with a way in for functions that see the connection.

    The version of aiosqlite is pinned: `_tx`, `_thread` and `_conn` are its private names, and
    the tests of this module fail should they change.
    """

    def __init__(self, connector: Callable[[], Connection]) -> None:
        def begin() -> Connection:
            # What takes long must not keep the event loop from the core that it needs for a moment.
            take_long_turns()
            return connector()

        super().__init__(begin, iter_chunk_size=64)
        # A process that is told to die does not wait for a thread that waits for work.
        self._thread.daemon = True

    @property
    def raw(self) -> Connection:
        """The connection itself; only for who knows that the thread is idle."""
        connection = self._conn
        assert isinstance(connection, Connection)
        return connection

    async def ended(self) -> None:
        """Wait for the thread of one that could not be opened: it has still to tell the loop."""
        await asyncio.to_thread(self._thread.join)

    def post(self, function: Callable[[], None]) -> None:
        """Run `function` on the connection's thread. It must not raise."""
        self._tx.put_nowait((None, function))
