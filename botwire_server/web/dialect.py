"""What a wire dialect is: the paths it answers, its routes, and how it says no."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from botwire_server.errors import (
    AnswerTooLarge,
    Busy,
    Conflict,
    Forbidden,
    Internal,
    Invalid,
    MethodNotAllowed,
    Misdirected,
    NotFound,
    QuotaExceeded,
    Refusal,
    Stopping,
    StorageFull,
    TooExpensive,
    TooLarge,
    Unauthorized,
    Unavailable,
    WrongMediaType,
)
from botwire_server.web.description import Operation, Shape

T = TypeVar("T")

# What a client is told to wait where the server was busy.
RETRY_SECONDS = 1

# From class to status; a dialect overrides what it answers differently.
STATUS: Mapping[type[Refusal], int] = {
    Invalid: 400,
    WrongMediaType: 415,
    Unauthorized: 401,
    Forbidden: 403,
    Misdirected: 421,
    NotFound: 404,
    MethodNotAllowed: 405,
    Conflict: 409,
    TooLarge: 413,
    AnswerTooLarge: 413,
    TooExpensive: 413,
    QuotaExceeded: 429,
    Unavailable: 503,
    StorageFull: 507,
    Internal: 500,
    Refusal: 400,  # what never reached the app; the protocol has statuses of its own for it
}


class Resource(Route):
    """A path with one operation a method: `Resource("/x", GET=operation(read, ...))`.

    HEAD is answered as GET; any other method is refused naming those that exist. `tag` is the
    heading the document shows it under, where that is not the dialect's title.
    """

    def __init__(self, path: str, *, tag: str = "", **operations: Operation) -> None:
        allowed = tuple(sorted(operations))
        self.operations = operations
        self.tag = tag
        handlers = {method: operation.handler for method, operation in operations.items()}
        if "GET" in handlers:
            handlers["HEAD"] = handlers["GET"]

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            handler = handlers.get(scope["method"])
            if handler is None:
                raise MethodNotAllowed(
                    f"This path answers {', '.join(allowed)} only.", allowed=allowed
                )
            try:
                response = await handler(Request(scope, receive, send))
                await response(scope, receive, send)
            except TooExpensive as error:
                if error.field:
                    raise
                method = "GET" if scope["method"] == "HEAD" else scope["method"]
                field = scope.get("asks") or operations[method].asks
                raise TooExpensive(error.seconds, field) from None

        super().__init__(path, app)
        self.app = app  # as it is: refusals are answered further out, in the dialect
        self.methods = None

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """As in `Route`, for paths that are not mounted and parameters that stay text."""
        found = self.path_regex.match(scope["path"])
        if found is None:
            return Match.NONE, {}
        return Match.FULL, {"path_params": found.groupdict()}


@dataclass(frozen=True)
class Dialect:
    """A wire dialect.

    It answers the paths that begin with `prefix`. `public` are those that need no key. `refuse`
    makes the answer for a refusal, of the shape `refusal` and with a status of `statuses`;
    `headers_of` are common to all. With `operator` it takes operators' keys only, and nobody
    else's.
    """

    title: str
    prefix: str
    routes: Sequence[Resource]
    refuse: Callable[[Refusal, str], Response]
    refusal: Shape
    statuses: Mapping[type[Refusal], int] = field(default_factory=lambda: STATUS)
    public: frozenset[str] = frozenset()
    operator: bool = False


def of_class(error: Refusal | type[Refusal], table: Mapping[type[Refusal], T]) -> T:
    """The entry of `table` for the nearest class of `error`."""
    kind = error if isinstance(error, type) else type(error)
    return next(table[cls] for cls in kind.__mro__ if cls in table)


def headers_of(error: Refusal) -> dict[str, str]:
    """The headers that go with a refusal, whatever the dialect."""
    if isinstance(error, QuotaExceeded):
        headers = {"X-RateLimit-Limit": str(error.limit), "X-RateLimit-Remaining": "0"}
        if error.resets_at is not None:
            headers["X-RateLimit-Reset"] = str(int(error.resets_at))
            # A date: clients sleep through seconds, and this may be hours away.
            headers["Retry-After"] = formatdate(error.resets_at, usegmt=True)
        return headers
    if isinstance(error, Busy | Stopping):
        return {"Retry-After": str(RETRY_SECONDS)}
    if isinstance(error, MethodNotAllowed):
        return {"Allow": ", ".join(error.allowed)}
    if isinstance(error, Unauthorized):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, TooLarge):
        return {"Connection": "close"}
    return {}
