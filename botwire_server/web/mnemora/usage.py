"""GET /v1/usage: what the tenant has used and holds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from botwire_server.store.tenant import Tenant
from botwire_server.web.dialect import Resource
from botwire_server.web.mnemora.envelope import success


class Counted(NamedTuple):
    """What is counted beside the data, of this tenant."""

    calls_today: int = 0
    calls_month: int = 0
    embeddings_month: int = 0


def resources() -> list[Resource]:
    """The one resource."""
    return [Resource("/v1/usage", GET=_usage)]


async def _usage(request: Request) -> Response:
    tenant: Tenant = request.scope["tenant"]
    agents, held = await tenant.totals()
    counted = await _counted(tenant)
    return success(
        request,
        {
            "api_calls_today": counted.calls_today,
            "api_calls_month": counted.calls_month,
            "embeddings_generated_month": counted.embeddings_month,
            "storage": {
                "total_bytes": held.bytes,
                "entries": held.entries,
                "states": held.states,
                "memories": held.memories,
                "episodes": held.episodes,
                "vectors": held.vectors,
            },
            "storage_bytes": held.bytes,
            "vectors_stored": held.vectors,
            "agents_count": agents,
            "sessions_count": held.sessions,
            "billing_period": f"{datetime.now(UTC):%Y-%m}",
        },
    )


async def _counted(tenant: Tenant) -> Counted:
    """The calls and embeddings of this tenant; they are counted where keys are."""
    return Counted()
