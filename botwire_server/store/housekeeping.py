"""What happens by itself while a server runs: counts are noted, what expired or was deleted is
erased, what another process buried is removed, what a command asked for is done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from botwire_server.errors import Refusal
from botwire_server.logs import describe
from botwire_server.store import chores, sweeping
from botwire_server.store.chores import Chore
from botwire_server.store.directory import DataDirectory
from botwire_server.store.driver import Clock

log = logging.getLogger(__name__)

LOOK_EVERY = 1.0
NOTE_EVERY = 1.0
PURGE_EVERY = 0.2
CHORES_EVERY = 0.5
SWEEP_EVERY = 5.0
ERASE_EVERY = 20.0
# Namespaces swept in one go, so that a backlog does not starve requests of open files.
SWEPT_AT_ONCE = 32


class Housekeeping:
    """The background tasks of one data directory. `start` once, `stop` once.

    `can` are the chores that this process knows how to do.
    """

    def __init__(self, directory: DataDirectory, clock: Clock, *, can: Mapping[str, Chore]) -> None:
        self._directory = directory
        self._clock = clock
        self._can = can
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; returns at once."""
        for seconds, work in (
            (LOOK_EVERY, self.look),
            (NOTE_EVERY, self._directory.note_changes),
            (NOTE_EVERY, self._directory.ledger.flush),
            (PURGE_EVERY, self._directory.finish_purges),
            (PURGE_EVERY, self._directory.finish_discards),
            (CHORES_EVERY, lambda: chores.do_due(self._directory, self._can)),
            (SWEEP_EVERY, self.sweep),
            (ERASE_EVERY, self.erase),
        ):
            self._tasks.append(asyncio.create_task(self._repeat(seconds, work)))

    async def stop(self) -> None:
        """Let no task start another round; what they were doing is finished or undone."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def look(self) -> None:
        """See whether the data directory is where it was; the log is told where it is not."""
        await asyncio.to_thread(self._directory.anchor.look)

    async def sweep(self) -> None:
        """Erase what has expired, also in namespaces nobody has open."""
        registry, pool = self._directory.registry, self._directory.pool
        for row in registry.due(self._clock(), SWEPT_AT_ONCE):
            try:
                namespace = await pool.open(row)
                await namespace.delete(sweeping.sweep)
            except Refusal as error:
                log.warning("namespace %s was not swept: %s", row.id, error.message)

    async def erase(self) -> None:
        """Cut the WALs in which deleted things still lie, and those of files that rest.

        A few memories leave a megabyte in the WAL: over many open files more than the files.
        """
        await self._directory.registry.erase_leftovers()
        for id, namespace in self._directory.pool.opened():
            due = namespace.leftovers or (namespace.grown and not namespace.busy)
            if due and not namespace.closing:
                try:
                    await namespace.checkpoint()
                except Refusal as error:
                    log.warning("namespace %s was not checkpointed: %s", id, error.message)

    async def _repeat(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except Refusal as error:
                self._directory.counters.housekeeping_failures += 1
                log.error("housekeeping: %s", error.message)
            except Exception as error:
                # The next round must come whatever happened in this one.
                self._directory.counters.housekeeping_failures += 1
                log.error("housekeeping: %s", describe(error))
