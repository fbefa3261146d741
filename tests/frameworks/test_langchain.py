"""LangChain over BOTWIRE_URL: `BotWireChatHistory`, unmodified, in chains and memories of today."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from botwire import Memory
from botwire.memory import BotWireChatHistory
from langchain_classic.chains import ConversationChain
from langchain_classic.memory import ConversationBufferMemory
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory

PROMPT = ChatPromptTemplate.from_messages(
    [("system", "Answer."), MessagesPlaceholder("history"), ("human", "{question}")]
)


@pytest.fixture(params=["user:{}", "ada+{}@example.com", "plain-{}", "Grüße {}"])
def session(request) -> str:
    return request.param.format(uuid.uuid4())


def chain(*answers: str) -> RunnableWithMessageHistory:
    model = GenericFakeChatModel(messages=iter(AIMessage(answer) for answer in answers))
    return RunnableWithMessageHistory(
        PROMPT | model,
        BotWireChatHistory,
        input_messages_key="question",
        history_messages_key="history",
    )


def config(session: str) -> dict:
    return {"configurable": {"session_id": session}}


def texts(session: str) -> list[tuple[str, str]]:
    return [(message.type, message.content) for message in BotWireChatHistory(session).messages]


def test_invoke_remembers(session):
    seen = []

    def answer(prompt):
        seen.append([message.content for message in prompt.messages])
        return AIMessage(f"answer {len(seen)}")

    talk = RunnableWithMessageHistory(
        PROMPT | RunnableLambda(answer),
        BotWireChatHistory,
        input_messages_key="question",
        history_messages_key="history",
    )
    for question in ("one", "two [not json", "drei: Grüße 🙂\n"):
        talk.invoke({"question": question}, config(session))
    assert seen[-1] == [
        "Answer.",
        *("one", "answer 1", "two [not json", "answer 2", "drei: Grüße 🙂\n"),
    ]
    assert len(texts(session)) == 6
    assert texts(session)[4] == ("human", "drei: Grüße 🙂\n")


def test_ainvoke_remembers(session):
    async def talk() -> None:
        talking = chain("first", "second")
        await talking.ainvoke({"question": "one"}, config(session))
        await talking.ainvoke({"question": "two"}, config(session))

    asyncio.run(talk())
    assert texts(session) == [
        ("human", "one"),
        ("ai", "first"),
        ("human", "two"),
        ("ai", "second"),
    ]


def test_streaming_remembers(session):
    talking = chain("a streamed answer", "and another")
    pieces = [piece.content for piece in talking.stream({"question": "one"}, config(session))]
    assert len(pieces) > 1

    async def astream() -> list[str]:
        stream = talking.astream({"question": "two"}, config(session))
        return [piece.content async for piece in stream]

    assert "".join(asyncio.run(astream())) == "and another"
    assert [text for _, text in texts(session)] == [
        "one",
        "a streamed answer",
        "two",
        "and another",
    ]


def test_sessions_are_apart_and_clear_empties_one():
    one, two = (BotWireChatHistory(f"user:{uuid.uuid4()}") for _ in range(2))
    one.add_user_message("of one")
    two.add_user_message("of two")
    assert [message.content for message in two.messages] == ["of two"]
    one.clear()
    assert one.messages == []
    assert [message.content for message in two.messages] == ["of two"]


def test_every_kind_of_message_comes_back_equal(session):
    messages = [
        HumanMessage("question", id="1", additional_kwargs={"a": [1, None]}),
        AIMessage("", tool_calls=[{"name": "f", "args": {"x": 1.5}, "id": "c"}]),
        ToolMessage("result", tool_call_id="c"),
        HumanMessage([{"type": "text", "text": "parts"}]),
        AIMessage("x" * 50_000),
    ]
    BotWireChatHistory(session).add_messages(messages)
    assert BotWireChatHistory(session).messages == messages


def test_conversation_buffer_memory_of_langchain_classic(session):
    model = GenericFakeChatModel(messages=iter([AIMessage("first"), AIMessage("second")]))

    def memory() -> ConversationBufferMemory:
        return ConversationBufferMemory(
            chat_memory=BotWireChatHistory(session), return_messages=True
        )

    ConversationChain(llm=model, memory=memory()).predict(input="one")
    ConversationChain(llm=model, memory=memory()).predict(input="two")
    remembered = memory().load_memory_variables({})["history"]
    assert [message.content for message in remembered] == ["one", "first", "two", "second"]


def test_the_whole_list_lies_under_one_key():
    session = f"user:{uuid.uuid4()}"
    BotWireChatHistory(session).add_user_message("hello")
    stored = Memory("langchain-sessions").get(session)
    assert [message["data"]["content"] for message in stored] == ["hello"]
