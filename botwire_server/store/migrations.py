"""The schemas, as ordered steps; a file's `user_version` counts the steps it has taken.

A step is a text of SQL of its own (`steps/`). Once released it is never changed, white space and
all: what comes later is one more.

Each step and the record of it are one transaction, re-checked once the lock is held, so two
processes that open an old file at once do the step once. A file this code does not understand
(newer, empty, no database, another kind of file) is refused and never written to.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from botwire_server.errors import Damaged
from botwire_server.store import driver
from botwire_server.store.driver import Connection, sqlite3


@dataclass(frozen=True)
class Schema:
    """A kind of file: its mark in the header, its journal, and the steps that make it."""

    name: str
    application_id: int
    journal: str
    steps: Sequence[Sequence[str]]


def statements(text: str) -> Iterator[str]:
    """The SQL statements of a step, each as it is stored in the file it makes."""
    statement = ""
    for line in text.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement.strip().removesuffix(";")
            statement = ""
    if statement.strip():
        raise ValueError("a step ends within a statement")


def _steps(name: str) -> tuple[tuple[str, ...], ...]:
    """The steps of a kind of file, from `steps/NAME/1.sql` on: frozen texts that nothing shares."""
    directory = resources.files("botwire_server.store") / "steps" / name
    count = sum(file.name.endswith(".sql") for file in directory.iterdir())
    return tuple(
        tuple(statements((directory / f"{number}.sql").read_text("utf-8")))
        for number in range(1, count + 1)
    )


NAMESPACE = Schema(
    name="namespace",
    application_id=0x62776E73,  # "bwns"
    journal="WAL",
    steps=_steps("namespace"),
)

CONTROL = Schema(
    name="control",
    application_id=0x62776374,  # "bwct"
    # The command line and the server both write it; see `driver.SHARED_WAL`.
    journal="WAL" if driver.SHARED_WAL else "DELETE",
    steps=_steps("control"),
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
