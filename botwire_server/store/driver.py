"""Which `sqlite3` there is, and how a connection of ours is set up.

Many Pythons are built without `enable_load_extension`, so the standard module cannot load
sqlite-vec there. `pysqlite3` has it and brings a current SQLite: it is taken where installed.
"""

from __future__ import annotations

import errno
import importlib.util
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from botwire_server.errors import Damaged, StorageFull, Unavailable, Unusable

if TYPE_CHECKING:
    import sqlite3 as sqlite3
else:
    try:
        import pysqlite3.dbapi2 as sqlite3
    except ImportError:
        import sqlite3 as sqlite3

log = logging.getLogger(__name__)

Durability = Literal["full", "relaxed"]


class Turn(Protocol):
    """What a connection knows of the read that has it; see `deadlines`."""

    def look(self) -> None:
        """Raise what has ended it."""


Clock = Callable[[], float]

# octet_length() came with it; FTS5 has erased for good (`secure-delete`) since 3.42.
OLDEST = (3, 43, 0)
# Before this, two connections writing one WAL file can corrupt it.
SHARED_WAL = sqlite3.sqlite_version_info >= (3, 51, 3)

BUSY_TIMEOUT_MS = 5_000
# A connection may keep so much of its file in memory, and all of them together so much: beyond
# that each goes on with the pages it has. A search over 10,000 memories reads about 10 MB.
CACHE_KB = 16_384
ALL_CACHES_BYTES = 96 * 1024 * 1024


def _sqlite_vec() -> str:
    """The path of sqlite-vec's library. Its package is not imported: that would load numpy."""
    found = importlib.util.find_spec("sqlite_vec")
    return "" if found is None or found.origin is None else str(Path(found.origin).parent / "vec0")


_EXTENSION = _sqlite_vec()


class Connection(sqlite3.Connection):
    """A connection that knows the time and what it left behind.

    `leftovers` is set by units of work that delete or overwrite: what they removed lies in the
    WAL until the next truncating checkpoint. `doubtful` is set while what was committed may not
    be on the disk, `frozen` where it was opened so. `namespace_id` is the registry's name of the
    file, `seen` what was looked at when it was opened. `turn` is the read that has it,
    `longest` how many bytes of one row may be read where it is used just now.
    """

    clock: Clock = staticmethod(time.time)
    leftovers: bool = False
    doubtful: bool = False
    frozen: bool = False
    namespace_id: str = ""
    seen: Any = None
    turn: Turn | None = None
    longest: int = sys.maxsize

    @property
    def now(self) -> float:
        """Unix seconds."""
        return self.clock()

    def look(self) -> None:
        """Raise what has ended the read that has the connection: for loops over many rows."""
        if self.turn is not None:
            self.turn.look()


def require_driver() -> None:
    """Make sure that sqlite-vec loads; raise `Unusable` with the remedy where it cannot."""
    if not hasattr(sqlite3.Connection, "enable_load_extension"):
        raise Unusable(
            "This Python's sqlite3 cannot load extensions: run `pip install pysqlite3`, or use a "
            "Python built with --enable-loadable-sqlite-extensions (Debian's python3 is)."
        )
    if sqlite3.sqlite_version_info < OLDEST:
        raise Unusable(
            f"SQLite {'.'.join(map(str, OLDEST))} or newer is needed and this Python has "
            f"{sqlite3.sqlite_version}: run `pip install pysqlite3`, or use a newer Python image."
        )
    try:
        connect(":memory:").close()
    except (sqlite3.Error, OSError) as error:
        raise Unusable(
            "sqlite-vec does not load on this machine: reinstall it with "
            "`pip install --force-reinstall 'sqlite-vec>=0.1.9,<0.1.10'`."
        ) from error


def connect(
    path: Path | str,
    *,
    durability: Durability = "full",
    clock: Clock = time.time,
    read_only: bool = False,
    frozen: bool = False,
) -> Connection:
    """Open `path` in autocommit mode, usable from any one thread at a time.

    A file that does not exist is an error, never created (":memory:" aside): creating is
    `migrations.create`'s business. A `frozen` one reads the file as it is, and makes nothing beside
    it: right only where nobody writes to it, and no journal holds more.
    """
    if path == ":memory:":
        uri = "file::memory:"
    else:
        # as_uri quotes `?`, `#` and `%`, which SQLite would read as parameters.
        uri = f"{Path(path).absolute().as_uri()}?mode={'ro' if read_only or frozen else 'rw'}"
        if frozen:
            uri += "&immutable=1"
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, check_same_thread=False, factory=Connection
    )
    try:
        connection.clock = clock
        connection.frozen = frozen
        # First: every later pragma may have to wait for another process.
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KB}")
        connection.execute(f"PRAGMA soft_heap_limit = {ALL_CACHES_BYTES}")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.enable_load_extension(True)
        connection.load_extension(_EXTENSION)
        connection.enable_load_extension(False)
    except BaseException:
        connection.close()
        raise
    return connection


def refusal(error: sqlite3.Error) -> Unavailable:
    """What a caller is told about an error of SQLite; the cause goes to the log."""
    code = getattr(error, "sqlite_errorcode", None)
    text = str(error)
    if is_full(error):
        return StorageFull(FULL)
    # Not "unable to open": a full or failing disk says so too, of a journal that it cannot make.
    if (code is not None and code & 0xFF in _DAMAGED_CODES) or any(
        sign in text for sign in _DAMAGED_SIGNS
    ):
        return Damaged(DAMAGED)
    return Unavailable(OUT_OF_SERVICE)


def is_full(error: sqlite3.Error) -> bool:
    """Whether there was no room: then what was to be committed is certainly not there."""
    code = getattr(error, "sqlite_errorcode", None)
    return code == _FULL if code is not None else "disk is full" in str(error)


def error_name(error: sqlite3.Error) -> str:
    """The error without what it may quote from the data."""
    return getattr(error, "sqlite_errorname", None) or type(error).__name__


def disk_refusal(error: OSError) -> Unavailable:
    """What a caller is told about an error of the file system."""
    log.error("disk: %s", errno.errorcode.get(error.errno or 0, type(error).__name__))
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return StorageFull(FULL) if full else Unavailable(OUT_OF_SERVICE)


DAMAGED = (
    "This namespace's file is damaged and was left as it is; the operator can restore it from a "
    "backup."
)
OUT_OF_SERVICE = (
    "The server's disk does not take this right now. It counts as not stored; try again later."
)
FULL = "The server's disk is full. Nothing was stored; try again when its operator has made room."
_FULL = 13  # SQLITE_FULL
_DAMAGED_CODES = {11, 26}  # SQLITE_CORRUPT, SQLITE_NOTADB
_DAMAGED_SIGNS = ("malformed", "not a database", "no such table", "decode to UTF-8")
