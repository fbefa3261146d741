"""Going on with a file that lost its journal, where there is no backup to restore it from.

The operator decides: what the file lacks is given up for good. Its revision moves on beyond what
was noted and what may have been written after that, so that none is ever used twice: a backup takes
a file of a revision that it has for unchanged.
"""

from __future__ import annotations

from botwire_server.store import chores
from botwire_server.store.directory import DataDirectory
from botwire_server.store.driver import Connection
from botwire_server.store.rows import NamespaceRow

# More than a file is written to between two notes.
AHEAD = 1_000_000

ACCEPTED, NOTHING = "accepted", "nothing to accept"


async def accept(directory: DataDirectory, row: NamespaceRow, progress: chores.Progress) -> str:
    """The chore: take a namespace's file as it is. Raises `Damaged` if it is no file of its own."""
    noted = directory.registry.noted_revision(row)
    async with directory.pool.opened_as_it_is(row) as namespace:
        behind = (namespace.outlook.revision or 0) < noted
        if behind:
            await namespace.transact(_go_on_from, noted + AHEAD)
        await directory.registry.note([(row, namespace.totals, namespace.outlook)])
    return ACCEPTED if behind else NOTHING


def _go_on_from(connection: Connection, revision: int) -> None:
    connection.execute("UPDATE totals SET revision = max(revision, ?)", (revision,))
