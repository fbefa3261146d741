"""Whether files that were opened by their paths still lie there.

A data directory that is moved, replaced or removed under its server (a lost mount, `mv`, `rm -r`)
leaves it with open files that nobody will find after a restart. What would go into those is
refused, and said aloud once.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from botwire_server.errors import Unavailable

log = logging.getLogger(__name__)

DISPLACED = (
    "The server's data is not where it was any more. It counts as not stored; its operator has to "
    "put it back and start the server anew."
)


class Anchor:
    """Files as they were when they were opened. `rarely` are looked at by `look` only."""

    def __init__(self, *paths: Path, rarely: tuple[Path, ...] = ()) -> None:
        self._name = paths[0]
        self._often = [(os.fspath(path), _identity(os.fspath(path))) for path in paths]
        self._rarely = [(os.fspath(path), _identity(os.fspath(path))) for path in rarely]
        self._missed = False  # one of `rarely`
        self._told = False

    def look(self) -> bool:
        """Whether everything is where it was; the log is told when that changes."""
        self._missed = not all(_identity(path) == known for path, known in self._rarely)
        return self._holds()

    def require(self) -> None:
        """Raise `Unavailable` where something is not where it was."""
        if not self._holds():
            raise Unavailable(DISPLACED)

    def _holds(self) -> bool:
        held = not self._missed
        for path, known in self._often:
            if _identity(path) != known:
                held = False
        if held is self._told:
            self._told = not held
            self._tell(held)
        return held

    def _tell(self, held: bool) -> None:
        if held:
            log.warning("%s is in its place again: it is stored there again", self._name)
            return
        log.critical(
            "%s WAS MOVED, REPLACED OR REMOVED UNDER THIS SERVER: nothing is stored there and "
            "/ready says 503. Stop the server, put the data back (a lost mount, a moved "
            "directory, a removed lock file), and start it again",
            self._name,
        )


def anchor_of(database: Path) -> Anchor:
    """That of an open database: its file, and its journal where it has one."""
    journal = database.with_name(f"{database.name}-wal")
    return Anchor(database, *([journal] if journal.exists() else []))


def _identity(path: str) -> tuple[int, int] | None:
    """Device and inode, by which the system knows a file; None where there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
