"""The schemas, as ordered steps; a file's `user_version` counts the steps it has taken.

Each step and the record of it are one transaction, re-checked once the lock is held, so two
processes that open an old file at once do the step once. A file this code does not understand
(newer, empty, no database, another kind of file) is refused and never written to.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from botwire_server.errors import Damaged
from botwire_server.store import driver
from botwire_server.store.driver import Connection, sqlite3
from botwire_server.store.namespace_steps import STEPS


@dataclass(frozen=True)
class Schema:
    """A kind of file: its mark in the header, its journal, and the steps that make it."""

    name: str
    application_id: int
    journal: str
    steps: Sequence[Sequence[str]]


NAMESPACE = Schema(
    name="namespace",
    application_id=0x62776E73,  # "bwns"
    journal="WAL",
    steps=STEPS,
)

_TENANTS = (
    # Once a key was made, keys are required for good: the door does not open when the last tenant
    # is purged.
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    """CREATE TABLE tenants (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        tier TEXT NOT NULL,
        created_at REAL NOT NULL,
        purging_at REAL
    ) WITHOUT ROWID""",
    # An operator's key has no tenant. `hash` is the SHA-256 of the whole key.
    """CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        tenant_id TEXT REFERENCES tenants (id),
        hash BLOB NOT NULL,
        label TEXT NOT NULL,
        scopes TEXT NOT NULL,
        pattern TEXT NOT NULL,
        created_at REAL NOT NULL,
        last_used_at REAL,
        expires_at REAL,
        revoked_at REAL
    ) WITHOUT ROWID""",
    "CREATE INDEX keys_tenant ON keys (tenant_id)",
    """CREATE TABLE namespaces (
        id TEXT PRIMARY KEY,
        tenant_id TEXT NOT NULL REFERENCES tenants (id),
        name TEXT NOT NULL,
        file TEXT NOT NULL,
        created_at REAL NOT NULL,
        sweep_at REAL,
        model TEXT,
        entries INTEGER NOT NULL DEFAULT 0,
        states INTEGER NOT NULL DEFAULT 0,
        memories INTEGER NOT NULL DEFAULT 0,
        episodes INTEGER NOT NULL DEFAULT 0,
        vectors INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0,
        sessions INTEGER NOT NULL DEFAULT 0,
        UNIQUE (tenant_id, name)
    ) WITHOUT ROWID""",
    "CREATE INDEX namespaces_sweep ON namespaces (sweep_at) WHERE sweep_at IS NOT NULL",
)

# A purge is written down before the first file goes; its receipt when the last is gone. Neither
# holds a name: what was purged is known by its ids.
_PURGES = (
    """CREATE TABLE purges (
        id TEXT PRIMARY KEY,
        tenant_id TEXT NOT NULL,
        scope TEXT NOT NULL,
        actor TEXT NOT NULL,
        started_at REAL NOT NULL,
        receipt TEXT
    ) WITHOUT ROWID""",
    "CREATE INDEX purges_due ON purges (started_at) WHERE receipt IS NULL",
    """CREATE TABLE tombstones (
        namespace_id TEXT PRIMARY KEY,
        purge_id TEXT NOT NULL REFERENCES purges (id),
        file TEXT NOT NULL,
        known TEXT NOT NULL,
        held TEXT,
        removed_at REAL
    ) WITHOUT ROWID""",
    "CREATE INDEX tombstones_due ON tombstones (purge_id) WHERE removed_at IS NULL",
)

_ACCOUNTS = (
    """CREATE TABLE calls (
        day INTEGER NOT NULL,
        tenant_id TEXT NOT NULL,
        key_id TEXT NOT NULL,
        calls INTEGER NOT NULL,
        embeddings INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (tenant_id, key_id, day)
    ) WITHOUT ROWID""",
    """CREATE TABLE holdings (
        day INTEGER NOT NULL,
        tenant_id TEXT NOT NULL,
        namespaces INTEGER NOT NULL,
        vectors INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (tenant_id, day)
    ) WITHOUT ROWID""",
    """CREATE TABLE audit (
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        tenant_id TEXT,
        subject TEXT,
        outcome TEXT NOT NULL
    )""",
    "CREATE INDEX audit_tenant ON audit (tenant_id)",
)

# What a command asks the holder of the lock to do.
_CHORES = (
    """CREATE TABLE chores (
        kind TEXT NOT NULL,
        namespace_id TEXT NOT NULL REFERENCES namespaces (id) ON DELETE CASCADE,
        asked_at REAL NOT NULL,
        done INTEGER NOT NULL DEFAULT 0,
        total INTEGER NOT NULL DEFAULT 0,
        outcome TEXT,
        PRIMARY KEY (kind, namespace_id)
    ) WITHOUT ROWID""",
    "CREATE INDEX chores_namespace ON chores (namespace_id)",
)

# The revision that a namespace's file had when it was last noted: a file that is behind it has
# lost its journal. NULL where that was not promised to be on the disk.
_REVISIONS = ("ALTER TABLE namespaces ADD COLUMN revision INTEGER",)

# Files that a restore has replaced: to be removed by the holder of the lock. One without a file
# says only that the tenant's namespaces are others now.
_DISCARDED = (
    """CREATE TABLE discarded (
        id INTEGER PRIMARY KEY,
        tenant_id TEXT NOT NULL,
        file TEXT NOT NULL
    )""",
)

CONTROL = Schema(
    name="control",
    application_id=0x62776374,  # "bwct"
    # The command line and the server both write it; see `driver.SHARED_WAL`.
    journal="WAL" if driver.SHARED_WAL else "DELETE",
    steps=((*_TENANTS, *_PURGES, *_ACCOUNTS, *_CHORES), _REVISIONS, _DISCARDED),
)


def migrate(connection: Connection, schema: Schema) -> None:
    """Take the steps that `connection`'s file lacks, or raise `Damaged` and touch nothing."""
    version = _version(connection, schema)
    while version < len(schema.steps):
        connection.execute("BEGIN IMMEDIATE")
        try:
            version = _version(connection, schema)
            if version < len(schema.steps):
                for statement in schema.steps[version]:
                    connection.execute(statement)
                version += 1
                connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _version(connection: Connection, schema: Schema) -> int:
    """The steps this file has taken, at least one: a file without a schema is damaged."""
    try:
        [application_id] = connection.execute("PRAGMA application_id").fetchone()
        [version] = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError as error:
        raise driver.refusal(error) from error
    if application_id != schema.application_id or version < 1:
        raise Damaged(
            f"A {schema.name} file is empty or is something else: it was left as it is; restore "
            "it from a backup."
        )
    if version > len(schema.steps):
        raise Damaged(
            f"A {schema.name} file was written by a newer botwire-server and was left as it is: "
            "update this one."
        )
    return int(version)


def template(schema: Schema, directory: Path) -> bytes:
    """A fresh file of this kind, as bytes. `directory` is where it is prepared."""
    path = directory / f".template-{schema.name}-{secrets.token_hex(6)}"
    raw = sqlite3.connect(path, isolation_level=None)
    try:
        # It is thrown away if anything fails, so nothing here needs to survive.
        raw.execute("PRAGMA synchronous = OFF")
        raw.execute(f"PRAGMA application_id = {schema.application_id}")
        raw.execute(f"PRAGMA journal_mode = {schema.journal}")
        raw.execute("PRAGMA user_version = 1")
        raw.close()
        connection = driver.connect(path)
        try:
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("BEGIN")
            for statement in schema.steps[0]:
                connection.execute(statement)
            connection.execute("COMMIT")
            migrate(connection, schema)
        finally:
            connection.close()
        return path.read_bytes()
    finally:
        for leftover in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            leftover.unlink(missing_ok=True)


def write_new(path: Path, content: bytes) -> None:
    """Write a file that must not exist yet, and see it on the disk before returning."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.fsync(descriptor)
    except BaseException:
        path.unlink()
        raise
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Make the names in `directory` survive a power loss."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
