"""Runs last: what all the tests left behind, data directories and logs, holds no key in clear.

The one place where a key is shown is the start of a server that made the first; those lines are
left out.
"""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest
from tenancy import KEY_SHAPE, cli_json

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


def test_no_key_lies_about_in_clear(tmp_path_factory: pytest.TempPathFactory) -> None:
    base = tmp_path_factory.getbasetemp()
    assert keys_in(base) == []


def test_it_would_have_been_found(tmp_path: Path) -> None:
    """In a log, in a database, in a WAL, in an export; and hashes are not taken for keys."""
    made = cli_json(tmp_path / "data", "keys", "create", "--operator")["key"]
    assert keys_in(tmp_path) == []
    (tmp_path / "err-1.txt").write_text(f"info GET /memory Basic {made} 200\n")
    connection = sqlite3.connect(tmp_path / "some.db")
    connection.execute("CREATE TABLE t (x)")
    connection.execute("INSERT INTO t VALUES (?)", (made,))
    connection.commit()
    connection.close()
    assert len(keys_in(tmp_path)) == 2
    # The files of this test are scanned by the test above in later runs of a shared directory.
    (tmp_path / "err-1.txt").unlink()
    (tmp_path / "some.db").unlink()
