"""The listener that figures can have for themselves: `/metrics`, `/health` and `/ready`, no keys.

Nothing else is reached here, whatever is asked: it holds no way to tenants' data. Who may connect
is decided by the address it listens on.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from botwire_server.addresses import Address, of_setting
from botwire_server.errors import Internal, MethodNotAllowed, NotFound, Refusal
from botwire_server.logs import describe
from botwire_server.logs import request_id as current_request
from botwire_server.web import metrics, ready
from botwire_server.web.auth import protect
from botwire_server.web.body import Json

log = logging.getLogger(__name__)


def listens_at(setting: str) -> Address | None:
    """The address in `--metrics`, None for `on` and `off`. Raises `Unusable`."""
    if setting in ("on", "off"):
        return None
    return of_setting(setting, setting="--metrics")


class Observatory:
    """The ASGI application of that listener."""

    def __init__(
        self,
        *,
        page: metrics.Page,
        health: Callable[[], dict[str, Any]],
        state: Callable[[], Awaitable[ready.State]],
        new_id: Callable[[], str],
        local: bool,
    ) -> None:
        self._page = page
        self._health = health
        self._state = state
        self._new_id = new_id
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        request_id = self._new_id()
        scope["request_id"] = request_id
        current_request.set(request_id)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            response = await self._respond(scope)
        except Refusal as error:
            response = ready.refuse(error, request_id)
        await response(scope, receive, answer)

    def refuse(
        self, path: str, error: Refusal, status: int, scope: MutableMapping[str, Any] | None = None
    ) -> Response:
        """The answer for what never gets here."""
        request_id = (scope or {}).get("request_id") or self._new_id()
        response = ready.refuse(error, request_id)
        response.raw_headers.append((b"x-request-id", request_id.encode()))
        return response

    async def _respond(self, scope: Scope) -> Response:
        headers = scope["headers"]
        protect(headers, dict(headers), local=self._local)
        path = scope["path"]
        if path not in (metrics.PATH, ready.PATH, "/health"):
            raise NotFound("Here are /metrics, /health and /ready only.")
        if scope["method"] not in ("GET", "HEAD"):
            raise MethodNotAllowed("This path answers GET only.", allowed=("GET",))
        try:
            if path == ready.PATH:
                return ready.response(await self._state())
            return Json(self._health()) if path == "/health" else await self._page.response()
        except Refusal:
            raise
        except Exception as error:
            # The last moments of a server that ends, or a fault of ours.
            log.error("unexpected: %s", describe(error))
            raise Internal(scope["request_id"]) from error
