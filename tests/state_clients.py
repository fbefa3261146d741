"""Clients that change one state document at the same time, and write down what they saw."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable
from typing import Any

import httpx
from linearizability import Operation

SESSION = "default"


async def history(
    url: str, agent: str, *, clients: int, operations: int, seed: int
) -> list[Operation]:
    """What `clients` clients saw of the state of `agent`."""
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as http:
        parts = await asyncio.gather(
            *(
                _client(http, agent, number, operations, random.Random(seed * 1000 + number))
                for number in range(clients)
            )
        )
    return [operation for part in parts for operation in part]


async def _client(
    http: httpx.AsyncClient, agent: str, number: int, operations: int, random: random.Random
) -> list[Operation]:
    seen: list[Operation] = []
    version = 1

    async def record(name: str, argument: Any, doing: Awaitable[Any]) -> Any:
        called = time.perf_counter()
        answer = await doing
        seen.append(Operation(name, argument, answer, called, time.perf_counter()))
        return answer

    for step in range(operations):
        content = f"{number}-{step}"
        kind = random.random()
        if kind < 0.42:
            found = await record("get", None, _get(http, agent))
            version = found[0] if found else 1
        elif kind < 0.84:
            argument = (content, version)
            answer = await record("update", argument, _update(http, agent, content, version))
            version = answer if isinstance(answer, int) else version
        elif kind < 0.98:
            version = await record("store", content, _store(http, agent, content))
        else:
            await record("delete", None, _delete(http, agent))
    return seen


async def _get(http: httpx.AsyncClient, agent: str) -> tuple[int, str] | None:
    answer = await http.get(f"/v1/state/{agent}")
    if answer.status_code == 404:
        return None
    answer.raise_for_status()
    state = answer.json()["data"]
    return state["version"], state["data"]["content"]


async def _store(http: httpx.AsyncClient, agent: str, content: str) -> int:
    answer = await http.post("/v1/state", json={"agent_id": agent, "data": {"content": content}})
    answer.raise_for_status()
    return int(answer.json()["data"]["version"])


async def _update(http: httpx.AsyncClient, agent: str, content: str, version: int) -> int | str:
    body = {"data": {"content": content}, "version": version}
    answer = await http.put(f"/v1/state/{agent}", json=body)
    if answer.status_code in (404, 409):
        return "missing" if answer.status_code == 404 else "conflict"
    answer.raise_for_status()
    return int(answer.json()["data"]["version"])


async def _delete(http: httpx.AsyncClient, agent: str) -> bool:
    answer = await http.delete(f"/v1/state/{agent}/{SESSION}")
    if answer.status_code == 404:
        return False
    answer.raise_for_status()
    return True
