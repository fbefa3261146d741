"""A data directory that is moved, replaced or removed under its server: nothing is acknowledged."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from serving import Server, namespace_files, until
from tenancy import cli_json


def moved(data: Path) -> None:
    data.rename(data.with_name("moved"))


def removed(data: Path) -> None:
    shutil.rmtree(data)


def emptied(data: Path) -> None:
    for path in data.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def mounted_over(data: Path) -> None:
    """As an operator does who did not see that the server runs; or a mount that is lost."""
    data.rename(data.with_name("moved"))
    data.mkdir(mode=0o700)


def replaced_by_a_copy(data: Path) -> None:
    data.rename(data.with_name("moved"))
    shutil.copytree(data.with_name("moved"), data)


def registry_replaced(data: Path) -> None:
    shutil.copy2(data / "control.db", data / "copy.db")
    (data / "copy.db").rename(data / "control.db")


def registry_removed(data: Path) -> None:
    (data / "control.db").unlink()


def lock_removed(data: Path) -> None:
    (data / "lock").unlink()


WAYS = [
    *(moved, removed, emptied, mounted_over, replaced_by_a_copy),
    *(registry_replaced, registry_removed, lock_removed),
]


def put(client: httpx.Client, namespace: str, value: str) -> int:
    return client.put(f"/memory/{namespace}/k", json={"value": value}).status_code


def ready(client: httpx.Client) -> dict[str, str]:
    answer = client.get("/ready")
    return {"code": str(answer.status_code), **answer.json()}


@pytest.fixture
def filled(make_server) -> Server:
    """A server with an open namespace, and one that is not open."""
    server: Server = make_server("--open-namespaces", "8")
    with httpx.Client(base_url=server.url) as client:
        for number in range(12):
            assert put(client, f"n{number}", "before") == 200
    return server


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_acknowledged_that_would_be_gone(filled, way):
    with httpx.Client(base_url=filled.url, timeout=30) as client:
        assert ready(client)["code"] == "200"
        way(filled.data)
        until(lambda: ready(client)["code"] == "503", "/ready tells")
        assert ready(client)["registry"] == "failing"
        state = {"agent_id": "a", "data": {"n": 1}}
        memory = {"agent_id": "n11", "content": "it rains"}
        answers = [
            client.put("/memory/n11/k", json={"value": "after"}),  # open
            client.put("/memory/n0/k", json={"value": "after"}),  # perhaps not
            client.put("/memory/new/k", json={"value": "after"}),
            client.delete("/memory/n11/k"),
            client.delete("/memory/n11?confirm=n11"),
            client.post("/v1/state", json=state),
            client.post("/v1/memory/semantic", json=memory),
        ]
        for answer in answers:
            assert answer.status_code == 503, (answer.request, answer.text)
        # What is open is still read.
        assert client.get("/memory/n11/k").json()["value"] == "before"
    until(lambda: "UNDER THIS SERVER" in filled.log, "the log is told")
    assert "critical" in filled.log and str(filled.data / "control.db") in filled.log
    assert filled.log.count("UNDER THIS SERVER") <= 3
    made = list(filled.data.rglob("*new*")) if filled.data.exists() else []
    assert not made, "nothing is made in what has taken its place"
    filled.stop()
    assert "Traceback" not in filled.log


@pytest.mark.parametrize("again", [True, False])
def test_it_goes_on_where_it_was_put_back(filled, again):
    with httpx.Client(base_url=filled.url, timeout=30) as client:
        assert put(client, "n1", "acknowledged") == 200
        moved(filled.data)
        assert put(client, "n1", "refused") == 503
        filled.data.with_name("moved").rename(filled.data)
        if again:
            assert put(client, "n1", "acknowledged again") == 200
            until(lambda: ready(client)["code"] == "200", "/ready tells")
            until(lambda: "in its place again" in filled.log, "the log is told")
    filled.restart()
    with httpx.Client(base_url=filled.url, timeout=30) as client:
        value = client.get("/memory/n1/k").json()["value"]
        assert value == ("acknowledged again" if again else "acknowledged")
    filled.stop()
    assert cli_json(filled.data, "check")["ok"]


@pytest.mark.parametrize("ending", ["", "-wal"])
def test_the_file_of_one_namespace(filled, ending):
    with httpx.Client(base_url=filled.url, timeout=30) as client:
        [file] = [each for each in namespace_files(filled.data) if each.name.startswith("n11-")]
        assert file.with_name(file.name + "-wal").exists(), "it is open"
        file.with_name(file.name + ending).unlink()
        assert put(client, "n11", "after") == 503
        assert put(client, "n10", "after") == 200
        assert put(client, "new", "after") == 200
    until(lambda: "UNDER THIS SERVER" in filled.log, "the log is told")
    assert file.name in filled.log


def test_a_journal_of_another_server_is_not_removed(filled):
    """SQLite removes a journal by its name when it closes a file."""
    [file] = [each for each in namespace_files(filled.data) if each.name.startswith("n11-")]
    replaced_by_a_copy(filled.data)
    (file.with_name(file.name + "-wal")).write_bytes(b"another's")
    (filled.data / "control.db-wal").write_bytes(b"another's")
    filled.stop()
    assert file.with_name(file.name + "-wal").read_bytes() == b"another's"
    assert (filled.data / "control.db-wal").read_bytes() == b"another's"


def test_a_purge_removes_no_file_of_what_took_the_place(filled):
    with httpx.Client(base_url=filled.url, timeout=30) as client:
        replaced_by_a_copy(filled.data)
        assert client.delete("/memory/n11?confirm=n11").status_code == 503
        assert len(namespace_files(filled.data)) == 12
        assert len(namespace_files(filled.data.with_name("moved"))) == 12


def _mount(*arguments: str) -> bool:
    return subprocess.run(arguments, capture_output=True, check=False).returncode == 0


def test_a_mount_that_is_lost(tmp_path, make_server):
    server: Server = make_server(started=False)
    server.data.mkdir(mode=0o700)
    if not _mount("mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", str(server.data)):
        pytest.skip("mounting is not allowed here")
    detach: Callable[[], bool] = lambda: _mount("umount", "-l", str(server.data))  # noqa: E731
    try:
        server.start()
        with httpx.Client(base_url=server.url, timeout=30) as client:
            assert put(client, "n", "before") == 200
            assert detach()
            assert put(client, "n", "after") == 503
            assert put(client, "new", "after") == 503
            until(lambda: ready(client)["code"] == "503", "/ready tells")
        server.stop()
        assert not list(server.data.iterdir())
    finally:
        detach()
