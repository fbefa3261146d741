"""Where a server runs that is asked hostile things, and what of that place must not change."""

from __future__ import annotations

import re
from pathlib import Path

from botwire_server.cli.common import operate
from fuzzing.inputs import EVIL

SECRET = b"what-nobody-may-read-4711"

# What a data directory may hold.
KNOWN = re.compile(
    r"control\.db(-wal|-shm)?|[\w.-]*lock|template[\w.-]*|tenants(/[0-9a-f]{16}"
    r"(/[a-z0-9-]{1,24}-[0-9a-f]+\.db(-wal|-shm|-journal)?)?)?"
)


class Place:
    """A scratch directory with a data directory deep in it, and all else that must not change."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self.data = scratch / "a" / "b" / "c" / "d" / "data"
        self.outside = scratch / "outside"
        for directory in (self.data, self.outside, scratch / "home", scratch / "tmp"):
            directory.mkdir(parents=True)
        (self.outside / "secret.db").write_bytes(SECRET)
        self._before = self._all()

    def _all(self) -> dict[str, tuple[int, int]]:
        found = {}
        for path in self._scratch.rglob("*"):
            if self.data not in (path, *path.parents):
                status = path.lstat()
                changed = 0 if path.is_dir() else status.st_mtime_ns
                found[str(path.relative_to(self._scratch))] = (
                    status.st_size * (not path.is_dir()),
                    changed,
                )
        return found

    def problems(self) -> list[str]:
        """What was made, changed or removed where nothing may be."""
        after = self._all()
        wrong = [
            f"outside the data directory: {name} was made" for name in after.keys() - self._before
        ]
        wrong += [
            f"outside the data directory: {name} was changed or removed"
            for name, what in self._before.items()
            if after.get(name) != what
        ]
        wrong += [
            f"{path} was made" for path in (Path("/tmp") / EVIL, Path("/") / EVIL) if path.exists()
        ]
        for path in sorted(self.data.rglob("*")):
            name = str(path.relative_to(self.data))
            if not KNOWN.fullmatch(name):
                wrong.append(f"in the data directory: {name!r} is nothing of ours")
        return wrong


def prepared(data: Path) -> dict[str, str]:
    """A tenant's key and an operator's."""
    operate(data, None, lambda it: it.create_tenant("fuzz"), make=True)
    return {
        "key": operate(data, None, lambda it: it.create_key("fuzz"))["key"],
        "operator": operate(data, None, lambda it: it.create_key(None))["key"],
    }
