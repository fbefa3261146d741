"""GET /v1/usage: what the tenant has used and holds."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from botwire_server.store.tenant import Tenant
from botwire_server.web.description import WHOLE, Shape, operation
from botwire_server.web.dialect import Resource
from botwire_server.web.mnemora.envelope import success, wrapped
from botwire_server.web.shapes import USAGE as REPORT

KINDS = ("total_bytes", "entries", "states", "memories", "episodes", "vectors")
USAGE = Shape(
    "Usage",
    {
        **REPORT,
        "storage": Shape("Storage", dict.fromkeys(KINDS, WHOLE)),
        "agents_count": WHOLE,
        "sessions_count": WHOLE,
    },
)


def resources() -> list[Resource]:
    """The one resource."""
    return [
        Resource(
            "/v1/usage",
            tag="Usage",
            GET=operation(
                _usage,
                "get_usage",
                "What the tenant has used and holds",
                answers={200: wrapped(USAGE)},
            ),
        )
    ]


async def _usage(request: Request) -> Response:
    tenant: Tenant = request.scope["tenant"]
    report = await tenant.usage()
    agents, held = await tenant.totals()
    return success(
        request,
        {
            **report,
            "storage": {
                "total_bytes": held.bytes,
                "entries": held.entries,
                "states": held.states,
                "memories": held.memories,
                "episodes": held.episodes,
                "vectors": held.vectors,
            },
            "agents_count": agents,
            "sessions_count": held.sessions,
        },
    )
