"""/v1/state: versioned session documents with compare-and-set."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from botwire_server.errors import Invalid, NotFound
from botwire_server.store import states
from botwire_server.web.body import query
from botwire_server.web.dialect import Resource
from botwire_server.web.mnemora import checkpoints
from botwire_server.web.mnemora.envelope import iso, iso_or_none, success
from botwire_server.web.mnemora.fields import (
    DEFAULT_SESSION,
    Fields,
    agent_id,
    mapping,
    read_fields,
    refuse_query,
    session_id,
    whole,
)
from botwire_server.web.mnemora.paths import namespace
from botwire_server.web.mnemora.records import state_record

LARGEST_BODY = 400 * 1024
LONGEST_TTL_HOURS = 8_760
LARGEST_VERSION = 2**63 - 1


def resources(*, checkpoint_ids: bool) -> list[Resource]:
    """The resources; `checkpoint_ids` resolves stale LangGraph checkpoints by their ids."""
    handlers = _Handlers(checkpoint_ids)
    return [
        Resource("/v1/state", POST=handlers.post),
        Resource("/v1/state/{agent_id:path}/sessions", GET=handlers.sessions),
        Resource("/v1/state/{agent_id:path}/{session_id}", DELETE=handlers.delete),
        Resource("/v1/state/{agent_id:path}", GET=handlers.get, PUT=handlers.put),
    ]


async def store(request: Request, fields: Fields) -> dict[str, Any]:
    """Store a state, over the one that is there; its record."""
    agent = agent_id(fields)
    session = session_id(fields, default=DEFAULT_SESSION)
    data = mapping(fields, "data", required=True)
    ttl = _ttl(fields)
    state = await namespace(request, agent).write(states.put, session, orjson.dumps(data), ttl=ttl)
    return state_record(agent, state)


class _Handlers:
    def __init__(self, checkpoint_ids: bool) -> None:
        self._checkpoint_ids = checkpoint_ids

    async def post(self, request: Request) -> Response:
        refuse_query(request)
        fields = await read_fields(request, most=LARGEST_BODY)
        return success(request, await store(request, fields), 201)

    async def get(self, request: Request) -> Response:
        agent = agent_id(request.path_params, where="path")
        found = query(request, "session_id", strict=False)
        session = session_id(found, where="query", default=DEFAULT_SESSION)
        state = await namespace(request, agent).read(states.get, session)
        if state is None:
            raise _no_state()
        return success(request, state_record(agent, state))

    async def put(self, request: Request) -> Response:
        agent = agent_id(request.path_params, where="path")
        refuse_query(request)
        fields = await read_fields(request, most=LARGEST_BODY)
        session = session_id(fields, default=DEFAULT_SESSION)
        data = mapping(fields, "data", required=True)
        version = whole(fields, "version", least=1, most=LARGEST_VERSION)
        if version is None:
            raise Invalid(
                "version is required: the one that was read with the state.",
                where=("body", "version"),
            )
        # Not `write`: what does not exist is not made by an update.
        state = await namespace(request, agent).update(
            states.update,
            session,
            orjson.dumps(data),
            version=version,
            ttl=_ttl(fields),
            resolve=checkpoints.resolver(data) if self._checkpoint_ids else None,
        )
        if state is None:
            raise _no_state()
        return success(request, state_record(agent, state))

    async def sessions(self, request: Request) -> Response:
        agent = agent_id(request.path_params, where="path")
        found = await namespace(request, agent).read(states.sessions)
        return success(
            request,
            {
                "agent_id": agent,
                "sessions": [session.session_id for session in found],
                "count": len(found),
                "session_details": [
                    {
                        "session_id": session.session_id,
                        "version": session.version,
                        "created_at": iso(session.created_at),
                        "updated_at": iso(session.updated_at),
                        "expires_at": iso_or_none(session.expires_at),
                    }
                    for session in found
                ],
            },
        )

    async def delete(self, request: Request) -> Response:
        agent = agent_id(request.path_params, where="path")
        session = session_id(request.path_params, where="path")
        refuse_query(request)
        if not await namespace(request, agent).delete(states.delete, session):
            raise _no_state()
        return success(request, {"deleted": True, "agent_id": agent, "session_id": session})


def _ttl(fields: Fields) -> float | None:
    hours = whole(fields, "ttl_hours", least=1, most=LONGEST_TTL_HOURS)
    return None if hours is None else hours * 3600.0


def _no_state() -> NotFound:
    return NotFound("There is no state for this agent and session.")
