"""Records as the client reads them."""

from __future__ import annotations

from typing import Any

import orjson

from botwire_server.store.episodes import Episode, Said
from botwire_server.store.memories import Memory, Replaced
from botwire_server.store.states import State
from botwire_server.web.description import (
    BOOLEAN,
    NUMBER,
    OBJECT,
    STRING,
    TIME,
    WHOLE,
    Shape,
    or_null,
)
from botwire_server.web.mnemora.envelope import iso, iso_or_none

TYPES = ("conversation", "action", "observation", "tool_call")

STATE = Shape(
    "State",
    {
        "agent_id": STRING,
        "session_id": STRING,
        "data": OBJECT,
        "version": WHOLE,
        "created_at": TIME,
        "updated_at": TIME,
        "expires_at": or_null(TIME),
    },
)
MEMORY = Shape(
    "Memory",
    {
        "id": {"type": "string", "format": "uuid"},
        "agent_id": STRING,
        "content": STRING,
        "namespace": {"type": "string", "description": "Its collection."},
        "session_id": or_null(STRING),
        "metadata": OBJECT,
        "similarity_score": or_null(NUMBER),
        "created_at": TIME,
        "updated_at": TIME,
        "deduplicated": BOOLEAN,
    },
)
REPLACED = Shape("ReplacedMemory", {"content": STRING, "metadata": OBJECT, "replaced_at": TIME})
EPISODE = Shape(
    "Episode",
    {
        "id": STRING,
        "agent_id": STRING,
        "session_id": STRING,
        "type": {"type": "string", "enum": list(TYPES)},
        "content": {"type": ["string", "object"]},
        "metadata": OBJECT,
        "timestamp": TIME,
    },
)


def state_record(agent_id: str, state: State) -> dict[str, Any]:
    """A state."""
    return {
        "agent_id": agent_id,
        "session_id": state.session_id,
        "data": orjson.Fragment(state.data),
        "version": state.version,
        "created_at": iso(state.created_at),
        "updated_at": iso(state.updated_at),
        "expires_at": iso_or_none(state.expires_at),
    }


def memory_record(
    agent_id: str, memory: Memory, *, score: float | None = None, deduplicated: bool = False
) -> dict[str, Any]:
    """A memory. `namespace` is the contract's word for its collection."""
    return {
        "id": memory.id,
        "agent_id": agent_id,
        "content": memory.content,
        "namespace": memory.collection,
        "session_id": memory.session_id,
        "metadata": orjson.Fragment(memory.metadata),
        "similarity_score": score,
        "created_at": iso(memory.created_at),
        "updated_at": iso(memory.updated_at),
        "deduplicated": deduplicated,
    }


def replaced_record(replaced: Replaced) -> dict[str, Any]:
    """What a merge replaced."""
    return {
        "content": replaced.content,
        "metadata": orjson.Fragment(replaced.metadata),
        "replaced_at": iso(replaced.replaced_at),
    }


def episode_record(agent_id: str, episode: Episode) -> dict[str, Any]:
    """An episode."""
    return {
        "id": episode_id(episode),
        "agent_id": agent_id,
        "session_id": episode.session_id,
        "type": episode.type,
        "content": orjson.Fragment(episode.content),
        "metadata": orjson.Fragment(episode.metadata),
        "timestamp": iso(episode.created_at),
    }


def episode_id(episode: Episode | Said) -> str:
    """An id that sorts by time and order, and differs also between agents."""
    return f"{int(episode.created_at * 1e6):014x}-{episode.id:08x}"
