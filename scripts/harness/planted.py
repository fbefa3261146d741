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


def plant(fault: Fault, directory: Path, *, package: Path = CHECKOUT) -> Path:
    """Copy the package into `directory` with `fault` in it; returns what to put on the path.

    Raises `LookupError` where the code is not there: it has changed, and the fault must be written
    anew.
    """
    shutil.copytree(
        package / "botwire_server",
        directory / "botwire_server",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    file = directory / "botwire_server" / fault.file
    source = file.read_text()
    if source.count(fault.code) != 1:
        raise LookupError(f"the planted fault does not fit {fault.file} any more: write it anew")
    file.write_text(source.replace(fault.code, fault.instead))
    return directory
