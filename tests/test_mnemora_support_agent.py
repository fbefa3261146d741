"""The support agent, end to end, for two customers of one server with two keys."""

from __future__ import annotations

import pytest
from conftest import MakeServer
from mnemora import MnemoraSync
from mnemora.exceptions import MnemoraNotFoundError
from mnemora_server import needs_semantic, tenant_key

AGENT = "support-agent"

KNOWLEDGE = {
    "acme": [
        "Refunds are paid within five working days to the card that was charged.",
        "A parcel that is lost is sent again free of charge after ten days.",
        "Our office in Berlin answers the phone from 9 to 17 o'clock.",
    ],
    "bolt": [
        "Refunds are paid as a voucher only, never to a card.",
        "Scooters that break within two years are repaired free of charge.",
    ],
}


def answer(client: MnemoraSync, session: str, question: str) -> str:
    """What such an agent does for a question; in place of a model, it quotes its context."""
    client.store_episode(AGENT, session, "conversation", {"role": "user", "content": question})
    known = client.search_memory(question, agent_id=AGENT, top_k=1)
    earlier = client.get_session_episodes(AGENT, session)
    context = [memory.content for memory in known] + [str(e.content) for e in earlier]
    client.store_episode(
        AGENT, session, "tool_call", {"tool": "search", "found": [memory.id for memory in known]}
    )
    reply = context[0]
    client.store_episode(AGENT, session, "conversation", {"role": "assistant", "content": reply})
    client.store_state(AGENT, {"last_question": question}, session_id=session, ttl_hours=24)
    return reply


@needs_semantic
def test_the_support_agent_of_two_customers(make_server: MakeServer) -> None:
    server = make_server()
    clients = {
        name: MnemoraSync(api_key=tenant_key(server, name), base_url=server.url)
        for name in KNOWLEDGE
    }
    acme, bolt = clients["acme"], clients["bolt"]
    for name, facts in KNOWLEDGE.items():
        for fact in facts:
            clients[name].store_memory(AGENT, fact, metadata={"source": "handbook"})

    # Each answers from its own handbook.
    assert answer(acme, "ticket-1", "How is my refund paid?") == KNOWLEDGE["acme"][0]
    assert answer(bolt, "ticket-1", "How is my refund paid?") == KNOWLEDGE["bolt"][0]
    assert answer(acme, "ticket-2", "My parcel is lost") == KNOWLEDGE["acme"][1]

    # What was learned in a conversation is found in the next one.
    learned = acme.store_memory(
        AGENT, "Invoice 1043 was paid twice by mistake.", metadata={"source": "ticket-2"}
    )
    hit = acme.search_memory("invoice 1043", agent_id=AGENT, metadata_filter={"source": "ticket-2"})
    assert [memory.id for memory in hit] == [learned.id]
    assert (
        bolt.search_memory("invoice 1043", agent_id=AGENT, metadata_filter={"source": "ticket-2"})
        == []
    )
    with pytest.raises(MnemoraNotFoundError):
        bolt.get_memory(learned.id)
    found = acme.search_all("refund", agent_id=AGENT)
    assert {each.memory_type for each in found} == {"semantic", "episodic"}

    seen = acme.get_all_memory(AGENT)["summary"]
    assert (seen["state_exists"], seen["semantic_count"], seen["episodic_count"]) == (True, 4, 6)

    # One customer leaves: everything of theirs goes, and nothing of the other's.
    assert acme.purge_agent(AGENT).deleted == {
        "state": 2, "semantic": 4, "episodic": 6, "s3_objects": 0, "entries": 0
    }  # fmt: skip
    assert acme.search_all("refund") == []
    with pytest.raises(MnemoraNotFoundError):
        acme.get_memory(learned.id)
    assert acme.get_usage().agents_count == 0
    assert answer(bolt, "ticket-2", "How is my refund paid?") == KNOWLEDGE["bolt"][0]
    assert bolt.purge_agent(AGENT).deleted == {
        "state": 2, "semantic": 2, "episodic": 6, "s3_objects": 0, "entries": 0
    }  # fmt: skip
    for client in clients.values():
        client.close()
