"""`botwire-server reembed`: after a change of model, beside a server and without one."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from serving import Server, until
from tenancy import cli, cli_json, make_tenant

BEARER = {"Authorization": "Bearer customer-a"}
TEXTS = [f"Order {number} went to customer {number * 7}" for number in range(150)]


def store(server: Server, agent: str) -> None:
    body = {"items": [{"agent_id": agent, "content": text} for text in TEXTS]}
    answer = httpx.post(
        f"{server.url}/v1/memory/semantic/batch", json=body, headers=BEARER, timeout=60
    )
    assert answer.status_code == 201, answer.text


def search(server: Server, agent: str, mode: str = "vector") -> dict[str, Any]:
    body = {"agent_id": agent, "query": "where did order 17 go", "mode": mode, "threshold": 0}
    answer = httpx.post(
        f"{server.url}/v1/memory/semantic/search", json=body, headers=BEARER, timeout=60
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def waiting(server: Server) -> bool:
    of_v1 = httpx.get(f"{server.url}/v1/health").json()["data"]["reembed_needed"]
    of_botwire = httpx.get(f"{server.url}/health").json()["reembed_needed"]
    return bool(of_v1 and of_botwire)


@pytest.fixture
def unembedded(make_server):
    """A server that was started with a model after it had stored without one."""
    server = make_server("--embedder", "none")
    for agent in ("one", "two"):
        store(server, agent)
    assert not waiting(server)
    server.stop()
    server.options = ()
    return server


def test_beside_a_server(unembedded):
    server = unembedded.start()
    until(lambda: waiting(server), "the registry knows who waits")
    before = search(server, "one", "hybrid")
    assert "reembed" in str(before["meta"])
    done = cli_json(server.data, "reembed")
    assert [(row["namespace"], row["outcome"]) for row in done] == [
        ("one", "done"),
        ("two", "done"),
    ]
    until(lambda: not waiting(server), "nobody waits any more")
    after = search(server, "one", "hybrid")
    assert "reembed" not in str(after["meta"])
    assert "17" in after["data"]["results"][0]["content"]
    again = cli_json(server.data, "reembed")
    assert {row["outcome"] for row in again} == {"nothing to do"}


def test_without_a_server(unembedded):
    said = cli(unembedded.data, "reembed").stdout
    assert said.count("done") == 2
    server = unembedded.start()
    assert not waiting(server)
    assert search(server, "two")["data"]["results"]
    assert "17" in search(server, "two", "hybrid")["data"]["results"][0]["content"]


def test_an_unknown_tenant_is_one_sentence(tmp_path):
    make_tenant(tmp_path / "data", "somebody")
    refused = cli(tmp_path / "data", "reembed", "nobody", expect=1)
    assert "tenants list" in refused.stderr
