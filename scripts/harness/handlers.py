"""The application in this process, with its handlers cancelled at random points.

Import it only once the package to be tested is on the path.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from botwire_server.config import Config
from botwire_server.errors import Unusable
from botwire_server.store.driver import Durability
from botwire_server.web.app import App, create_app

Message = dict[str, Any]


@asynccontextmanager
async def running(data_dir: Path, *, durability: Durability = "full") -> AsyncIterator[App]:
    """The application between its start and its end. Raises `Unusable` if it does not start."""
    app = create_app(Config(data_dir=data_dir, durability=durability))
    events: asyncio.Queue[Message] = asyncio.Queue()
    told: asyncio.Queue[Message] = asyncio.Queue()
    life = asyncio.create_task(app({"type": "lifespan"}, events.get, told.put))  # type: ignore[arg-type]
    await events.put({"type": "lifespan.startup"})
    if (await told.get())["type"] != "lifespan.startup.complete":
        await life
        raise app.failure or Unusable("The application did not start.")
    try:
        yield app
    finally:
        await events.put({"type": "lifespan.shutdown"})
        await life


async def call(app: App, method: str, path: str, body: bytes) -> int:
    """One request with its body in two pieces; the status."""
    status, _ = await _exchange(app, method, path, body)
    return status


async def answer(app: App, method: str, path: str, body: bytes) -> tuple[int, Any]:
    """One request; its status and JSON answer."""
    status, text = await _exchange(app, method, path, body)
    return status, orjson.loads(text) if text else None


async def _exchange(app: App, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    status = 0
    text = b""
    half = len(body) // 2
    pieces = [
        {"type": "http.request", "body": body[half:], "more_body": False},
        {"type": "http.request", "body": body[:half], "more_body": True},
    ]

    async def receive() -> Message:
        await asyncio.sleep(0)
        return pieces.pop() if pieces else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        nonlocal status, text
        await asyncio.sleep(0)
        status = message.get("status", status)
        text += message.get("body", b"")

    path, _, query = path.partition("?")
    scope: Message = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    await app(scope, receive, send)
    return status, text


async def cancelled(app: App, method: str, path: str, body: bytes, *, after: float) -> str:
    """One request, cancelled `after` seconds unless it is done by then; how it ended."""
    task = asyncio.create_task(call(app, method, path, body))
    await spin(after, until=task.done)
    task.cancel()
    try:
        return str(await task)
    except asyncio.CancelledError:
        return "cancelled"


async def spin(seconds: float, until: Callable[[], bool] = lambda: False) -> None:
    """Sleep in single rounds of the loop: timers tick in milliseconds, and all is over by then."""
    deadline = time.perf_counter() + seconds
    while not until() and time.perf_counter() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0)


def random_request(chance: random.Random, slot: int, number: int) -> tuple[str, str, bytes]:
    """Method, path and body. A key in a `puts` namespace is written once and never again."""
    value = b'{"value": "%s"}' % (b"v" * chance.choice((200, 200, 200, 5_000, 100_000)))
    kind = chance.random()
    if kind < 0.6:
        return "PUT", f"/memory/puts-{slot}/k{number}", value
    if kind < 0.7:
        return "PUT", f"/memory/new-{number}/k", value
    if kind < 0.85:
        return "PUT", f"/memory/shared/k{number % 10}", value
    if kind < 0.95:
        return "DELETE", f"/memory/shared/k{number % 10}", b""
    return "GET", "/memory/shared", b""
