"""Keys that lie about in clear, in files of any kind.

The one place where a key lies is the file that the start of a server writes which made the first.
"""

from __future__ import annotations

import re
from pathlib import Path

from tenancy import KEY_SHAPE

from botwire_server.serve.first_key import NAME as FIRST_KEY
from botwire_server.store import keys

SHAPE = re.compile(KEY_SHAPE.encode())


def keys_in(directory: Path) -> list[str]:
    """Every place below `directory` that holds a key."""
    found = []
    for path in directory.rglob("*"):
        if path.is_symlink() or not path.is_file() or path.name == FIRST_KEY:
            continue
        for match in SHAPE.finditer(path.read_bytes()):
            # A true key, not a text of this shape.
            if keys.public_id(match[0].decode()) is not None:
                found.append(f"{path.relative_to(directory)}: {match[0][:16].decode()}...")
    return found
