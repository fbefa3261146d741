"""`botwire-server compact`: beside a server and without one, and when it is killed half-way."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Server, command, namespace_files, until
from tenancy import cli, cli_json

from botwire_server.store import vectors
from botwire_server.store.driver import connect

BEARER = {"Authorization": "Bearer customer-a"}
STORED, KEPT = 700, 14


@pytest.fixture
def server(make_server):
    """A server whose namespace `one` held fifty times what it holds."""
    server = make_server()
    with httpx.Client(base_url=server.url, headers=BEARER, timeout=60) as client:
        ids = []
        for start in range(0, STORED, 100):
            items = [
                {"agent_id": "one", "content": f"Order {number} went to customer {number * 7}"}
                for number in range(start, start + 100)
            ]
            answer = client.post("/v1/memory/semantic/batch", json={"items": items})
            assert answer.status_code == 201, answer.text
            ids += [item["id"] for item in answer.json()["data"]["items"]]
        for number in range(150):
            assert client.put(f"/memory/one/k{number}", json={"value": "v" * 6_000}).is_success
        for number, id in enumerate(ids):
            if number % (STORED // KEPT):
                assert client.delete(f"/v1/memory/semantic/{id}").status_code == 204
        for number in range(3, 150):
            assert client.delete(f"/memory/one/k{number}").is_success
        assert client.put("/memory/other/k", json={"value": "v"}).is_success
    return server


def file_of(data: Path, namespace: str) -> Path:
    [file] = [file for file in namespace_files(data) if file.name.startswith(f"{namespace}-")]
    return file


def slots(data: Path) -> int:
    with closing(connect(file_of(data, "one"))) as connection:
        return vectors.slots(connection)


def answers(server: Server) -> dict[str, Any]:
    """What is stored, by every way there is to read it."""
    with httpx.Client(base_url=server.url, headers=BEARER, timeout=60) as client:
        wanted = {"agent_id": "one", "query": "Order 50 customer", "top_k": 20, "threshold": 0}
        found = client.post("/v1/memory/semantic/search", json=wanted).json()["data"]
        assert found["count"] == KEPT
        return {
            "found": found,
            "entries": [client.get(f"/memory/one/k{number}").json() for number in range(4)],
            "keys": client.get("/memory/one").json(),
        }


def test_beside_a_server(server):
    before = answers(server)
    assert slots(server.data) > 5 * KEPT
    report = cli_json(server.data, "compact")
    done = {row["namespace"]: row for row in report["namespaces"]}
    assert {row["outcome"] for row in done.values()} == {"done"}
    assert done["one"]["after"] * 3 < done["one"]["before"]
    assert done["one"]["after"] == file_of(server.data, "one").stat().st_size
    assert slots(server.data) == 256
    assert answers(server) == before
    assert cli_json(server.data, "check")["ok"]
    with httpx.Client(base_url=server.url, headers=BEARER) as client:
        text = {"agent_id": "one", "content": "Order 50 came back"}
        assert client.post("/v1/memory/semantic", json=text).status_code == 201
    assert cli_json(server.data, "check")["ok"]


def test_without_a_server(server):
    before = answers(server)
    server.stop()
    said = cli(server.data, "compact").stdout
    assert "bytes before" in said and said.count("done") == 2
    assert slots(server.data) == 256
    assert cli_json(server.data, "check")["ok"]
    server.start()
    assert answers(server) == before


def test_what_was_deleted_is_in_no_file(server):
    cli(server.data, "compact")
    until(
        lambda: (
            not any(
                b"customer 77" in path.read_bytes()
                for path in server.data.rglob("*")
                if path.is_file()
            )
        ),
        "the text of a deleted memory is gone",
    )


@pytest.mark.parametrize("round", range(4))
def test_killed_half_way_the_file_is_whole(server, round):
    before = answers(server)
    server.stop()
    size = file_of(server.data, "one").stat().st_size
    process = subprocess.Popen(
        **command("compact", "--data-dir", str(server.data)), stdout=subprocess.DEVNULL
    )
    journal = file_of(server.data, "one").with_name(file_of(server.data, "one").name + "-wal")
    until(lambda: journal.exists() or process.poll() is not None, "it began")
    time.sleep(0.01 * round)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert cli_json(server.data, "check")["ok"]
    server.start()
    assert answers(server) == before
    cli(server.data, "compact")
    assert file_of(server.data, "one").stat().st_size * 3 < size


def test_one_tenant_and_none(server):
    cli_json(server.data, "tenants", "create", "acme")
    assert cli_json(server.data, "compact", "--tenant", "acme")["namespaces"] == []
    assert "tenants list" in cli(server.data, "compact", "--tenant", "nobody", expect=1).stderr


def test_a_damaged_file_is_told_and_the_others_are_done(server):
    server.stop()
    file = file_of(server.data, "one")
    file.write_bytes(b"\x55" * 8_192)
    refused = cli(server.data, "compact", "--json", expect=1)
    assert '"done"' in refused.stdout and "failed" in refused.stdout
    assert file.read_bytes() == b"\x55" * 8_192
