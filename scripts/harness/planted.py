"""Copies of the package with a fault put in: a campaign is worth what it finds in them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from harness import CHECKOUT


@dataclass(frozen=True)
class Fault:
    """A piece of code and what takes its place. `file` is relative to the package."""

    file: str
    code: str
    instead: str


def planted(directory: Path, *faults: Fault, package: Path = CHECKOUT) -> Path:
    """Copy the package into `directory` with the faults in it; returns what to put on the path.

    Raises `LookupError` where the code is not there once: it has changed, and the fault must be
    written anew. (`tests/test_plants.py` says so in a second.)
    """
    shutil.copytree(
        package / "botwire_server",
        directory / "botwire_server",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for fault in faults:
        file = directory / "botwire_server" / fault.file
        source = file.read_text()
        if source.count(fault.code) != 1:
            raise LookupError(f"the fault does not fit {fault.file} any more: write it anew")
        file.write_text(source.replace(fault.code, fault.instead))
    return directory
