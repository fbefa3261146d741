"""`botwire-server check`: beside a server and without one; what it finds, and what it must not."""

from __future__ import annotations

import shutil
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Server, namespace_files, query
from tenancy import cli, cli_json

from botwire_server.store.driver import connect

BEARER = {"Authorization": "Bearer customer-a"}


def fill(server: Server, agent: str, *, count: int = 12) -> None:
    """Some of everything: entries, states, memories with history, episodes."""
    with httpx.Client(base_url=server.url, headers=BEARER, timeout=30) as client:
        for number in range(count):
            value = {"number": number, "text": "v" * 400 * number}
            answers = [
                client.put(f"/memory/{agent}/key-{number}", json={"value": value}),
                client.post(
                    "/v1/state",
                    json={"agent_id": agent, "session_id": f"s{number}", "data": value},
                ),
                client.post(
                    "/v1/memory/semantic",
                    json={"agent_id": agent, "content": f"Order {number} went to Berlin"},
                ),
                client.post(
                    "/v1/memory/semantic",
                    json={
                        "agent_id": agent,
                        "content": f"order {number} went to Berlin.",
                        "metadata": {"again": True},
                    },
                ),
                client.post(
                    "/v1/memory/episodic",
                    json={
                        "agent_id": agent,
                        "session_id": f"s{number}",
                        "type": "conversation",
                        "content": f"Hello number {number}",
                    },
                ),
            ]
            for answer in answers:
                assert answer.is_success, answer.text


def found(data: Path, *more: str) -> list[dict[str, Any]]:
    """What a check finds that makes it fail."""
    report = cli_json(data, "check", *more, expect=1)
    assert not report["ok"]
    return [each for each in report["findings"] if each["level"] != "notice"]


