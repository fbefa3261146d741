"""What all the tests left behind, data directories and logs, holds no key in clear.

`conftest.pytest_sessionfinish` looks, when the last worker is done; here is that it would see one.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from clear import keys_in
from tenancy import cli_json


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
    # All that the tests left is looked at when they are done.
    (tmp_path / "err-1.txt").unlink()
    (tmp_path / "some.db").unlink()
