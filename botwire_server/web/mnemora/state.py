"""/v1/state: versioned session documents with compare-and-set."""

from __future__ import annotations

import re
import struct
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from botwire_server import limits
from botwire_server.errors import AnswerTooLarge, Conflict, Invalid, NotFound
from botwire_server.store import states
from botwire_server.store.states import Behind, Session
from botwire_server.web.description import (
    STRING,
    TIME,
    WHOLE,
    Body,
    Query,
    Shape,
    listed,
    operation,
    or_null,
)
from botwire_server.web.dialect import Resource
from botwire_server.web.fields import Field, Object, Values, Whole
from botwire_server.web.listing import COUNT, Listed
from botwire_server.web.mnemora import checkpoints
from botwire_server.web.mnemora.envelope import iso, iso_or_none, success, wrapped
from botwire_server.web.mnemora.fields import (
    AGENT,
    AGENT_IN_PATH,
    DEFAULT_SESSION,
    SESSION_IN_PATH,
    UNASKED,
    Fields,
    Identifier,
    read_fields,
)
from botwire_server.web.mnemora.paths import namespace
from botwire_server.web.mnemora.records import STATE, state_record

TAG = "State"

LONGEST_TTL_HOURS = 8_760
LARGEST_VERSION = 2**63 - 1
LONGEST_PAGE = 10_000


class BehindSession(Field[Behind | None]):
    """Where a listing of sessions goes on, as an earlier answer gave it; None where it is missing.

    A session is known by when it was written, as the bits of a float, and its id.
    """

    _PATTERN = "^s([0-9]{1,19})-([0-9]{1,18})$"

    def __init__(self) -> None:
        schema = {"type": "string", "maxLength": limits.CURSOR, "pattern": self._PATTERN}
        super().__init__("cursor", "Where an earlier answer ended.", schema, place="query")

    def of(self, values: Values) -> Behind | None:
        """See `Field`."""
        cursor = values.get("cursor")
        if cursor is None:
            return None
        found = re.fullmatch(self._PATTERN, cursor)
        bits = int(found[1]) if found else LARGEST_VERSION + 1
        if found is None or bits > LARGEST_VERSION:
            raise self.refusal("cursor must be one that an earlier answer gave.")
        [updated_at] = struct.unpack(">d", struct.pack(">q", bits))
        return updated_at, int(found[2])

    @staticmethod
    def at(session: Session) -> str:
        """The cursor that goes on behind a session."""
        [bits] = struct.unpack(">q", struct.pack(">d", session.updated_at))
        return f"s{bits}-{session.id}"


BEHIND = BehindSession()
LIMIT = Whole(
    "limit", "Sessions at most; without it, all.", least=1, most=LONGEST_PAGE, place="query"
)
LISTED = Query(LIMIT, BEHIND)
SESSION = Identifier("session_id", "The session.", default=DEFAULT_SESSION)
SESSION_ASKED = Identifier("session_id", SESSION.help, default=DEFAULT_SESSION, place="query")
ASKED = Query(SESSION_ASKED)
# Its body's bound is its own.
DATA = Object("data", "The document.", largest=limits.STATE, check=False, required=True)
VERSION = Whole(
    "version", "The one that was read with it.", least=1, most=LARGEST_VERSION, required=True
)
TTL = Whole(
    "ttl_hours",
    "Hours after which it is gone. Without it, it stays; a PUT leaves what was set.",
    least=1,
    most=LONGEST_TTL_HOURS,
)
NEW = Body(
    AGENT, SESSION, DATA, TTL, most=limits.STATE, example={"agent_id": "a", "data": {"step": 1}}
)
CHANGE = Body(
    SESSION, DATA, VERSION, TTL, most=limits.STATE, example={"data": {"step": 2}, "version": 1}
)

SESSION_DETAIL = Shape(
    "SessionDetail",
    {
        "session_id": STRING,
        "version": WHOLE,
        "created_at": TIME,
        "updated_at": TIME,
        "expires_at": or_null(TIME),
    },
)
SESSIONS = Shape(
    "Sessions",
    {
        "agent_id": STRING,
        "sessions": listed(STRING),
        "count": WHOLE,
        "session_details": listed(SESSION_DETAIL),
        "cursor": STRING,
    },
    optional=frozenset({"cursor"}),
)
GONE = Shape("DeletedState", {"deleted": {"const": True}, "agent_id": STRING, "session_id": STRING})


