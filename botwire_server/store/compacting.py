"""Giving room back that deleted things left in a namespace's file.

    vec0 made anew          where most of its slots are dead; it frees a chunk only when all are
    FTS5 merged             where its index is in several pieces
    VACUUM INTO a copy      the file written anew without free pages
    copied back             one transaction, through the journal
    WAL cut                 only then the file is smaller

A plain VACUUM builds the new file in memory where SQLite keeps temporary files there, as some
builds do; this takes the same little memory for every size.

Requests to this namespace wait meanwhile, those to others do not. A crash at any point leaves the
file whole: each step is one transaction of SQLite's.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import orjson

from botwire_server.errors import Unavailable
from botwire_server.store import chores, driver, vectors
from botwire_server.store.directory import DataDirectory
from botwire_server.store.driver import Connection
from botwire_server.store.rows import NamespaceRow
from botwire_server.store.staging import staging

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
        await namespace.alone(_write_anew, directory.path)
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


def _write_anew(connection: Connection, data_dir: Path) -> None:
    try:
        with staging(data_dir, "compact") as place:
            copy = place / "copy.db"
            connection.execute("VACUUM INTO ?", (str(copy),))
            with closing(driver.connect(copy)) as source:
                copy.unlink()
                source.backup(connection)
    except OSError as error:
        raise driver.disk_refusal(error) from error
    connection.leftovers = True  # until the WAL is cut


def _size(directory: DataDirectory, row: NamespaceRow) -> int:
    total = 0
    for ending in ("", "-wal"):
        path = directory.path / (row.file + ending)
        total += path.stat().st_size if path.exists() else 0
    return total
