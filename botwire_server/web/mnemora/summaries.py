"""POST /v1/memory/episodic/{agent_id}/summarize: the last episodes in few words.

The summary is stored as a memory that says how it was made, and of what.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from botwire_server.errors import NotFound
from botwire_server.store import episodes
from botwire_server.summarizer import Summarizer
from botwire_server.web.description import STRING, TIME, WHOLE, Body, Shape, operation
from botwire_server.web.dialect import Resource
from botwire_server.web.fields import Whole
from botwire_server.web.mnemora import semantic
from botwire_server.web.mnemora.envelope import iso, success, wrapped
from botwire_server.web.mnemora.fields import AGENT_IN_PATH, UNASKED, read_fields
from botwire_server.web.mnemora.paths import namespace
from botwire_server.web.mnemora.records import episode_id

MOST_EPISODES = 500

EPISODES = Whole("num_episodes", "Of so many, the last.", least=1, most=MOST_EPISODES, default=50)
WORDS = Whole("target_length", "Words at most.", least=50, most=5_000, default=500)
WANTED = Body(EPISODES, WORDS, example={})
SUMMARY = Shape(
    "Summary",
    {
        "summary": STRING,
        "episode_count": WHOLE,
        "semantic_memory_id": STRING,
        "time_range": Shape("TimeRange", {"from": TIME, "to": TIME}),
        "method": STRING,
    },
)


def resources(*, summarizer: Summarizer) -> list[Resource]:
    """The one resource."""

    async def summarize(request: Request) -> Response:
        return await _summarize(request, summarizer)

    return [
        Resource(
            "/v1/memory/episodic/{agent_id:path}/summarize",
            tag="Episodic memory",
            POST=operation(
                summarize,
                "summarize_episodes",
                "Summarise the last episodes and store the summary as a memory",
                path=(AGENT_IN_PATH,),
                query=UNASKED,
                body=WANTED,
                answers={200: wrapped(SUMMARY)},
                refusals=(NotFound,),
            ),
        )
    ]


async def _summarize(request: Request, summarizer: Summarizer) -> Response:
    agent = AGENT_IN_PATH.of(request.path_params)
    UNASKED.read(request)
    fields = await read_fields(request, WANTED)
    wanted = EPISODES.of(fields) or 50
    most_words = WORDS.of(fields) or 500
    here = namespace(request, agent)
    here.require("write")  # before a model is asked
    found = await here.read(episodes.said, wanted)
    texts = [episode.text for episode in found]
    if not any(texts):
        raise NotFound("This agent has no episodes that could be summarised.")
    summary = await summarizer.summarize(texts, most_words=most_words)
    time_range = {"from": iso(found[0].created_at), "to": iso(found[-1].created_at)}
    memory, _ = await semantic.store(
        request,
        agent,
        {
            "content": summary.text,
            "metadata": {
                "source": "episodic_summary",
                "method": summarizer.method,
                "episode_ids": [episode_id(found[position]) for position in summary.sources],
                "episode_count": len(found),
                "time_range": time_range,
            },
        },
    )
    return success(
        request,
        {
            "summary": summary.text,
            "episode_count": len(found),
            "semantic_memory_id": memory["id"],
            "time_range": time_range,
            "method": summarizer.method,
        },
    )
