"""What /v1 stored answers the same from an imported tenant, ids and all."""

from __future__ import annotations

from typing import Any

import httpx
from serving import InProcess
from tenancy import bearer, cli_json, make_tenant, operator_of

AGENT = "support/emea"


def fill(client: httpx.Client) -> list[str]:
    """Store something of every kind; the ids of the memories."""

    def post(path: str, **body: Any) -> dict[str, Any]:
        answer = client.post(path, json={"agent_id": AGENT, **body})
        assert answer.is_success, answer.text
        return dict(answer.json()["data"])

    for version in range(3):
        post("/v1/state", session_id="s", data={"turn": version}, ttl_hours=5)
    for number in range(20):
        post(
            "/v1/memory/episodic",
            session_id=f"s{number % 2}",
            type="action",
            content={"did": f"step {number}"},
            metadata={"n": number},
        )
    texts = ["Invoice 1043 was paid by Acme", "Invoice 1044 was paid by Acme", "It rains a lot"]
    ids = [post("/v1/memory/semantic", content=text, session_id="s0")["id"] for text in texts]
    merged = post(
        "/v1/memory/semantic", content="it rains a lot!", session_id="s0", metadata={"a": 1}
    )
    assert merged["id"] == ids[2]
    long = " ".join(f"Chapter {n} tells of the river number {n}." for n in range(200))
    ids.append(post("/v1/memory/semantic", content=long, metadata={"long": {"deep": [1]}})["id"])
    client.put("/memory/plain/k", json={"value": "v"}).raise_for_status()
    return ids


def answers(client: httpx.Client, ids: list[str]) -> list[Any]:
    """What a reader sees."""
    paths = [
        f"/v1/state/{AGENT}?session_id=s",
        f"/v1/state/{AGENT}/sessions",
        f"/v1/memory/episodic/{AGENT}?limit=500",
        f"/v1/memory/episodic/{AGENT}/sessions/s1",
        f"/v1/memory/{AGENT}",
        *(f"/v1/memory/semantic/{id}{end}" for id in ids for end in ("", "/history")),
    ]
    found = [client.get(path).raise_for_status().json()["data"] for path in paths]
    for mode in ("hybrid", "vector", "keyword"):
        for query in ("who paid the invoice", "the river of chapter 77"):
            body = {"agent_id": AGENT, "query": query, "mode": mode, "explain": True}
            answer = client.post("/v1/memory/semantic/search", json=body).raise_for_status()
            found.append(answer.json()["data"])
    found.append(client.get("/memory/plain/k").json())
    return found


def test_it_answers_the_same_elsewhere(tmp_path):
    first, second, archive = tmp_path / "first", tmp_path / "second", tmp_path / "acme.zip"
    key = make_tenant(first, "acme")
    with InProcess(first) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        client.headers.update(bearer(key))
        ids = fill(client)
        before = answers(client, ids)
        exported = cli_json(first, "tenants", "export", "acme", str(archive))
    assert (exported["states"], exported["memories"], exported["episodes"]) == (1, 4, 20)
    imported = cli_json(second, "tenants", "import", str(archive))
    assert imported["memories"] == 4
    key = operator_of(second, lambda it: it.create_key("acme"))["key"]
    with InProcess(second) as server, httpx.Client(base_url=server.url, timeout=60) as client:
        client.headers.update(bearer(key))
        assert answers(client, ids) == before
        # And it goes on: the next version, the next id.
        body = {"data": {"turn": 3}, "session_id": "s", "version": 3}
        assert client.put(f"/v1/state/{AGENT}", json=body).json()["data"]["version"] == 4
        body = {"agent_id": AGENT, "content": "Something new"}
        assert client.post("/v1/memory/semantic", json=body).json()["data"]["id"] not in ids
        assert client.delete(f"/v1/memory/semantic/{ids[0]}").status_code == 204
