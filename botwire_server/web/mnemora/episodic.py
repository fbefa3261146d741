"""/v1/memory/episodic: what happened, append-only and replayed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from botwire_server import limits
from botwire_server.errors import AnswerTooLarge, Invalid
from botwire_server.store import episodes
from botwire_server.store.episodes import Draft, Episode, searchable
from botwire_server.web.description import STRING, WHOLE, Body, Query, Shape, listed, operation
from botwire_server.web.dialect import Resource
from botwire_server.web.fields import (
    Choice,
    Cursor,
    Field,
    Moment,
    Object,
    Schema,
    Values,
    Whole,
)
from botwire_server.web.listing import Listed
from botwire_server.web.mnemora.envelope import success, wrapped
from botwire_server.web.mnemora.fields import (
    AGENT,
    AGENT_IN_PATH,
    SESSION,
    SESSION_IN_PATH,
    UNASKED,
    Fields,
    Identifier,
    Items,
    Optional,
    numbered,
    read_fields,
)
from botwire_server.web.mnemora.paths import namespace
from botwire_server.web.mnemora.records import EPISODE, TYPES, episode_record
from botwire_server.web.pieces import pieced

TAG = "Episodic memory"
DEFAULT_PAGE = 50
LONGEST_PAGE = 500
# What can be searched in more is found off the loop.
BRIEF_BYTES = 32_768


class Content(Field[str | dict[str, Any]]):
    """What happened."""

    def __init__(self) -> None:
        schema: Schema = {
            "type": ["string", "object"],
            "maxLength": limits.TEXT,
            "x-max-bytes": limits.TEXT,
            "x-max-depth": limits.DEPTH,
        }
        super().__init__("content", "What happened: a text or an object.", schema, required=True)

    def of(self, values: Values) -> str | dict[str, Any]:
        """See `Field`."""
        content = values.get("content")
        if not isinstance(content, str | dict):
            raise self.refusal("content is required and must be a string or an object.")
        if isinstance(content, str):
            self.refuse_longer(content, limits.TEXT)
        return content

    def encoded(self, content: str | dict[str, Any]) -> bytes:
        """The content as JSON. Raises `Invalid` for an object that is too large."""
        encoded = orjson.dumps(content)
        if isinstance(content, dict):
            self.refuse_larger(encoded, limits.TEXT)
        return encoded


CONTENT = Content()
TYPE = Choice("type", "What kind of event.", TYPES, required=True)
METADATA = Object("metadata", "Whatever belongs to it.", largest=limits.METADATA)
EPISODE_BODY = Body(
    AGENT,
    SESSION,
    TYPE,
    CONTENT,
    METADATA,
    example={"agent_id": "a", "session_id": "s", "type": "conversation", "content": "Hello."},
)
ITEMS = Items(EPISODE_BODY)
BATCH = Body(ITEMS, example={"items": [EPISODE_BODY.example]})
SESSION_SOUGHT = Optional(Identifier("session_id", "Only of this session.", place="query"))
TYPE_SOUGHT = Choice("type", "Only of this kind.", TYPES, place="query")
SINCE = Moment("from", "Then or later.", place="query")
UNTIL = Moment("to", "Then or earlier.", end=True, place="query")
LIMIT = Whole(
    "limit", "Episodes at most.", least=1, most=LONGEST_PAGE, default=DEFAULT_PAGE, place="query"
)
AFTER = Cursor("e")
REPLAY_LIMIT = Whole(
    "limit", "Episodes at most; without it, all.", least=1, most=LONGEST_PAGE, place="query"
)
REPLAYED = Query(REPLAY_LIMIT, AFTER)
LISTED = Query(SESSION_SOUGHT, TYPE_SOUGHT, SINCE, UNTIL, LIMIT, AFTER)

STORED = Shape("StoredEpisodes", {"items": listed(EPISODE), "count": WHOLE})
EPISODES = Shape(
    "Episodes",
    {"episodes": listed(EPISODE), "count": WHOLE, "cursor": STRING},
    optional=frozenset({"cursor"}),
)
REPLAY = Shape(
    "Replay",
    {"session_id": STRING, "episodes": listed(EPISODE), "count": WHOLE, "cursor": STRING},
    optional=frozenset({"cursor"}),
)


def resources() -> list[Resource]:
    """The resources."""
    return [
        Resource(
            "/v1/memory/episodic",
            tag=TAG,
            POST=operation(
                _post,
                "create_episode",
                "Append an episode",
                query=UNASKED,
                body=EPISODE_BODY,
                answers={201: wrapped(EPISODE)},
            ),
        ),
        Resource(
            "/v1/memory/episodic/batch",
            tag=TAG,
            POST=operation(
                _post_batch,
                "create_episodes",
                "Append episodes of one agent, all or none",
                query=UNASKED,
                body=BATCH,
                answers={201: wrapped(STORED)},
            ),
        ),
        Resource(
            "/v1/memory/episodic/{agent_id:path}/sessions/{session_id:path}",
            tag=TAG,
            GET=operation(
                _replay,
                "replay_session",
                "Read a session from its beginning",
                path=(AGENT_IN_PATH, SESSION_IN_PATH),
                query=REPLAYED,
                answers={200: wrapped(REPLAY)},
                refusals=(AnswerTooLarge,),
            ),
        ),
        Resource(
            "/v1/memory/episodic/{agent_id:path}",
            tag=TAG,
            GET=operation(
                _listing,
                "list_episodes",
                "List an agent's episodes, oldest first",
                path=(AGENT_IN_PATH,),
                query=LISTED,
                answers={200: wrapped(EPISODES)},
                refusals=(AnswerTooLarge,),
            ),
        ),
    ]


async def store(request: Request, fields: Fields) -> dict[str, Any]:
    """Append an episode; its record."""
    agent = AGENT.of(fields)
    content = CONTENT.of(fields)
    encoded = CONTENT.encoded(content)
    text = (
        searchable(content)
        if len(encoded) <= BRIEF_BYTES
        else await asyncio.to_thread(searchable, content)
    )
    draft = _draft(fields, encoded, text)
    return episode_record(agent, await namespace(request, agent).write(episodes.append, *draft))


async def _post(request: Request) -> Response:
    UNASKED.read(request)
    return success(request, await store(request, await read_fields(request, EPISODE_BODY)), 201)


async def _post_batch(request: Request) -> Response:
    UNASKED.read(request)
    items = ITEMS.of(await read_fields(request, BATCH))
    # What can be searched in a thousand episodes takes a while to find.
    drafts, agents = await asyncio.to_thread(_drafts, items)
    if len(agents) > 1:
        raise Invalid(
            "items must all have the same agent_id; send one batch for each agent.",
            where=("body", "items", "agent_id"),
        )
    [agent] = agents
    stored = await namespace(request, agent).write(episodes.append_all, drafts)
    answer = [episode_record(agent, episode) for episode in stored]
    return await pieced(
        {"items": answer, "count": len(answer)},
        partial(success, request, status=201),
        limited=False,
    )


async def _listing(request: Request) -> Response:
    agent = AGENT_IN_PATH.of(request.path_params)
    found = LISTED.read(request)
    listed = Listed(
        unit=episodes.listing,
        asked={
            "session_id": SESSION_SOUGHT.of(found),
            "type": TYPE_SOUGHT.of(found),
            "since": SINCE.of(found),
            "until": UNTIL.of(found),
            "after": AFTER.of(found) or 0,
        },
        head={},
        arrays={"episodes": partial(episode_record, agent)},
        limit=LIMIT.of(found) or DEFAULT_PAGE,
        cursor=_cursor,
        wrap=partial(success, request),
    )
    return await listed.answer(request, namespace(request, agent))


async def _replay(request: Request) -> Response:
    agent = AGENT_IN_PATH.of(request.path_params)
    session = SESSION_IN_PATH.of(request.path_params)
    found = REPLAYED.read(request)
    cursor = AFTER.of(found)
    limit = REPLAY_LIMIT.of(found)
    listed = Listed(
        unit=episodes.listing,
        asked={"session_id": session, "after": cursor or 0},
        head={"session_id": session},
        arrays={"episodes": partial(episode_record, agent)},
        # Whoever asks for neither gets them all.
        limit=LONGEST_PAGE if limit is None and cursor is not None else limit,
        cursor=_cursor,
        wrap=partial(success, request),
    )
    return await listed.answer(request, namespace(request, agent))


def _cursor(episode: Episode) -> str:
    return f"e{episode.id}"


def _drafts(items: Sequence[Fields]) -> tuple[list[Draft], set[str]]:
    """The episodes of a batch, and whose they are."""
    drafts = []
    agents = set()
    for number, item in enumerate(items):
        try:
            agents.add(AGENT.of(item))
            content = CONTENT.of(item)
            drafts.append(_draft(item, CONTENT.encoded(content), searchable(content)))
        except Invalid as error:
            raise numbered(number, error) from None
    return drafts, agents


def _draft(fields: Fields, content: bytes, text: str) -> Draft:
    session = SESSION.of(fields)
    type = str(TYPE.of(fields))
    metadata = METADATA.of(fields)
    return Draft(session, type, content, orjson.dumps(metadata), text)
