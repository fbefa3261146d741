"""Keys that lie about in clear, in files of any kind.

The one place where a key is shown is the start of a server that made the first; those lines are
left out.
"""

from __future__ import annotations

import re
from pathlib import Path

from tenancy import KEY_SHAPE

from botwire_server.store import keys

SHAPE = re.compile(KEY_SHAPE.encode())
# What a server prints, and no log: serving.Server writes it to out-N.txt.
BANNER = re.compile(r"out-[0-9]+\.txt")


def keys_in(directory: Path) -> list[str]:
    """Every place below `directory` that holds a key."""
    found = []
    for path in directory.rglob("*"):
        if path.is_symlink() or not path.is_file() or BANNER.fullmatch(path.name):
            continue
        for match in SHAPE.finditer(path.read_bytes()):
            # A true key, not a text of this shape.
            if keys.public_id(match[0].decode()) is not None:
                found.append(f"{path.relative_to(directory)}: {match[0][:16].decode()}...")
    return found
