"""/v1/memory/semantic: texts that are found by meaning."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from botwire_server.web.dialect import Resource
from botwire_server.web.mnemora.fields import Fields


def resources() -> list[Resource]:
    """The resources."""
    return []


async def store(request: Request, agent_id: str, fields: Fields) -> tuple[dict[str, Any], int]:
    """Store a memory: its record, and 201, or 200 where it was merged."""
    raise NotImplementedError


async def search(
    request: Request, query: str, *, agent_id: str | None, top_k: int, threshold: float
) -> list[dict[str, Any]]:
    """The records nearest to `query`, best first; of all agents where none is named."""
    return []


async def newest(request: Request, agent_id: str, limit: int) -> list[dict[str, Any]]:
    """The newest records of an agent."""
    return []
