"""Schema steps, and files that this code must not touch."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import httpx
import pytest
from serving import PACKAGE_ROOT, environment, namespace_files

from botwire_server.errors import Damaged
from botwire_server.store import checking, entries, episodes, memories, states
from botwire_server.store.driver import connect, sqlite3
from botwire_server.store.migrations import NAMESPACE, Schema, migrate, template, write_new

FIRST = ("CREATE TABLE notes (text TEXT)",)
SECOND = ("CREATE TABLE more (text TEXT)", "INSERT INTO notes VALUES ('second')")
THIRD = ("INSERT INTO more VALUES ('third')",)

ONE = Schema("test", 0x74657374, "WAL", (FIRST,))
THREE = replace(ONE, steps=(FIRST, SECOND, THIRD))


@pytest.fixture
def path(tmp_path):
    """A file that has taken the first step."""
    path = tmp_path / "file.db"
    write_new(path, template(ONE, tmp_path))
    return path


def contents(path) -> tuple[int, list[str]]:
    with closing(connect(path)) as connection:
        [version] = connection.execute("PRAGMA user_version").fetchone()
        notes = connection.execute("SELECT text FROM notes UNION ALL SELECT text FROM more")
        return version, [text for [text] in notes]


def test_the_steps_that_are_lacking_are_taken_once(path):
    with closing(connect(path)) as connection:
        migrate(connection, THREE)
        migrate(connection, THREE)
    assert contents(path) == (3, ["second", "third"])


def test_a_new_file_has_taken_every_step(tmp_path):
    path = tmp_path / "new.db"
    write_new(path, template(THREE, tmp_path))
    assert contents(path) == (3, ["second", "third"])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new.db"]


def test_a_step_that_fails_is_undone_whole(path):
    broken = replace(ONE, steps=(FIRST, SECOND, (*THIRD, "nonsense")))
    with closing(connect(path)) as connection:
        with pytest.raises(sqlite3.OperationalError):
            migrate(connection, broken)
        assert not connection.in_transaction
    assert contents(path) == (2, ["second"])
    with closing(connect(path)) as connection:
        migrate(connection, THREE)
    assert contents(path) == (3, ["second", "third"])


MIGRATE = """
import sys
from pathlib import Path
from botwire_server.store.driver import connect
from botwire_server.store.migrations import Schema, migrate

