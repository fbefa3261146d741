"""GET /v1/usage: what the tenant has used and holds."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from botwire_server.store.tenant import Tenant
from botwire_server.web.dialect import Resource
from botwire_server.web.mnemora.envelope import success


def resources() -> list[Resource]:
    """The one resource."""
    return [Resource("/v1/usage", GET=_usage)]


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
