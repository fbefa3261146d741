"""/v1/memory/semantic: texts that are found by meaning."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from botwire_server import limits
from botwire_server.errors import AnswerTooLarge, Invalid, NotFound
from botwire_server.store import memories, ranking
from botwire_server.store import search as searching
from botwire_server.store.memories import Draft, Memory, Replaced
from botwire_server.store.ranking import Hit
from botwire_server.store.search import Query
from botwire_server.store.tenant import NamespaceRef, Tenant
from botwire_server.web.description import (
    NUMBER,
    STRING,
    WHOLE,
    Answer,
    Shape,
    listed,
    operation,
    or_null,
)
from botwire_server.web.description import Query as Paged
from botwire_server.web.dialect import Resource
from botwire_server.web.fields import Cursor, Name, Whole
from botwire_server.web.listing import Listed
from botwire_server.web.mnemora.drafts import BATCH, ITEMS, NEW, draft, drafts
from botwire_server.web.mnemora.envelope import SEARCH_META, success, wrapped
from botwire_server.web.mnemora.fields import AGENT, UNASKED, Fields, numbered, read_fields
from botwire_server.web.mnemora.paths import namespace
from botwire_server.web.mnemora.queries import AGENT_SOUGHT, EXPLAIN, SEARCH, meta_of, query_of
from botwire_server.web.mnemora.records import MEMORY, REPLACED, memory_record, replaced_record
from botwire_server.web.pieces import pieced

# Agents searched at the same time. More would wait for the interpreter's lock, not for the disk: a
# hundred small ones take 120 ms if there are sixteen at a time, and 65 if there are two.
SIDE_BY_SIDE = 2

TAG = "Semantic memory"
SCORES = Shape(
    "Scores",
    {
        "vector": or_null(NUMBER),
        "keyword": or_null(NUMBER),
        "combined": NUMBER,
        "score": NUMBER,
    },
)
FOUND = replace(
    MEMORY.extended("FoundMemory", explanation=SCORES), optional=frozenset({"explanation"})
)
RESULTS = Shape("FoundMemories", {"results": listed(FOUND), "count": WHOLE})
STORED = Shape("StoredMemories", {"items": listed(MEMORY), "count": WHOLE})
HISTORY = Shape(
    "MemoryHistory",
    {
        "id": STRING,
        "current": MEMORY,
        "history": listed(REPLACED),
        "count": WHOLE,
        "cursor": STRING,
    },
    optional=frozenset({"cursor"}),
)
DEFAULT_PAGE = 50
LONGEST_PAGE = 500
LIMIT = Whole(
    "limit",
    f"What was replaced, at most; {DEFAULT_PAGE} where there is a cursor, else all.",
    least=1,
    most=LONGEST_PAGE,
    place="query",
)
AFTER = Cursor("h")
PAGE = Paged(LIMIT, AFTER)
ID = Name("memory_id", "The memory's id.", longest=limits.PUBLIC_ID)


def resources() -> list[Resource]:
    """The resources."""
    return [
        Resource(
            "/v1/memory/semantic",
            tag=TAG,
            POST=operation(
                _post,
                "create_memory",
                "Store a text; one that says the same takes the place of the old one",
                query=UNASKED,
                body=NEW,
                answers={
                    200: wrapped(MEMORY, help="Merged with what said the same."),
                    201: wrapped(MEMORY),
                },
            ),
        ),
        Resource(
            "/v1/memory/semantic/batch",
            tag=TAG,
            POST=operation(
                _post_batch,
                "create_memories",
                "Store texts of one agent, all or none",
                query=UNASKED,
                body=BATCH,
                answers={201: wrapped(STORED)},
            ),
        ),
        Resource(
            "/v1/memory/semantic/search",
            tag=TAG,
            POST=operation(
                _search,
                "search_memories",
                "Search by meaning and by words",
                query=UNASKED,
                body=SEARCH,
                answers={200: wrapped(RESULTS, help="Best first.", meta=SEARCH_META)},
            ),
        ),
        Resource(
            "/v1/memory/semantic/{memory_id}/history",
            tag=TAG,
            GET=operation(
                _history,
                "get_memory_history",
                "Read what a memory was before it was merged, oldest first",
                path=(ID,),
                query=PAGE,
                answers={200: wrapped(HISTORY)},
                refusals=(NotFound, AnswerTooLarge),
            ),
        ),
        Resource(
            "/v1/memory/semantic/{memory_id}",
            tag=TAG,
            GET=operation(
                _get,
                "get_memory",
                "Read a memory",
                path=(ID,),
                answers={200: wrapped(MEMORY)},
                refusals=(NotFound,),
            ),
            DELETE=operation(
                _delete,
                "delete_memory",
                "Delete a memory with its history",
                path=(ID,),
                query=UNASKED,
                answers={204: Answer("It is gone.")},
                refusals=(NotFound,),
            ),
        ),
    ]


async def store(request: Request, agent_id: str, fields: Fields) -> tuple[dict[str, Any], int]:
    """Store a memory: its record, and 201, or 200 where it was merged."""
    here = namespace(request, agent_id)
    here.require("write")  # before anything is embedded
    made = await draft(request, fields)
    memory, merged = await here.write(memories.put, made)
    record = _stored(here, made, memory, merged)
    return record, 200 if record["deduplicated"] else 201


def require_reading(request: Request, agent_id: str | None) -> None:
    """Raise `Forbidden` unless the key may search this agent, or any: before it is embedded."""
    tenant: Tenant = request.scope["tenant"]
    (tenant if agent_id is None else tenant.namespace(agent_id)).require("read")


async def find(
    request: Request, query: Query, agent_id: str | None, *, explain: bool = False
) -> tuple[list[dict[str, Any]], bool]:
    """The records that a query finds, best first, and whether vectors could be asked."""
    if agent_id is not None:
        answer = await namespace(request, agent_id).read(searching.find, query)
        hits = [_hit(agent_id, memory, hit, explain) for hit, memory in answer.hits]
        return hits, answer.by_vector
    return await _find_everywhere(request, query, explain)


async def newest(request: Request, agent_id: str, limit: int) -> list[dict[str, Any]]:
    """The newest records of an agent."""
    found = await namespace(request, agent_id).read(memories.newest, limit)
    return [memory_record(agent_id, memory) for memory in found]


async def _post(request: Request) -> Response:
    UNASKED.read(request)
    fields = await read_fields(request, NEW)
    record, status = await store(request, AGENT.of(fields), fields)
    return success(request, record, status)


async def _post_batch(request: Request) -> Response:
    UNASKED.read(request)
    given = ITEMS.of(await read_fields(request, BATCH))
    agents = set()
    for number, item in enumerate(given):
        try:
            agents.add(AGENT.of(item))
        except Invalid as error:
            raise numbered(number, error) from None
    if len(agents) > 1:
        raise Invalid(
            "items must all have the same agent_id; send one batch for each agent.",
            where=("body", "items", "agent_id"),
        )
    [agent] = agents
    here = namespace(request, agent)
    here.require("write")
    made = await drafts(request, given)
    stored = await here.write(memories.put_all, made)
    answer = [
        _stored(here, draft, memory, merged)
        for draft, (memory, merged) in zip(made, stored, strict=True)
    ]
    return await pieced(
        {"items": answer, "count": len(answer)},
        partial(success, request, status=201),
        limited=False,
    )


async def _search(request: Request) -> Response:
    UNASKED.read(request)
    fields = await read_fields(request, SEARCH)
    agent = AGENT_SOUGHT.of(fields)
    require_reading(request, agent)
    query = await query_of(request, fields)
    found, by_vector = await find(request, query, agent, explain=EXPLAIN.of(fields))
    return await pieced(
        {"results": found, "count": len(found)},
        partial(success, request, meta=meta_of(request, query, by_vector=by_vector)),
    )


async def _get(request: Request) -> Response:
    here, id = _located(request, "read")
    memory = await here.read(memories.get, id)
    if memory is None:
        raise _missing()
    return success(request, memory_record(here.name, memory))


async def _delete(request: Request) -> Response:
    UNASKED.read(request)
    here, id = _located(request, "write")
    if not await here.delete(memories.delete, id):
        raise _missing()
    return Response(status_code=204)


async def _history(request: Request) -> Response:
    asked = PAGE.read(request)
    after, limit = AFTER.of(asked), LIMIT.of(asked)
    here, id = _located(request, "read")
    memory = await here.read(memories.get, id)
    if memory is None:
        raise _missing()
    listed = Listed(
        unit=memories.history,
        asked={"id": id, "after": after or 0},
        head={"id": memory.id, "current": memory_record(here.name, memory)},
        arrays={"history": replaced_record},
        # Whoever asks for neither gets them all.
        limit=DEFAULT_PAGE if limit is None and after is not None else limit,
        cursor=_cursor,
        wrap=partial(success, request),
    )
    return await listed.answer(request, here)


def _cursor(replaced: Replaced) -> str:
    return f"h{replaced.revision}"


async def _find_everywhere(
    request: Request, query: Query, explain: bool
) -> tuple[list[dict[str, Any]], bool]:
    tenant: Tenant = request.scope["tenant"]
    agents = await tenant.namespaces(holding="memories")
    found: list[ranking.Found] = []
    for start in range(0, len(agents), SIDE_BY_SIDE):
        some = agents[start : start + SIDE_BY_SIDE]
        found += await asyncio.gather(
            *(tenant.namespace(name).read(searching.gather, query) for name in some)
        )
    hits = await asyncio.to_thread(
        ranking.rank,
        found,
        mode=query.mode,
        context=query.context,
        threshold=query.threshold,
        limit=query.limit,
    )
    wanted: dict[int, list[int]] = {}
    for hit in hits:
        wanted.setdefault(hit.place, []).append(hit.memory)
    fetched = await asyncio.gather(
        *(
            tenant.namespace(agents[place]).read(memories.get_all, ids)
            for place, ids in wanted.items()
        )
    )
    there = dict(zip(wanted, fetched, strict=True))
    records = [
        _hit(agents[hit.place], there[hit.place][hit.memory], hit, explain)
        for hit in hits
        if hit.memory in there[hit.place]
    ]
    return records, all(one.by_vector for one in found)


def _hit(agent: str, memory: Memory, hit: Hit, explain: bool) -> dict[str, Any]:
    record = memory_record(agent, memory, score=hit.score)
    if explain:
        record["explanation"] = {
            "vector": hit.vector,
            "keyword": hit.keyword,
            "combined": hit.combined,
            "score": hit.score,
        }
    return record


def _stored(here: NamespaceRef, made: Draft, memory: Memory, merged: bool) -> dict[str, Any]:
    """The record of what was stored, as far as the key may know it.

    The metadata of a memory that it was merged with are there only for who may read them.
    """
    if not here.allows("read"):
        memory, merged = memories.as_sent(memory, made), False
    return memory_record(here.name, memory, deduplicated=merged)


def _located(request: Request, scope: str) -> tuple[NamespaceRef, int]:
    """The namespace that a memory's id names, and its number there, for who may do `scope` there.

    Raises `NotFound`, also for what is out of the key's reach.
    """
    tenant: Tenant = request.scope["tenant"]
    tenant.require(scope)
    found = memories.from_uuid(ID.of(request.path_params))
    here = None if found is None else tenant.namespace_by_id(found[0], scope)
    if found is None or here is None:
        raise _missing()
    return here, found[1]


def _missing() -> NotFound:
    return NotFound("There is no memory with this id.")
