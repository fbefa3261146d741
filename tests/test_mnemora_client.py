"""Every method of `MnemoraClient` and `MnemoraSync`, unmodified, against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from conftest import MakeServer
from mnemora import MnemoraSync
from mnemora.exceptions import (
    MnemoraAuthError,
    MnemoraConflictError,
    MnemoraNotFoundError,
    MnemoraRateLimitError,
    MnemoraValidationError,
)
from mnemora_server import CLIENTS, needs_semantic, tenant_key
from serving import Server


@pytest.fixture(params=sorted(CLIENTS))
def client(request: pytest.FixtureRequest, server: Server) -> Iterator[Any]:
    """Both clients in turn, with a key of their own: an open server gives it a sandbox."""
    made = CLIENTS[request.param](api_key="mnm_test", base_url=server.url)
    yield made
    made.close()


@pytest.fixture
def agent(ns: str) -> str:
    """An agent nobody else uses."""
    return f"agent-{ns}"


def is_time(text: str) -> bool:
    return datetime.fromisoformat(text).utcoffset() is not None


def test_state(client: Any, agent: str) -> None:
    stored = client.store_state(agent, {"task": "summarize", "n": [1, {"deep": None}]})
    assert (stored.agent_id, stored.session_id, stored.version) == (agent, "default", 1)
    assert stored.expires_at is None
    assert is_time(stored.created_at) and is_time(stored.updated_at)
    assert client.get_state(agent) == stored
    updated = client.update_state(agent, {"task": "done"}, stored.version)
    assert (updated.version, updated.data) == (2, {"task": "done"})
    assert client.get_state(agent).data == {"task": "done"}


def test_sessions_of_one_agent(client: Any, agent: str) -> None:
    for session in ("s1", "s2", "s3"):
        client.store_state(agent, {"in": session}, session_id=session, ttl_hours=2)
    assert client.get_state(agent, session_id="s2").data == {"in": "s2"}
    assert sorted(client.list_sessions(agent)) == ["s1", "s2", "s3"]
    assert client.delete_state(agent, "s2") is None
    assert sorted(client.list_sessions(agent)) == ["s1", "s3"]
    with pytest.raises(MnemoraNotFoundError):
        client.get_state(agent, session_id="s2")
    with pytest.raises(MnemoraNotFoundError):
        client.delete_state(agent, "s2")


def test_sessions_of_nobody_are_an_empty_list(client: Any, agent: str) -> None:
    assert client.list_sessions(agent) == []


def test_an_update_with_a_stale_version_loses(client: Any, agent: str) -> None:
    client.store_state(agent, {"n": 1})
    client.update_state(agent, {"n": 2}, 1)
    with pytest.raises(MnemoraConflictError) as caught:
        client.update_state(agent, {"n": 3}, 1)
    assert caught.value.code == "VERSION_CONFLICT"
    assert client.get_state(agent).data == {"n": 2}


def test_an_update_of_nothing_is_not_found(client: Any, agent: str) -> None:
    with pytest.raises(MnemoraNotFoundError):
        client.update_state(agent, {"n": 1}, 1)


def test_episodes(client: Any, agent: str) -> None:
    said = client.store_episode(agent, "s1", "conversation", "hello", metadata={"lang": "en"})
    assert (said.agent_id, said.session_id, said.type) == (agent, "s1", "conversation")
    assert said.metadata == {"lang": "en"}
    assert is_time(said.timestamp)
    done = client.store_episode(agent, "s1", "tool_call", {"tool": "search", "args": [1, None]})
    client.store_episode(agent, "s2", "observation", "rain")
    assert [e.content for e in client.get_episodes(agent)] == ["hello", done.content, "rain"]
    assert client.get_episodes(agent, session_id="s1") == [said, done]
    assert client.get_episodes(agent, type="tool_call") == [done]
    assert client.get_episodes(agent, limit=1) == [said]
    bounded = client.get_episodes(agent, from_ts=done.timestamp, to_ts=done.timestamp)
    assert done in bounded
    assert said not in bounded or said.timestamp == done.timestamp
    assert client.get_session_episodes(agent, "s1") == [said, done]


def test_episodes_of_nobody_are_an_empty_list(client: Any, agent: str) -> None:
    assert client.get_episodes(agent) == []
    assert client.get_session_episodes(agent, "s1") == []


def test_search_all_finds_episodes(client: Any, agent: str) -> None:
    client.store_episode(agent, "s1", "conversation", "The refund for order 1043 is late")
    client.store_episode(agent, "s1", "conversation", "It rains")
    [hit] = client.search_all("refunds", agent_id=agent)
    assert (hit.memory_type, hit.relevance) == ("episodic", "text_match")
    assert hit.content == "The refund for order 1043 is late"
    assert is_time(hit.timestamp)
    assert hit.agent_id == agent


@needs_semantic
def test_semantic(client: Any, agent: str) -> None:
    stored = client.store_memory(
        agent, "The customer prefers email", namespace="facts", metadata={"source": "chat"}
    )
    assert (stored.agent_id, stored.namespace) == (agent, "facts")
    assert stored.metadata == {"source": "chat"}
    assert not stored.deduplicated
    again = client.store_memory(agent, "the customer prefers  EMAIL.", namespace="facts")
    assert again.deduplicated and again.id == stored.id
    assert client.get_memory(stored.id).content
    [hit] = client.search_memory(
        "how does the customer want to be contacted",
        agent_id=agent,
        namespace="facts",
        top_k=1,
        metadata_filter={"source": "chat"},
    )
    assert hit.id == stored.id
    assert 0 < hit.similarity_score <= 1
    assert any(hit.id == stored.id for hit in client.search_memory("customer email"))
    assert client.delete_memory(stored.id) is None
    with pytest.raises(MnemoraNotFoundError):
        client.get_memory(stored.id)
    with pytest.raises(MnemoraNotFoundError):
        client.delete_memory(stored.id)


@needs_semantic
def test_search_all_finds_both_kinds(client: Any, agent: str) -> None:
    client.store_memory(agent, "Refunds take five days")
    client.store_episode(agent, "s1", "conversation", "Where is my refund?")
    hits = client.search_all("refund", agent_id=agent)
    assert [hit.memory_type for hit in hits] == ["semantic", "episodic"]


def test_overview_and_purge(client: Any, agent: str) -> None:
    client.store_state(agent, {"n": 1})
    client.store_state(agent, {"n": 2}, session_id="other")
    for number in range(12):
        client.store_episode(agent, "s1", "action", f"step {number}")
    seen = client.get_all_memory(agent)
    assert seen["agent_id"] == agent
    assert seen["state"]["data"] == {"n": 1}
    assert [e["content"] for e in seen["episodic"]] == [f"step {n}" for n in range(2, 12)]
    assert seen["summary"]["state_exists"] is True
    assert seen["summary"]["episodic_count"] == 12
    assert seen["summary"]["semantic_count"] == 0
    purged = client.purge_agent(agent)
    assert purged.agent_id == agent
    assert purged.deleted == {
        "state": 2, "semantic": 0, "episodic": 12, "s3_objects": 0, "entries": 0
    }  # fmt: skip
    assert not any(client.purge_agent(agent).deleted.values())
    gone = client.get_all_memory(agent)
    assert (gone["state"], gone["semantic"], gone["episodic"]) == (None, [], [])
    assert gone["summary"]["state_exists"] is False


def test_usage(client: Any, agent: str) -> None:
    before = client.get_usage()
    client.store_state(agent, {"n": 1})
    client.store_episode(agent, "s1", "action", "step")
    after = client.get_usage()
    assert after.agents_count == before.agents_count + 1
    assert after.sessions_count == before.sessions_count + 2
    assert after.api_calls_month >= before.api_calls_month + 3
    assert after.storage["total_bytes"] > before.storage["total_bytes"]
    assert len(after.billing_period) == len("2026-11")
    client.purge_agent(agent)
    assert client.get_usage().sessions_count == before.sessions_count


def test_context_manager(server: Server, agent: str) -> None:
    with MnemoraSync(api_key="mnm_test", base_url=server.url) as client:
        client.store_state(agent, {"n": 1})


@pytest.mark.parametrize("kind", sorted(CLIENTS))
def test_a_bad_request_is_a_validation_error(kind: str, server: Server, agent: str) -> None:
    client = CLIENTS[kind](api_key="mnm_test", base_url=server.url)
    with pytest.raises(MnemoraValidationError) as caught:
        client.store_episode(agent, "s1", "dance", "hello")
    assert "type" in str(caught.value)
    assert caught.value.code == "VALIDATION_ERROR"
    client.close()


@pytest.mark.parametrize("kind", sorted(CLIENTS))
def test_a_bad_key_is_an_auth_error(kind: str, make_server: MakeServer, agent: str) -> None:
    server = make_server()
    key = tenant_key(server, "acme")
    for wrong in ("mnm_test", key[:-1] + ("0" if key[-1] != "0" else "1")):
        client = CLIENTS[kind](api_key=wrong, base_url=server.url)
        with pytest.raises(MnemoraAuthError) as caught:
            client.get_state(agent)
        assert caught.value.code == "UNAUTHORIZED"
        client.close()


@pytest.mark.parametrize("kind", sorted(CLIENTS))
def test_calls_over_the_limit_are_rate_limited(
    kind: str, make_server: MakeServer, agent: str
) -> None:
    server = make_server(started=False)
    server.data.mkdir(parents=True)
    (server.data / "tiers.toml").write_text("[tiers.tiny]\ncalls_per_day = 3\n")
    server.start()
    key = tenant_key(server, "acme", tier="tiny")
    client = CLIENTS[kind](api_key=key, base_url=server.url, max_retries=0)
    for _ in range(3):
        client.list_sessions(agent)
    with pytest.raises(MnemoraRateLimitError) as caught:
        client.list_sessions(agent)
    assert caught.value.code == "RATE_LIMITED"
    client.close()


def test_two_customers_with_the_same_agent(make_server: MakeServer, agent: str) -> None:
    server = make_server()
    with (
        MnemoraSync(api_key=tenant_key(server, "acme"), base_url=server.url) as acme,
        MnemoraSync(api_key=tenant_key(server, "bolt"), base_url=server.url) as bolt,
    ):
        acme.store_state(agent, {"of": "acme"})
        acme.store_episode(agent, "s1", "conversation", "a secret of acme")
        with pytest.raises(MnemoraNotFoundError):
            bolt.get_state(agent)
        assert bolt.search_all("secret") == []
        assert bolt.get_episodes(agent) == []
        assert not any(bolt.purge_agent(agent).deleted.values())
        assert bolt.get_usage().agents_count == 0
        assert acme.get_state(agent).data == {"of": "acme"}
        assert len(acme.search_all("secret")) == 1
