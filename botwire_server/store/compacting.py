"""Giving room back that deleted things left in a namespace's file.

    vec0 made anew          where most of its slots are dead; it frees a chunk only when all are
    FTS5 merged             where its index is in several pieces
    VACUUM                  the file written anew without free pages
    WAL cut                 only then the file is smaller

Requests to this namespace wait meanwhile, those to others do not. A crash at any point leaves the
file whole: each step is one transaction of SQLite's.
"""

from __future__ import annotations

import asyncio
import logging
from typing import NamedTuple

import orjson

from botwire_server.errors import Unavailable
from botwire_server.store import chores, vectors
from botwire_server.store.directory import DataDirectory
from botwire_server.store.driver import Connection
from botwire_server.store.registry import NamespaceRow

log = logging.getLogger(__name__)

# Dead slots that vec0 may keep: a chunk's worth, and half of all.
FEW_SLOTS = 256
# A file that has no free page and is at most so large is as small as it can be.
SMALL_BYTES = 262_144

# How often the cut is tried, while somebody reads an older state of the file.
CUT_ATTEMPTS = 100
CUT_PAUSE = 0.05

_INDEXES = ("memory_text", "episode_text")


class Saved(NamedTuple):
    """The bytes of a namespace's file and journal, before and after."""

    before: int
    after: int


async def compact(directory: DataDirectory, row: NamespaceRow, progress: chores.Progress) -> str:
    """The chore: make a namespace's file as small as it can be; `Saved` as JSON."""
    namespace = await directory.pool.open(row)
    before = _size(directory, row)
    await progress(0, before)
    if await namespace.transact(tidy) or await namespace.read(_wasteful):
        await namespace.alone(_vacuum)
    for _ in range(CUT_ATTEMPTS):
        if await namespace.checkpoint():
            break
        await asyncio.sleep(CUT_PAUSE)
    else:
        raise Unavailable(
            "Another process reads the file, which becomes smaller when that is done."
        )
    await progress(before, before)
    return orjson.dumps(Saved(before, _size(directory, row))._asdict()).decode()


def tidy(connection: Connection) -> bool:
    """Rebuild what holds more dead than living things; False if nothing does."""
    changed = False
    [live] = connection.execute("SELECT vectors FROM totals").fetchone()
    dead = vectors.slots(connection) - live
    if dead >= FEW_SLOTS and dead > live:
        vectors.rebuild(connection)
        changed = True
    for index in _INDEXES:
        [pieces] = connection.execute(f"SELECT count(DISTINCT segid) FROM {index}_idx").fetchone()  # noqa: S608
        if pieces > 1:
            connection.execute(f"INSERT INTO {index} ({index}) VALUES ('optimize')")  # noqa: S608
            changed = True
    return changed


def _wasteful(connection: Connection) -> bool:
    [pages, size, free] = connection.execute(
        "SELECT * FROM pragma_page_count, pragma_page_size, pragma_freelist_count"
    ).fetchone()
    return bool(free) or pages * size > SMALL_BYTES


def _vacuum(connection: Connection) -> None:
    connection.execute("VACUUM")


def _size(directory: DataDirectory, row: NamespaceRow) -> int:
    total = 0
    for ending in ("", "-wal"):
        path = directory.path / (row.file + ending)
        total += path.stat().st_size if path.exists() else 0
    return total
