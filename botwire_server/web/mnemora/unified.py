"""/v1/memory: all kinds of memory of an agent at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from botwire_server import limits
from botwire_server.store import episodes, states
from botwire_server.store.episodes import Episode, Match
from botwire_server.store.namespace import Totals, totals
from botwire_server.store.tenant import Tenant
from botwire_server.web.body import read_body
from botwire_server.web.description import (
    BOOLEAN,
    STRING,
    WHOLE,
    Body,
    OneOf,
    Shape,
    listed,
    operation,
    or_null,
)
from botwire_server.web.dialect import Resource
from botwire_server.web.fields import Schema
from botwire_server.web.mnemora import drafts, episodic, semantic, state
from botwire_server.web.mnemora.envelope import SEARCH_META, Unroutable, success, wrapped
from botwire_server.web.mnemora.fields import (
    AGENT,
    AGENT_IN_PATH,
    DEFAULT_SESSION,
    SESSION,
    UNASKED,
    object_of,
    read_fields,
    refuse_longer,
)
from botwire_server.web.mnemora.paths import namespace
from botwire_server.web.mnemora.queries import AGENT_SOUGHT, SEARCH_BOTH, meta_of, query_of
from botwire_server.web.mnemora.records import (
    EPISODE,
    MEMORY,
    STATE,
    episode_record,
    state_record,
)
from botwire_server.web.pieces import pieced

SHOWN_MEMORIES = 5
SHOWN_EPISODES = 10
_SEARCH_FIELDS = frozenset(field.name for field in SEARCH_BOTH.fields)
# Agents searched at the same time.
SIDE_BY_SIDE = 8


TAG = "All kinds of memory"
_IDS = ("agent_id", "session_id")
ANY = OneOf(
    Body(
        AGENT, SESSION, *(field for field in state.NEW.fields if field.name not in _IDS), example={}
    ),
    episodic.EPISODE_BODY,
    drafts.NEW,
    example={"agent_id": "a", "content": "The customer prefers e-mail."},
)
KIND: Schema = {"type": "string", "enum": ["state", "episodic", "semantic"]}
STORED: Schema = {
    "anyOf": [
        STATE.extended("StoredState", memory_type=KIND),
        EPISODE.extended("StoredEpisode", memory_type=KIND),
        MEMORY.extended("StoredMemory", memory_type=KIND),
    ]
}
FOUND: Schema = {
    "anyOf": [
        MEMORY.extended("MemoryMeant", memory_type=KIND),
        EPISODE.extended(
            "EpisodeSaid",
            memory_type=KIND,
            similarity_score={"type": "null"},
            relevance={"const": "text_match"},
        ),
    ]
}
RESULTS = Shape("Results", {"results": listed(FOUND), "count": WHOLE})
OVERVIEW = Shape(
    "Overview",
    {
        "agent_id": STRING,
        "state": or_null({"allOf": [STATE]}),
        "semantic": listed(MEMORY),
        "episodic": listed(EPISODE),
        "summary": Shape(
            "Counts",
            {
                "state_exists": BOOLEAN,
                "state_count": WHOLE,
                "semantic_count": WHOLE,
                "episodic_count": WHOLE,
            },
        ),
    },
)
KINDS = ("state", "semantic", "episodic", "s3_objects", "entries")
PURGED = Shape(
    "PurgedAgent",
    {"agent_id": STRING, "deleted": Shape("PurgedCounts", dict.fromkeys(KINDS, WHOLE))},
)


def resources() -> list[Resource]:
    """The resources."""
    return [
        Resource(
            "/v1/memory",
            tag=TAG,
            POST=operation(
                _post,
                "remember",
                "Store what the body has the shape of",
                notes="data and session_id are a state, content and type an episode, a string as "
                "content alone a memory; each as its own path takes it.",
                query=UNASKED,
                body=ANY,
                answers={
                    200: wrapped(STORED, help="Merged with what said the same."),
                    201: wrapped(STORED),
                },
            ),
        ),
        Resource(
            "/v1/memory/search",
            tag=TAG,
            POST=operation(
                _search,
                "search_everything",
                "Search memories and episodes",
                query=UNASKED,
                body=SEARCH_BOTH,
                answers={200: wrapped(RESULTS, help="Memories, then episodes.", meta=SEARCH_META)},
            ),
        ),
        Resource(
            "/v1/memory/{agent_id:path}",
            tag=TAG,
            GET=operation(
                _overview,
                "get_agent",
                "What an agent has: its state, the last memories and episodes",
                path=(AGENT_IN_PATH,),
                answers={200: wrapped(OVERVIEW)},
            ),
            DELETE=operation(
                _purge,
                "purge_agent",
                "Remove an agent with everything it has",
                path=(AGENT_IN_PATH,),
                query=UNASKED,
                answers={200: wrapped(PURGED)},
            ),
        ),
    ]


async def _post(request: Request) -> Response:
    UNASKED.read(request)
    body = await read_body(request)
    fields = object_of(body)
    given = {name for name, value in fields.items() if value is not None}
    if {"data", "session_id"} <= given:
        refuse_longer(body, limits.STATE)
        stored = await state.store(request, fields)
        return success(request, {**stored, "memory_type": "state"}, 201)
    if {"content", "type"} <= given:
        stored = await episodic.store(request, fields)
        return success(request, {**stored, "memory_type": "episodic"}, 201)
    if isinstance(fields.get("content"), str):
        stored, status = await semantic.store(request, AGENT.of(fields), fields)
        return success(request, {**stored, "memory_type": "semantic"}, status)
    raise Unroutable(
        "The body must hold data and session_id (a state), content and type (an episode), or a "
        "string as content alone (a memory).",
        where=("body",),
    )


async def _search(request: Request) -> Response:
    UNASKED.read(request)
    fields = await read_fields(request, SEARCH_BOTH)
    agent = AGENT_SOUGHT.of(fields)
    semantic.require_reading(request, agent)
    asked = {name: value for name, value in fields.items() if name in _SEARCH_FIELDS}
    query = await query_of(request, asked)
    meant, by_vector = await semantic.find(request, query, agent)
    matches = await _matching(request, asked["query"], agent, query.limit)
    # Together top_k, of which the episodes that were found keep half.
    shown = min(len(matches), max(query.limit // 2, query.limit - len(meant)))
    said = await _said(request, matches[:shown])
    results: list[dict[str, Any]] = [
        {**memory, "memory_type": "semantic"} for memory in meant[: query.limit - shown]
    ]
    results += [
        {
            **episode_record(name, episode),
            "similarity_score": None,
            "relevance": "text_match",
            "memory_type": "episodic",
        }
        for name, episode in said
    ]
    return await pieced(
        {"results": results, "count": len(results)},
        partial(success, request, meta=meta_of(request, query, by_vector=by_vector)),
    )


async def _matching(
    request: Request, query: str, agent: str | None, limit: int
) -> list[tuple[str, Match]]:
    """The episodes that match `query`, newest first, with their agents."""
    tenant: Tenant = request.scope["tenant"]
    agents = [agent] if agent is not None else await tenant.namespaces(holding="episodes")
    found: list[tuple[str, Match]] = []
    for start in range(0, len(agents), SIDE_BY_SIDE):
        some = agents[start : start + SIDE_BY_SIDE]
        answers: Sequence[list[Match]] = await asyncio.gather(
            *(tenant.namespace(name).read(episodes.search, query, limit=limit) for name in some)
        )
        for name, matches in zip(some, answers, strict=True):
            found += [(name, match) for match in matches]
        found.sort(key=lambda pair: (pair[1].created_at, pair[1].id), reverse=True)
        del found[limit:]
    return found


async def _said(
    request: Request, matches: Sequence[tuple[str, Match]]
) -> list[tuple[str, Episode]]:
    """The episodes themselves, as far as they are still there: only those that are shown."""
    tenant: Tenant = request.scope["tenant"]
    wanted: dict[str, list[int]] = {}
    for name, match in matches:
        wanted.setdefault(name, []).append(match.id)
    fetched = await asyncio.gather(
        *(tenant.namespace(name).read(episodes.get_all, ids) for name, ids in wanted.items())
    )
    there = dict(zip(wanted, fetched, strict=True))
    return [(name, there[name][match.id]) for name, match in matches if match.id in there[name]]


async def _overview(request: Request) -> Response:
    agent = AGENT_IN_PATH.of(request.path_params)
    here = namespace(request, agent)
    present, state_count = await here.read(states.latest, DEFAULT_SESSION)
    shown = await here.read(episodes.last, SHOWN_EPISODES)
    held = await here.read(totals)
    return await pieced(
        {
            "agent_id": agent,
            "state": None if present is None else state_record(agent, present),
            "semantic": await semantic.newest(request, agent, SHOWN_MEMORIES),
            "episodic": [episode_record(agent, episode) for episode in shown],
            "summary": {
                "state_exists": present is not None,
                "state_count": state_count,
                "semantic_count": held.memories,
                "episodic_count": held.episodes,
            },
        },
        partial(success, request),
    )


async def _purge(request: Request) -> Response:
    agent = AGENT_IN_PATH.of(request.path_params)
    UNASKED.read(request)
    held = await namespace(request, agent).purge() or Totals()
    return success(
        request,
        {
            "agent_id": agent,
            "deleted": {
                "state": held.states,
                "semantic": held.memories,
                "episodic": held.episodes,
                "s3_objects": 0,
                "entries": held.entries,
            },
        },
    )
