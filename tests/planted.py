"""Copies of the package with a fault planted in them: a guard that cannot fail guards nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

from serving import PACKAGE_ROOT


def planted(directory: Path, module: str, line: str, replacement: str) -> Path:
    """Copy the package to `directory` with `line` of `module` replaced; where to run it from."""
    root = directory / "planted"
    shutil.copytree(
        PACKAGE_ROOT / "botwire_server",
        root / "botwire_server",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    path = root / "botwire_server" / module
    text = path.read_text()
    assert text.count(line) == 1, f"{module} has {text.count(line)} times: {line}"
    path.write_text(text.replace(line, replacement))
    return root
