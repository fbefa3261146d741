"""The Mnemora v1 dialect: state, semantic and episodic memory of the `mnemora` client.

An agent is a namespace: `agent_id` names the file that the same name opens in other dialects.
One module for each resource; `envelope` and `fields` are what they share.
"""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from botwire_server.summarizer import Summarizer
from botwire_server.web.description import BOOLEAN, STRING, TIME, Shape, operation
from botwire_server.web.dialect import Dialect, Resource
from botwire_server.web.mnemora import episodic, semantic, state, summaries, unified, usage
from botwire_server.web.mnemora.envelope import REFUSAL, refuse, success, wrapped
from botwire_server.web.mnemora.paths import Path

HEALTH = Shape(
    "V1Health",
    {
        "status": {"const": "ok"},
        "version": STRING,
        "embedder": STRING,
        "reembed_needed": BOOLEAN,
        "timestamp": TIME,
    },
)


def dialect(*, checkpoint_ids: bool, summarizer: Summarizer) -> Dialect:
    """The dialect. `checkpoint_ids` resolves stale LangGraph checkpoints by their ids."""
    return Dialect(
        title="Mnemora v1",
        prefix="/v1/",
        # Where two paths match, the first that has the method answers: the longest endings first.
        routes=[
            Path(resource)
            for resource in (
                *state.resources(checkpoint_ids=checkpoint_ids),
                *semantic.resources(),
                *summaries.resources(summarizer=summarizer),
                *episodic.resources(),
                *usage.resources(),
                *unified.resources(),
                Resource(
                    "/v1/health",
                    tag="Usage",
                    GET=operation(
                        _health,
                        "get_v1_health",
                        "Whether the server is alive",
                        answers={200: wrapped(HEALTH)},
                    ),
                ),
            )
        ],
        refuse=refuse,
        refusal=REFUSAL,
        public=frozenset({"/v1/health"}),
    )


async def _health(request: Request) -> Response:
    return success(
        request,
        {
            **request.scope["health"](),
            "timestamp": datetime.now(UTC).isoformat(timespec="microseconds"),
        },
    )
