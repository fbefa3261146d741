"""A peer: the plain design of a memory service, FastAPI with sync handlers over one SQLite file.

Each request opens a connection of its own, in a thread; every write waits for the disk.
`python hosted.py PORT FILE` serves it.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from typing import Any

import uvicorn
from fastapi import Body, FastAPI, HTTPException

app = FastAPI()


def _connect() -> sqlite3.Connection:
    return sqlite3.connect(sys.argv[2], timeout=30)


@app.get("/")
def health() -> dict[str, bool]:
    """Whether it serves."""
    return {"ok": True}


@app.put("/memory/{namespace}/{key}")
def put(namespace: str, key: str, body: Any = Body()) -> dict[str, Any]:  # noqa: B008
    """Store a value."""
    with closing(_connect()) as connection, connection:
        connection.execute(
            "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)",
            (namespace, key, json.dumps(body["value"])),
        )
    return {"namespace": namespace, "key": key, "stored": True}


@app.get("/memory/{namespace}/{key}")
def get(namespace: str, key: str) -> dict[str, Any]:
    """The value."""
    with closing(_connect()) as connection:
        row = connection.execute(
            "SELECT value FROM entries WHERE namespace = ? AND key = ?", (namespace, key)
        ).fetchone()
    if row is None:
        raise HTTPException(404)
    return {"namespace": namespace, "key": key, "value": json.loads(row[0])}


if __name__ == "__main__":
    with closing(_connect()) as opened:
        opened.execute("PRAGMA journal_mode = WAL")
        opened.execute("CREATE TABLE entries (namespace, key, value, PRIMARY KEY (namespace, key))")
    uvicorn.run(app, port=int(sys.argv[1]), loop="uvloop", http="httptools", log_level="warning")