def resources(*, checkpoint_ids: bool) -> list[Resource]:
    """The resources; `checkpoint_ids` resolves stale LangGraph checkpoints by their ids."""
    handlers = _Handlers(checkpoint_ids)
    return [
        Resource(
            "/v1/state",
            tag=TAG,
            POST=operation(
                handlers.post,
                "create_state",
                "Store a state, over the one that is there",
                query=UNASKED,
                body=NEW,
                answers={201: wrapped(STATE)},
            ),
        ),
        Resource(
            "/v1/state/{agent_id:path}/sessions",
            tag=TAG,
            GET=operation(
                handlers.sessions,
                "list_sessions",
                "List an agent's sessions that have a state",
                path=(AGENT_IN_PATH,),
                query=LISTED,
                answers={200: wrapped(SESSIONS)},
                refusals=(AnswerTooLarge,),
            ),
        ),
        Resource(
            "/v1/state/{agent_id:path}/{session_id}",
            tag=TAG,
            DELETE=operation(
                handlers.delete,
                "delete_state",
                "Delete a state",
                path=(AGENT_IN_PATH, SESSION_IN_PATH),
                query=UNASKED,
                answers={200: wrapped(GONE)},
                refusals=(NotFound,),
            ),
        ),
        Resource(
            "/v1/state/{agent_id:path}",
            tag=TAG,
            GET=operation(
                handlers.get,
                "get_state",
                "Read a state",
                path=(AGENT_IN_PATH,),
                query=ASKED,
                answers={200: wrapped(STATE)},
                refusals=(NotFound,),
            ),
            PUT=operation(
                handlers.put,
                "update_state",
                "Change a state, if it still has the version that was read",
                path=(AGENT_IN_PATH,),
                query=UNASKED,
                body=CHANGE,
                answers={200: wrapped(STATE)},
                refusals=(NotFound, Conflict),
            ),
        ),
    ]


async def store(request: Request, fields: Fields) -> dict[str, Any]:
    """Store a state, over the one that is there; its record."""
    agent = AGENT.of(fields)
    session = SESSION.of(fields)
    data = DATA.of(fields)
    ttl = _ttl(fields)
    state = await namespace(request, agent).write(states.put, session, orjson.dumps(data), ttl=ttl)
    return state_record(agent, state)


class _Handlers:
    def __init__(self, checkpoint_ids: bool) -> None:
        self._checkpoint_ids = checkpoint_ids

    async def post(self, request: Request) -> Response:
        UNASKED.read(request)
        fields = await read_fields(request, NEW)
        return success(request, await store(request, fields), 201)

    async def get(self, request: Request) -> Response:
        agent = AGENT_IN_PATH.of(request.path_params)
        session = SESSION_ASKED.of(ASKED.read(request))
        state = await namespace(request, agent).read(states.get, session)
        if state is None:
            raise _no_state()
        return success(request, state_record(agent, state))

    async def put(self, request: Request) -> Response:
        agent = AGENT_IN_PATH.of(request.path_params)
        UNASKED.read(request)
        fields = await read_fields(request, CHANGE)
        session = SESSION.of(fields)
        data = DATA.of(fields)
        version = VERSION.of(fields)
        if version is None:
            raise Invalid(
                "version is required: the one that was read with the state.",
                where=("body", "version"),
            )
        here = namespace(request, agent)
        may_read = here.allows("read")
        # Not `write`: what does not exist is not made by an update.
        try:
            state = await here.update(
                states.update,
                session,
                orjson.dumps(data),
                version=version,
                ttl=_ttl(fields),
                resolve=self._resolver(data) if may_read else None,
            )
        except Conflict:
            if may_read:
                raise
            raise Conflict(
                "The state is not at this version: somebody whose key may read has to read it "
                "again and repeat the change."
            ) from None
        if state is None:
            raise _no_state()
        return success(request, state_record(agent, state))

    async def sessions(self, request: Request) -> Response:
        agent = AGENT_IN_PATH.of(request.path_params)
        found = LISTED.read(request)
        cursor = BEHIND.of(found)
        limit = LIMIT.of(found)
        listed = Listed(
            unit=states.sessions,
            asked={"behind": cursor},
            head={"agent_id": agent},
            arrays={"sessions": _session_id, "count": COUNT, "session_details": _detail},
            # Whoever asks for neither gets them all.
            limit=LONGEST_PAGE if limit is None and cursor is not None else limit,
            cursor=BEHIND.at,
            wrap=partial(success, request),
        )
        return await listed.answer(request, namespace(request, agent))

    async def delete(self, request: Request) -> Response:
        agent = AGENT_IN_PATH.of(request.path_params)
        session = SESSION_IN_PATH.of(request.path_params)
        UNASKED.read(request)
        if not await namespace(request, agent).delete(states.delete, session):
            raise _no_state()
        return success(request, {"deleted": True, "agent_id": agent, "session_id": session})

    def _resolver(self, data: dict[str, Any]) -> states.Resolve | None:
        # It compares with what is stored, and its outcome tells of that: for who may read.
        return checkpoints.resolver(data, most=limits.STATE) if self._checkpoint_ids else None


def _session_id(session: Session) -> str:
    return session.session_id


def _detail(session: Session) -> dict[str, Any]:
    return {
        "session_id": session.session_id,
        "version": session.version,
        "created_at": iso(session.created_at),
        "updated_at": iso(session.updated_at),
        "expires_at": iso_or_none(session.expires_at),
    }


def _ttl(fields: Fields) -> float | None:
    hours = TTL.of(fields)
    return None if hours is None else hours * 3600.0


def _no_state() -> NotFound:
    return NotFound("There is no state for this agent and session.")
