"""The `mnemora` integrations with LangGraph, LangChain and CrewAI, unmodified, on a real server.

CrewAI itself has no place to plug its storage in, so that stands alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, TypedDict

import pytest
from conftest import Server
from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.runnables.history import RunnableWithMessageHistory
from langgraph.graph import END, START, StateGraph
from mnemora import MnemoraClient, MnemoraSync
from mnemora.integrations.crewai import MnemoraCrewStorage
from mnemora.integrations.langchain import MnemoraMemory
from mnemora.integrations.langgraph import MnemoraCheckpointSaver

TURNS = 10


class State(TypedDict):
    said: list[str]
    count: int


def graph(client: MnemoraClient) -> Any:
    """Two nodes side by side and one after them, so that tasks write at the same time."""
    builder = StateGraph(State)
    builder.add_node("hear", lambda state: {"said": [*state.get("said", []), "heard"]})
    builder.add_node("count", lambda state: {"count": state.get("count", 0) + 1})
    builder.add_node("end", lambda state: {})
    builder.add_edge(START, "hear")
    builder.add_edge(START, "count")
    builder.add_edge("hear", "end")
    builder.add_edge("count", "end")
    builder.add_edge("end", END)
    return builder.compile(checkpointer=MnemoraCheckpointSaver(client))


@pytest.fixture
def sync(server: Server) -> Iterator[MnemoraSync]:
    with MnemoraSync(api_key="mnm_test", base_url=server.url) as client:
        yield client


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_ten_turns_of_a_graph(server: Server, ns: str, durability: str) -> None:
    config = {"configurable": {"thread_id": ns}}

    async def turns() -> list[Any]:
        async with MnemoraClient(api_key="mnm_test", base_url=server.url) as client:
            app = graph(client)
            return [
                await app.ainvoke({"count": turn}, config, durability=durability)
                for turn in range(TURNS)
            ]

    answers = asyncio.run(turns())
    assert [answer["count"] for answer in answers] == list(range(1, TURNS + 1))
    # What a turn said is what it found, and one more: nothing of the turns before was lost.
    assert [len(answer["said"]) for answer in answers] == list(range(1, TURNS + 1))


def test_ten_turns_of_a_graph_without_async(server: Server, ns: str) -> None:
    client = MnemoraClient(api_key="mnm_test", base_url=server.url)
    app = graph(client)
    config = {"configurable": {"thread_id": ns}}
    answers = [app.invoke({"count": turn}, config, durability="sync") for turn in range(TURNS)]
    assert [len(answer["said"]) for answer in answers] == list(range(1, TURNS + 1))
    asyncio.run(client.close())


def test_a_thread_goes_on_in_another_process(server: Server, ns: str) -> None:
    config = {"configurable": {"thread_id": ns}}

    async def turn() -> Any:
        async with MnemoraClient(api_key="mnm_test", base_url=server.url) as client:
            return await graph(client).ainvoke({"count": 0}, config)

    asyncio.run(turn())
    assert len(asyncio.run(turn())["said"]) == 2


def test_a_chat_history(sync: MnemoraSync, ns: str) -> None:
    history = MnemoraMemory(client=sync, agent_id=ns, session_id="user:42")
    assert history.messages == []
    history.add_user_message("Hello")
    history.add_ai_message("Hi there")
    history.add_message(SystemMessage(content="Be brief"))
    history.add_message(AIMessage(content="", tool_calls=[{"name": "f", "args": {}, "id": "1"}]))
    seen = MnemoraMemory(client=sync, agent_id=ns, session_id="user:42").messages
    assert [type(message).__name__ for message in seen] == [
        "HumanMessage", "AIMessage", "SystemMessage", "AIMessage"
    ]  # fmt: skip
    assert [message.content for message in seen[:3]] == ["Hello", "Hi there", "Be brief"]
    assert seen[3].tool_calls[0]["name"] == "f"
    assert MnemoraMemory(client=sync, agent_id=ns, session_id="user:43").messages == []
    history.clear()
    assert history.messages == []


@pytest.mark.filterwarnings("ignore:RunnableWithMessageHistory is deprecated")
def test_a_chain_with_its_history(sync: MnemoraSync, ns: str) -> None:
    model = GenericFakeChatModel(messages=iter(AIMessage(content=f"answer {n}") for n in range(3)))

    def history_of(session_id: str) -> BaseChatMessageHistory:
        return MnemoraMemory(client=sync, agent_id=ns, session_id=session_id)

    chain = RunnableWithMessageHistory(model, history_of)
    for n in range(3):
        config = {"configurable": {"session_id": "ada@example.org"}}
        assert chain.invoke([HumanMessage(content=f"q{n}")], config).content == f"answer {n}"
    contents = [message.content for message in history_of("ada@example.org").messages]
    assert contents == ["q0", "answer 0", "q1", "answer 1", "q2", "answer 2"]


def test_a_crew_storage_standing_alone(sync: MnemoraSync, ns: str) -> None:
    storage = MnemoraCrewStorage(client=sync, agent_id=ns)
    assert storage.list_keys() == []
    assert storage.load("plan") is None
    storage.save("plan", {"steps": ["research", "write"]})
    storage.save("plan", {"steps": ["review"]})
    storage.save("note", "text")
    assert storage.load("plan") == {"steps": ["review"]}
    assert storage.load("note") == {"value": "text"}
    assert sorted(storage.list_keys()) == ["note", "plan"]
    assert len(storage.search("anything")) == 2
    storage.delete("note")
    storage.delete("note")
    assert storage.list_keys() == ["plan"]
    storage.reset()
    assert storage.list_keys() == []
