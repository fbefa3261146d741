"""`/ready`: whether this server can work, for load balancers and monitors.

It is asked without a key, and tells strangers the states of its parts and nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from botwire_server.errors import Refusal
from botwire_server.web.body import Json
from botwire_server.web.description import BOOLEAN, STRING, Answer, Shape, operation
from botwire_server.web.dialect import STATUS, Dialect, Resource, headers_of, of_class

PATH = "/ready"

_WORKS = {"enum": ["ok", "failing"]}
READY = Shape(
    "Ready",
    {
        "status": {"enum": ["ready", "not ready", "stopping"]},
        "registry": _WORKS,
        "disk": _WORKS,
        "embedder": {"enum": ["ok", "failing", "none"]},
        "reembed_needed": BOOLEAN,
    },
)
REFUSAL = Shape("ServerRefusal", {"detail": STRING})


class State(NamedTuple):
    """How the server is. `stopping` is all that counts once it shuts down."""

    stopping: bool
    registry: bool
    disk: bool
    embedder: str  # "ok", "failing" or "none"
    reembed_needed: bool


def dialect(state: Callable[[], Awaitable[State]]) -> Dialect:
    """The route on the main listener."""

    async def ready(request: Request) -> Response:
        return response(await state())

    described = operation(
        ready,
        "get_ready",
        "Whether the server can work",
        answers={
            200: Answer("It can.", READY),
            503: Answer("It cannot, or is ending.", READY),
        },
    )
    return Dialect(
        title="Server",
        prefix=PATH,
        routes=[Resource(PATH, GET=described)],
        refuse=refuse,
        refusal=REFUSAL,
        public=frozenset({PATH}),
    )


def response(state: State) -> Response:
    """200, or 503 where requests would fail.

    An embedder that fails does not make it 503: all but new vectors works without, and taking
    the server out of service would cure nothing.
    """
    works = state.registry and state.disk and not state.stopping
    answer: dict[str, Any] = {
        "status": "ready" if works else "stopping" if state.stopping else "not ready",
        "registry": "ok" if state.registry else "failing",
        "disk": "ok" if state.disk else "failing",
        "embedder": state.embedder,
        "reembed_needed": state.reembed_needed,
    }
    return Json(answer, 200 if works else 503)


def refuse(error: Refusal, request_id: str) -> Response:
    """`{"detail": "<sentence>"}`."""
    return Json({"detail": error.message}, of_class(error, STATUS), headers_of(error))
