"""The machine that figures come from."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.files import versions


@dataclass(frozen=True)
class Machine:
    """What a figure depends on besides the code."""

    cpu: str
    cores: int
    memory_gb: float
    kernel: str
    filesystem: str
    python: str
    sqlite: str
    sqlite_vec: str

    def __str__(self) -> str:
        return (
            f"{self.cpu}, {self.cores} cores, {self.memory_gb:.0f} GB, {self.kernel}, "
            f"{self.filesystem}, Python {self.python}, SQLite {self.sqlite}"
        )

    def json(self) -> dict[str, object]:
        """All of it, for machines."""
        return asdict(self)


def machine(directory: Path) -> Machine:
    """This one; `directory` is where the files lie that are measured."""
    sqlite, sqlite_vec = versions()
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_gb=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        kernel=f"{platform.system()} {platform.release()}",
        filesystem=_filesystem(directory),
        python=platform.python_version(),
        sqlite=sqlite,
        sqlite_vec=sqlite_vec,
    )


def _cpu() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _filesystem(directory: Path) -> str:
    """The type of the filesystem, of which "tmpfs" would make every commit free."""
    best, kind = "", "?"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mounted_on, type_, *_ = line.split()
        if directory.resolve().is_relative_to(mounted_on) and len(mounted_on) >= len(best):
            best, kind = mounted_on, type_
    return kind
