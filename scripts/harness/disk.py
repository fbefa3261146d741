"""disk.c, compiled and loaded into a server: its trace, and the switch that makes calls fail."""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_name("disk.c")

# As in disk.c.
NAMESPACE, JOURNAL, CONTROL, DRAFT, DIRECTORY, SHARED = 1, 2, 4, 8, 16, 32
EVERYTHING = 127
_FAULTS = struct.Struct("<IIIIIIII")
FOR_GOOD = 0xFFFFFFFF


class NoCompiler(Exception):
    """There is no C compiler here."""


def compiled(directory: Path) -> Path:
    """The library, compiled into `directory`. Raises `NoCompiler`."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NoCompiler("A C compiler is needed: on Debian, apt install gcc libc6-dev.")
    library = directory / "disk.so"
    flags = ["-shared", "-fPIC", "-O2", "-ldl", "-lpthread"]
    subprocess.run([compiler, str(SOURCE), "-o", str(library), *flags], check=True)
    return library


def environment(
    library: Path, root: Path, *, trace: Path | None = None, faults: Path | None = None
) -> dict[str, str]:
    """The variables that load the library over `root`."""
    found = {"LD_PRELOAD": str(library), "DISK_ROOT": str(root)}
    if trace is not None:
        found["DISK_TRACE"] = str(trace)
    if faults is not None:
        found["DISK_FAULTS"] = str(faults)
    return found


class Faults:
    """The switch. `path` is the file that is mapped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(_FAULTS.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _FAULTS.size)

    @property
    def hits(self) -> int:
        """The calls that were made to fail since the last `on`."""
        found: int = _FAULTS.unpack(self._map[:])[3]
        return found

    def on(self, *, sync: int = 0, write: int = 0, targets: int = EVERYTHING) -> None:
        """From now on these calls fail with these errors (0: they do not)."""
        self._map[:] = _FAULTS.pack(sync, write, targets, 0, 0, 0, 0, 0)

    def break_at(self, error: int, call: int, lasts: int = 1) -> None:
        """The call of this number under the root fails from now on, and those after it."""
        self._map[:] = _FAULTS.pack(0, 0, EVERYTHING, 0, error, call, lasts, 0)

    @property
    def calls(self) -> int:
        """How many calls there were under the root since it was last set."""
        found: int = _FAULTS.unpack(self._map[:])[7]
        return found

    def off(self) -> None:
        """The disk is well again."""
        self._map[:8] = bytes(8)
        self._map[16:20] = bytes(4)

    @contextmanager
    def during(self, *, sync: int = 0, write: int = 0, targets: int = EVERYTHING) -> Iterator[None]:
        """Calls fail inside the `with` block."""
        self.on(sync=sync, write=write, targets=targets)
        try:
            yield
        finally:
            self.off()
