"""Ids in paths: the client sends them unquoted, whatever they hold."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest
from mnemora import MnemoraSync
from mnemora_server import data, fail
from serving import Server

NAMES = [
    "plain",
    "a/b",
    "a/b/c",
    "user:42",
    "ada@example.org",
    "with space",
    "Zürich",
    "日本",
    "50%",
    "a%2Fb",
    "a//b",
    "a/",
    "search",
    "semantic",
    "episodic",
    "batch",
    "sessions",
    "summarize",
    "state",
    "x" * 240,
    "'; DROP TABLE states; --",
]


@pytest.fixture
def client(server: Server, request: pytest.FixtureRequest) -> Iterator[MnemoraSync]:
    with MnemoraSync(api_key=f"mnm_{request.node.nodeid}", base_url=server.url) as client:
        yield client


@pytest.mark.parametrize("agent", [name for name in NAMES if "%" not in name])
def test_the_client_reaches_an_agent_of_any_name(client: MnemoraSync, agent: str) -> None:
    client.store_state(agent, {"n": 1})
    client.store_episode(agent, "s", "action", "step")
    assert client.get_state(agent).agent_id == agent
    assert client.update_state(agent, {"n": 2}, 1).version == 2
    assert client.list_sessions(agent) == ["default"]
    assert len(client.get_episodes(agent)) == 1
    assert len(client.get_session_episodes(agent, "s")) == 1
    assert client.get_all_memory(agent)["summary"]["episodic_count"] == 1
    client.delete_state(agent, "default")
    assert client.purge_agent(agent).deleted["episodic"] == 1
    assert client.get_usage().agents_count == 0


@pytest.mark.parametrize("agent", NAMES)
def test_a_quoted_path_reaches_exactly_that_agent(server: Server, agent: str) -> None:
    headers = {"Authorization": "Bearer quoted", "Content-Type": "application/json"}
    with httpx.Client(base_url=server.url, headers=headers) as http:
        path = quote(agent, safe="")
        for kept in ("", "/sessions", "/x/sessions/y"):  # neighbours that must not be met
            data(http.post("/v1/state", json={"agent_id": agent + kept, "data": {"k": kept}}), 201)
        for kept in ("", "/sessions", "/x/sessions/y"):
            quoted = quote(agent + kept, safe="")
            assert data(http.get(f"/v1/state/{quoted}"))["data"] == {"k": kept}
        assert data(http.get(f"/v1/state/{path}/sessions"))["sessions"] == ["default"]
        assert data(http.get(f"/v1/memory/{path}"))["agent_id"] == agent
        for kept in ("", "/sessions", "/x/sessions/y"):
            data(http.delete(f"/v1/memory/{quote(agent + kept, safe='')}"))


def test_the_longest_known_ending_wins(http: httpx.Client, ns: str) -> None:
    data(http.post("/v1/state", json={"agent_id": ns, "data": {}, "session_id": "sessions"}), 201)
    data(http.post("/v1/state", json={"agent_id": f"{ns}/sessions", "data": {"n": 1}}), 201)
    assert data(http.get(f"/v1/state/{ns}/sessions"))["sessions"] == ["sessions"]
    assert data(http.get(f"/v1/state/{ns}%2Fsessions"))["data"] == {"n": 1}
    deleted = data(http.delete(f"/v1/state/{ns}/sessions"))
    assert deleted == {"deleted": True, "agent_id": ns, "session_id": "sessions"}
    assert data(http.get(f"/v1/state/{ns}/sessions"))["sessions"] == []


def test_a_session_with_a_slash_is_replayed(http: httpx.Client, ns: str) -> None:
    episode = {"agent_id": ns, "session_id": "user/42", "type": "action", "content": "x"}
    data(http.post("/v1/memory/episodic", json=episode), 201)
    replay = data(http.get(f"/v1/memory/episodic/{ns}/sessions/user/42"))
    assert (replay["session_id"], replay["count"]) == ("user/42", 1)
    data(http.post("/v1/state", json={"agent_id": ns, "session_id": "user/42", "data": {}}), 201)
    fail(http.delete(f"/v1/state/{ns}/user/42"), 404, "NOT_FOUND")
    assert data(http.delete(f"/v1/state/{ns}/user%2F42"))["session_id"] == "user/42"


def test_paths_for_post_hide_no_agent(http: httpx.Client) -> None:
    for agent in ("search", "semantic", "episodic"):
        assert data(http.get(f"/v1/memory/{agent}"))["agent_id"] == agent
        assert data(http.delete(f"/v1/memory/{agent}"))["agent_id"] == agent


def test_the_same_name_is_a_namespace_of_the_other_dialect(http: httpx.Client, ns: str) -> None:
    http.put(f"/memory/{ns}/key", json={"value": "v"}).raise_for_status()
    data(http.post("/v1/state", json={"agent_id": ns, "data": {}}), 201)
    purged = data(http.delete(f"/v1/memory/{ns}"))["deleted"]
    assert (purged["state"], purged["entries"]) == (1, 1)
    assert http.get(f"/memory/{ns}/key").status_code == 404


def test_reading_creates_nothing(http: httpx.Client, server: Server) -> None:
    headers = {"Authorization": "Bearer reader"}
    for path in ("state/x", "state/x/sessions", "memory/x", "memory/episodic/x"):
        http.get(f"/v1/{path}", headers=headers)
    http.put("/v1/state/x", json={"data": {}, "version": 1}, headers=headers)
    http.delete("/v1/state/x/default", headers=headers)
    http.delete("/v1/memory/x", headers=headers)
    assert data(http.get("/v1/usage", headers=headers))["agents_count"] == 0