schema = Schema("test", 0x74657374, "WAL", eval(sys.argv[2]))
connection = connect(Path(sys.argv[1]))
print("ready", flush=True)
migrate(connection, schema)
connection.close()
"""


def migrating(path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MIGRATE, str(path), repr(THREE.steps)],
        env=environment(PYTHONPATH=str(PACKAGE_ROOT)),
        stdout=subprocess.PIPE,
        text=True,
    )


def test_the_version_is_checked_again_once_the_lock_is_held(path):
    """The other process has seen version 1 and waits for the lock while we take the steps."""
    with closing(connect(path)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with migrating(path) as other:
            assert other.stdout.readline() == "ready\n"
            time.sleep(0.3)
            for step in THREE.steps[1:]:
                for statement in step:
                    connection.execute(statement)
            connection.execute("PRAGMA user_version = 3")
            connection.execute("COMMIT")
            assert other.wait(30) == 0
    assert contents(path) == (3, ["second", "third"])


def test_two_processes_at_once_take_every_step_once(path):
    processes = [migrating(path) for _ in range(2)]
    for process in processes:
        with process:
            assert process.wait(30) == 0
    assert contents(path) == (3, ["second", "third"])


def newer(content: bytes, path) -> bytes:
    path.write_bytes(content)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(NAMESPACE.steps) + 1}")
        connection.execute("PRAGMA journal_mode = DELETE")
    return path.read_bytes()


def other_kind(content: bytes, path) -> bytes:
    path.write_bytes(content)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA application_id = 1")
        connection.execute("PRAGMA journal_mode = DELETE")
    return path.read_bytes()


def without_schema(content: bytes, path) -> bytes:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE something (else_)")
    return path.read_bytes()


DAMAGES = {
    "newer": newer,
    "zero-length": lambda content, path: b"",
    "garbage": lambda content, path: b"this is no database. " * 1_000,
    "short garbage": lambda content, path: b"\x00",
    "another kind of file": other_kind,
    "somebody else's database": without_schema,
    "cut off": lambda content, path: content[:5_000],
    "header overwritten": lambda content, path: b"\x00" * 100 + content[100:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_we_do_not_understand_is_left_as_it_is_and_others_go_on(make_server, damage):
    server = make_server()
    with httpx.Client(timeout=30) as client:
        client.put(f"{server.url}/memory/bad/k", json={"value": "v"})
        client.put(f"{server.url}/memory/good/k", json={"value": "v"})
        server.stop()
        [file] = [file for file in namespace_files(server.data) if file.name.startswith("bad-")]
        file.write_bytes(DAMAGES[damage](file.read_bytes(), file))
        before = file.read_bytes()
        server.start()
        for method, path, body in [
            ("GET", "/memory/bad/k", None),
            ("GET", "/memory/bad", None),
            ("PUT", "/memory/bad/k", {"value": "w"}),
            ("DELETE", "/memory/bad/k", None),
        ]:
            answer = client.request(method, server.url + path, json=body)
            assert answer.status_code == 503, (method, path, answer.text)
            assert set(answer.json()) == {"detail"}
            assert str(server.data) not in answer.text
        assert client.put(f"{server.url}/memory/good/k", json={"value": "w"}).status_code == 200
        assert client.get(f"{server.url}/memory/good/k").json()["value"] == "w"
        server.stop()
    assert file.read_bytes() == before


def test_the_message_says_which_remedy(path):
    with closing(connect(path)) as connection:
        migrate(connection, THREE)
        with pytest.raises(Damaged, match="newer"):
            migrate(connection, ONE)


def test_a_missing_file_is_503_and_not_an_empty_list(make_server):
    server = make_server()
    httpx.put(f"{server.url}/memory/ns/k", json={"value": "v"})
    server.stop()
    [file] = namespace_files(server.data)
    file.unlink()
    server.start()
    for path in ("/memory/ns", "/memory/ns/k"):
        answer = httpx.get(server.url + path)
        assert answer.status_code == 503
        assert "missing" in answer.json()["detail"]
    assert httpx.put(f"{server.url}/memory/ns/k", json={"value": "v"}).status_code == 503
    assert not file.exists()
    assert httpx.delete(f"{server.url}/memory/ns?confirm=ns").status_code == 200
    assert httpx.put(f"{server.url}/memory/ns/k", json={"value": "v"}).status_code == 200


def test_rows_from_before_there_were_checksums_move_and_are_counted_on(tmp_path):
    path = tmp_path / "old.db"
    write_new(path, template(replace(NAMESPACE, steps=NAMESPACE.steps[:2]), tmp_path))
    large = b'"' + b"v" * 20_000 + b'"'
    with closing(connect(path)) as connection:
        connection.execute("UPDATE totals SET revision = 2")
        connection.executemany(
            "INSERT INTO entries (revision, key, value, bytes, created_at, updated_at, expires_at)"
            " VALUES (?, ?, ?, ?, 1, 2, ?)",
            [(1, "small", b"1", 1, None), (2, "large", large, 20_000, 9e9)],
        )
        connection.execute(
            "INSERT INTO states (session_id, data, version, bytes, created_at, updated_at)"
            " VALUES ('s', ?, 7, ?, 1, 2)",
            (large, len(large)),
        )
        connection.execute(
            "INSERT INTO episodes (id, session_id, type, content, metadata, bytes, created_at)"
            " VALUES (5, 's', 'action', x'31', x'7b7d', 3, 1)"
        )
        connection.execute("INSERT INTO episode_text (rowid, text) VALUES (5, '1')")
        connection.execute(
            "INSERT INTO memories (id, collection, content, metadata, same, bytes, created_at,"
            " updated_at) VALUES (9, 'c', 'text', '{}', x'00', 6, 1, 2)"
        )
        before = connection.execute("SELECT * FROM totals").fetchall()
        migrate(connection, NAMESPACE)
        assert connection.execute("SELECT * FROM totals").fetchall() == before
        assert list(checking.namespace(connection)) == []
        found = entries.get(connection, "large")
        assert (found.value, found.size, found.expires_at) == (large, 20_000, 9e9)
        state = states.get(connection, "s")
        assert (state.data, state.version) == (large, 7)
        assert memories.get(connection, 9).content == "text"
        [episode] = episodes.listing(connection)
        assert (episode.id, episode.content) == (5, b"1")
        # Everything that counts and indexes goes on.
        entries.delete(connection, "large")
        states.delete(connection, "s")
        episodes.append(connection, "s", "action", b"2", b"{}", "2")
        memories.delete(connection, 9)
        assert list(checking.namespace(connection)) == []
        fresh = tmp_path / "fresh.db"
        write_new(fresh, template(NAMESPACE, tmp_path))
        with closing(connect(fresh)) as other:
            names = "SELECT type, name, tbl_name FROM sqlite_master ORDER BY 1, 2"
            assert connection.execute(names).fetchall() == other.execute(names).fetchall()