def whole(data: Path, *more: str) -> dict[str, Any]:
    """A check that finds nothing."""
    report = cli_json(data, "check", *more)
    assert report["ok"] and not report["findings"], report
    return dict(report)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A data directory with one tenant and two namespaces, closed in peace."""
    directory = tmp_path_factory.mktemp("filled")
    server = Server(directory).start()
    try:
        for agent in ("one", "other"):
            fill(server, agent)
    finally:
        server.stop()
    return server.data


@pytest.fixture
def data(filled, tmp_path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(filled, tmp_path / "data"))


def file_of(data: Path, namespace: str) -> Path:
    [file] = [file for file in namespace_files(data) if file.name.startswith(f"{namespace}-")]
    return file


def spoil(file: Path, *statements: str) -> None:
    with closing(connect(file)) as connection:
        for statement in statements:
            connection.execute(statement)


def test_whole_without_a_server(data):
    before = sorted(str(path) for path in data.rglob("*"))
    assert whole(data)["namespaces"] == 2
    assert sorted(str(path) for path in data.rglob("*")) == before, "it leaves nothing behind"
    assert "all whole" in cli(data, "check").stdout


def test_whole_beside_a_server(make_server):
    server = make_server()
    fill(server, "one")
    assert whole(server.data)["namespaces"] == 1


def test_whole_after_a_kill(make_server):
    server = make_server()
    fill(server, "one")
    server.kill()
    assert whole(server.data)["namespaces"] == 1


def test_no_alarm_while_namespaces_are_written_made_and_purged(make_server):
    server = make_server()
    over = threading.Event()
    failed: list[str] = []

    def write(number: int) -> None:
        round = 0
        with httpx.Client(base_url=server.url, headers=BEARER, timeout=30) as client:
            while not over.is_set():
                round += 1
                agent = f"a{number}-{round % 7}"
                text = {"agent_id": agent, "content": f"Text {round} of {number}"}
                for answer in (
                    client.put(f"/memory/{agent}/k{round % 5}", json={"value": "v" * round}),
                    client.post("/v1/memory/semantic", json=text),
                ):
                    if not answer.is_success:
                        failed.append(answer.text)
                if round % 6 == 0:
                    client.delete(f"/v1/memory/{agent}")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(6):
            whole(server.data)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not failed


# What is done to a file, and a word of what is found.
DAMAGE = {
    "totals": ("UPDATE totals SET entries = entries + 1", "totals say"),
    "vectors counted": ("UPDATE totals SET vectors = vectors - 1", "vectors"),
    "sessions": ("UPDATE totals SET sessions = sessions + 1", "sessions"),
    "bytes": ("UPDATE totals SET bytes = bytes + 1", "bytes"),
    "owner": ("UPDATE totals SET owner = '000000000000000'", "another namespace"),
    "older": ("UPDATE totals SET revision = revision - 1", "journal is lost"),
    "vec0 lacks one": ("DELETE FROM memory_bits WHERE rowid = 4096", "vec0 holds"),
    "vec0 has another": (
        "UPDATE memory_bits_vector_chunks00 SET vectors = zeroblob(length(vectors))",
        "vec0 searches by",
    ),
    "a vector is garbled": (
        "UPDATE vectors SET embedding = zeroblob(length(embedding)) WHERE id = 4096",
        "vec0 searches by",
    ),
    "a memory lacks its words": (
        "INSERT INTO memory_text (memory_text, rowid, content)"
        " SELECT 'delete', id, content FROM memories WHERE id = 1",
        "index of words",
    ),
    "the words are another's": (
        "UPDATE memory_text_data SET block = zeroblob(length(block)) WHERE id > 10",
        "memory_text",
    ),
    "a memory is another than its words": (
        "DROP TRIGGER memory_text_rewritten; UPDATE memories SET content = 'x' WHERE id = 1",
        "memory_text",
    ),
    "an episode lacks its words": (
        "DELETE FROM episode_text_docsize WHERE id = 1",
        "episodes are not in the index",
    ),
    "an entry is no JSON": ("UPDATE entries SET value = x'7b' WHERE key = 'key-3'", "JSON"),
    "an entry is shorter": ("UPDATE entries SET value = x'31' WHERE key = 'key-3'", "bytes"),
    "a state is no JSON": ("UPDATE states SET data = x'7b' WHERE id = 1", "states"),
    "an episode is no JSON": ("UPDATE episodes SET content = x'7b' WHERE id = 1", "episodes"),
    "history without memory": (
        "UPDATE memory_history SET memory_id = 99 WHERE memory_id = 1",
        "replaced texts",
    ),
    "history with a gap": ("UPDATE memory_history SET revision = 2", "part of their history"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named(data, what):
    statements, word = DAMAGE[what]
    spoil(file_of(data, "one"), *statements.split("; "))
    report = found(data)
    for each in report:
        assert (each["level"], each["namespace"]) == ("damaged", "one"), report
        assert each["tenant"].startswith("sandbox-")
        assert each["file"].endswith(file_of(data, "one").name)
        assert each["remedy"].endswith(".") or "`" in each["remedy"]
    assert any(word in each["problem"] for each in report), report


def test_counters_that_differ_from_the_registry_are_found(data):
    spoil(data / "control.db", "UPDATE namespaces SET memories = 7 WHERE name = 'one'")
    [one] = found(data)
    assert "the registry counts 7 memories instead of 12" in one["problem"]


@pytest.mark.parametrize("size", [0, 50, 5_000])
def test_a_file_cut_short(data, size):
    file = file_of(data, "one")
    file.write_bytes(file.read_bytes()[:size])
    report = found(data)
    assert {each["namespace"] for each in report} == {"one"}, report


def test_a_missing_file_and_one_that_nobody_knows(data):
    file = file_of(data, "one")
    file.rename(file.with_name("stray.db"))
    missing, stray = found(data)
    assert (missing["namespace"], missing["problem"]) == ("one", "its file is missing")
    assert stray["file"].endswith("stray.db") and stray["namespace"] is None


def test_a_journal_whose_file_is_gone(data):
    directory = file_of(data, "one").parent
    (directory / "gone-0123456789abcde.db-wal").write_bytes(b"text that should be gone")
    [stray] = found(data)
    assert "no namespace" in stray["problem"]


def test_what_a_kill_left_is_told_and_is_no_failure(data):
    draft = file_of(data, "one").parent / "draft-0123456789abcde.db.new"
    draft.touch(mode=0o600)
    report = cli_json(data, "check")
    [notice] = report["findings"]
    assert report["ok"] and notice["level"] == "notice"


def test_files_that_others_may_read(data):
    file_of(data, "one").chmod(0o644)
    report = cli_json(data, "check")
    [notice] = report["findings"]
    assert report["ok"] and "other users" in notice["problem"]


def test_a_registry_that_is_garbled_or_gone(data):
    control = data / "control.db"
    content = control.read_bytes()
    spoil(file_of(data, "one"), "UPDATE totals SET entries = 99")
    control.write_bytes(b"\x99" * len(content))
    garbled = found(data)
    assert {each["file"].rpartition("/")[2] for each in garbled} == {
        "control.db",
        file_of(data, "one").name,
    }
    control.unlink()
    assert found(data)[0]["problem"] == "the registry is missing"


def test_a_registry_that_names_one_file_for_another(data):
    spoil(
        data / "control.db",
        "UPDATE namespaces SET file = (SELECT file FROM namespaces WHERE name = 'other')"
        " WHERE name = 'one'",
    )
    assert any("cannot be its own" in each["problem"] for each in found(data))


def test_one_tenant(data):
    spoil(file_of(data, "one"), "UPDATE totals SET entries = 99")
    cli_json(data, "tenants", "create", "acme")
    whole(data, "--tenant", "acme")
    [[name]] = query(data / "control.db", "SELECT name FROM tenants WHERE name <> 'acme'")
    assert found(data, "--tenant", name)
    assert "tenants list" in cli(data, "check", "--tenant", "nobody", expect=1).stderr


def test_where_there_is_nothing(tmp_path):
    nowhere = tmp_path / "nowhere"
    assert "no data directory" in cli(nowhere, "check", expect=1).stderr
    assert not nowhere.exists()
    nowhere.mkdir(mode=0o700)
    assert whole(nowhere)["namespaces"] == 0
    assert not list(nowhere.iterdir())


def test_a_check_that_was_killed_leaves_nothing(data, make_server):
    left = data / ".check-0123456789ab"
    left.mkdir()
    (left / ".importing").touch()
    (left / "copy.db").write_bytes(b"private")
    server = make_server()
    server.stop()
    shutil.rmtree(server.data)
    shutil.copytree(data, server.data)
    server.start()
    assert not (server.data / left.name).exists()
