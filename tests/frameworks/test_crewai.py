"""CrewAI over BOTWIRE_URL: `memory_tools`, with the one line that its import needs today."""

from __future__ import annotations

import subprocess
import sys
import uuid

import crewai.tools
import crewai_tools
import pytest
from botwire import Memory
from botwire.memory import memory_tools


@pytest.fixture
def namespace() -> str:
    return f"crew-{uuid.uuid4()}"


@pytest.fixture
def tools(namespace, monkeypatch):
    # The remedy of the README.
    monkeypatch.setattr(crewai_tools, "tool", crewai.tools.tool, raising=False)
    return {tool.name: tool for tool in memory_tools(namespace)}


def test_without_the_remedy_the_import_fails():
    """Once this fails, the remedy can go."""
    done = subprocess.run(
        [sys.executable, "-c", "from botwire.memory import memory_tools; memory_tools('x')"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "cannot import name 'tool'" in done.stderr


def test_remember_recall_and_list(tools, namespace):
    remember, recall, listing = (
        tools[name] for name in ("Remember a fact", "Recall a fact", "List remembered keys")
    )
    assert listing.run() == "(empty)"
    assert recall.run(key="name") == "not found"
    assert remember.run(key="name", value="Ada") == "stored 'name'"
    assert remember.run(key="a place/with slash", value="Grüße") == "stored 'a place/with slash'"
    assert recall.run(key="name") == "Ada"
    assert listing.run() == "a place/with slash, name"
    assert Memory(namespace).get("name") == "Ada"


def test_the_tools_fit_an_agent(tools):
    agent = crewai.Agent(
        role="Archivist",
        goal="Remember",
        backstory="Forgets nothing.",
        tools=list(tools.values()),
        llm=crewai.LLM(model="gpt-4o-mini", api_key="unused"),
    )
    assert [tool.name for tool in agent.tools] == list(tools)
