"""/v1/memory/episodic: what happened, append-only and replayed."""

from __future__ import annotations

import re
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from botwire_server.errors import Invalid
from botwire_server.store import episodes
from botwire_server.store.episodes import Draft, searchable
from botwire_server.web.body import query, query_number
from botwire_server.web.dialect import Resource
from botwire_server.web.mnemora.envelope import success
from botwire_server.web.mnemora.fields import (
    Fields,
    agent_id,
    items,
    mapping,
    moment,
    numbered,
    optional_session_id,
    read_fields,
    refuse_query,
    session_id,
)
from botwire_server.web.mnemora.paths import namespace
from botwire_server.web.mnemora.records import episode_record

TYPES = ("conversation", "action", "observation", "tool_call")

DEFAULT_PAGE = 50
LONGEST_PAGE = 500


def resources() -> list[Resource]:
    """The resources."""
    return [
        Resource("/v1/memory/episodic", POST=_post),
        Resource("/v1/memory/episodic/batch", POST=_post_batch),
        Resource("/v1/memory/episodic/{agent_id:path}/sessions/{session_id:path}", GET=_replay),
        Resource("/v1/memory/episodic/{agent_id:path}", GET=_listing),
    ]


async def store(request: Request, fields: Fields) -> dict[str, Any]:
    """Append an episode; its record."""
    agent = agent_id(fields)
    draft = _draft(fields)
    return episode_record(agent, await namespace(request, agent).write(episodes.append, *draft))


async def _post(request: Request) -> Response:
    refuse_query(request)
    return success(request, await store(request, await read_fields(request)), 201)


async def _post_batch(request: Request) -> Response:
    refuse_query(request)
    drafts = []
    agents = set()
    for number, item in enumerate(items(await read_fields(request))):
        try:
            agents.add(agent_id(item))
            drafts.append(_draft(item))
        except Invalid as error:
            raise numbered(number, error) from None
    if len(agents) > 1:
        raise Invalid(
            "items must all have the same agent_id; send one batch for each agent.",
            where=("body", "items", "agent_id"),
        )
    [agent] = agents
    stored = await namespace(request, agent).write(episodes.append_all, drafts)
    answer = [episode_record(agent, episode) for episode in stored]
    return success(request, {"items": answer, "count": len(answer)}, 201)


async def _listing(request: Request) -> Response:
    agent = agent_id(request.path_params, where="path")
    found = query(request, "session_id", "type", "from", "to", "limit", "cursor", strict=False)
    limit = query_number(found, "limit", least=1, most=LONGEST_PAGE) or DEFAULT_PAGE
    page = await namespace(request, agent).read(
        episodes.listing,
        session_id=optional_session_id(found, where="query"),
        type=_type(found, where="query") if "type" in found else None,
        since=moment(found, "from"),
        until=moment(found, "to", end=True),
        after=_cursor(found),
        limit=limit + 1,
    )
    shown = page[:limit]
    answer = {
        "episodes": [episode_record(agent, episode) for episode in shown],
        "count": len(shown),
    }
    if len(page) > limit:
        answer["cursor"] = f"e{shown[-1].id}"
    return success(request, answer)


async def _replay(request: Request) -> Response:
    agent = agent_id(request.path_params, where="path")
    session = session_id(request.path_params, where="path")
    found = await namespace(request, agent).read(episodes.listing, session_id=session)
    answer = [episode_record(agent, episode) for episode in found]
    return success(request, {"session_id": session, "episodes": answer, "count": len(answer)})


def _draft(fields: Fields) -> Draft:
    session = session_id(fields)
    type = _type(fields, where="body")
    content = fields.get("content")
    if not isinstance(content, str | dict):
        raise Invalid(
            "content is required and must be a string or an object.", where=("body", "content")
        )
    metadata = mapping(fields, "metadata")
    return Draft(session, type, orjson.dumps(content), orjson.dumps(metadata), searchable(content))


def _type(fields: Fields, *, where: str) -> str:
    value = fields.get("type")
    if value not in TYPES:
        raise Invalid(f"type must be one of {', '.join(TYPES)}.", where=(where, "type"))
    return str(value)


def _cursor(found: Fields) -> int:
    cursor = found.get("cursor")
    if cursor is None:
        return 0
    if not re.fullmatch("e[0-9]{1,18}", cursor):
        raise Invalid("cursor must be one that an earlier answer gave.", where=("query", "cursor"))
    return int(cursor[1:])
