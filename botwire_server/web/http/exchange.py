"""One request and its answer: what the application is given to receive from and to send to.

Every answer that does not say itself who may keep it is for nobody's cache: see `PRIVATE`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Any, Protocol

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message

from botwire_server.web.http.outgoing import Outgoing

_STATUS_LINES = {
    int(status): b"HTTP/1.1 %d %s\r\n" % (status, status.phrase.encode()) for status in HTTPStatus
}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Of what a tenant has, of refusals and of figures: a shared cache gives one's answer to another.
PRIVATE = b"cache-control: no-store\r\nvary: Authorization, X-API-Key, Cookie, Origin\r\n"
SNIFFED = b"x-content-type-options: nosniff\r\n"
CLOSE = b"connection: close\r\n"
_TOLD = frozenset({b"content-length", b"cache-control", b"x-content-type-options", b"connection"})
_WITHOUT_BODY = frozenset({204, 304})

Headers = Iterable[tuple[bytes, bytes]]


class Connection(Protocol):
    """What an exchange needs of the connection it is on."""

    loop: asyncio.AbstractEventLoop
    outgoing: Outgoing

    def want_body(self) -> None: ...
    def answered(self, *, early: bytes = b"") -> None: ...
    def cut(self) -> None: ...


class Exchange:
    """A request that is being answered."""

    __slots__ = (
        "_body",
        "_chunked",
        "_connection",
        "_defaults",
        "_expects",
        "_fresh",
        "_head",
        "_left", "_outgoing",
        "_waiter",
        "_without_body",
        "answered",
        "arrived",
        "gone",
        "keep_alive",
        "scope",
        "started",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        scope: dict[str, Any],
        *,
        defaults: Headers,
        keep_alive: bool,
        expects: bool,
    ) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        self.arrived = False  # the body, to its end
        self.started = False
        self.answered = False
        self.gone = False  # nobody is there to be answered
        self._connection = connection
        self._outgoing = connection.outgoing
        self._defaults = defaults
        self._expects = expects
        self._body: bytes | bytearray = b""
        self._fresh = False
        self._waiter: asyncio.Future[None] | None = None
        self._head = b""
        # Bytes of the answer's body that its length still wants; None where it has none.
        self._left: int | None = None
        self._chunked = False
        self._without_body = False

    async def run(self, app: ASGIApp) -> None:
        """Let the application answer. What it leaves unfinished must not look whole."""
        try:
            with suppress(Exception):  # the application has told of it
                await app(self.scope, self.receive, self.send)
        finally:
            if not self.answered and not self.gone:
                self._connection.cut()

    # The body, as it arrives.

    @property
    def waiting(self) -> int:
        """Bytes that arrived and were not taken."""
        return len(self._body)

    @property
    def waits(self) -> bool:
        """Whether the client said that it waits to be told to send the body, and was not."""
        return self._expects and not self.arrived

    def take(self, part: bytes, *, ended: bool) -> None:
        """A part of the body came, or its end."""
        if not self._body:
            self._body = part
        elif isinstance(self._body, bytearray):
            self._body += part
        else:
            self._body = bytearray(self._body + part)
        self.arrived = ended
        self._tell()

    def leave(self) -> None:
        """Nobody is there any more, and waits for what is read for the answer."""
        self.gone = True
        if "deadline" in self.scope:
            self.scope["deadline"].end(ClientDisconnect())
        self._tell()

    def _tell(self) -> None:
        self._fresh = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> Message:
        """What came of the body since the last call; waits for something to come."""
        if self.waits and not self.gone:
            self._outgoing.write(CONTINUE)
        self._expects = False
        if not self._fresh and not self.gone and not self.answered:
            if not self.arrived:
                self._connection.want_body()
            self._waiter = self._connection.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._fresh = False
        if self.gone or self.answered:
            return {"type": "http.disconnect"}
        body, self._body = self._body, b""
        return {"type": "http.request", "body": bytes(body), "more_body": not self.arrived}

    # The answer, as it is made.

    async def send(self, message: Message) -> None:
        """Send the next part of the answer, once the client has taken enough of the last.

        Raises `ClientDisconnect` where it is gone and more parts would follow.
        """
        if self._outgoing.paused:
            await self._outgoing.drained()
        if self.gone:
            if message.get("more_body", False):
                raise ClientDisconnect
            return
        kind = message["type"]
        if not self.started and kind == "http.response.start":
            self._head = self._head_of(message["status"], message.get("headers", ()))
            self.started = True
        elif self.started and not self.answered and kind == "http.response.body":
            self._go_on(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} is not what comes next in an answer")

    def _head_of(self, status: int, headers: Headers) -> bytes:
        length: int | None = None
        closes = private = sniffed = False
        lines = [_STATUS_LINES[status]]
        for name, value in (*self._defaults, *headers):
            lines += (name, b": ", value, b"\r\n")
            if name not in _TOLD:
                pass
            elif name == b"content-length":
                length = int(value)
            elif name == b"cache-control":
                private = True
            elif name == b"x-content-type-options":
                sniffed = True
            elif value.lower() == b"close":
                closes = True
                self.keep_alive = False
        ends = len(lines) // 4 + 1
        lines = [b"".join(lines)]
        if not lines[0].count(b"\n") == lines[0].count(b"\r") == ends:
            raise RuntimeError("a header of an answer holds a line break")
        if not private:
            lines.append(PRIVATE)
        if not sniffed:
            lines.append(SNIFFED)
        if self._expects:
            # It waits to be told to send its body, and perhaps never will: what comes next on
            # this connection cannot be known.
            self.keep_alive = False
        self._without_body = self.scope["method"] == "HEAD" or status in _WITHOUT_BODY
        if not self._without_body:
            if length is not None:
                self._left = length
            elif self.scope["http_version"] == "1.1":
                self._chunked = True
                lines.append(b"transfer-encoding: chunked\r\n")
            else:
                self.keep_alive = False  # it ends with the connection
        if not self.keep_alive and not closes:
            lines.append(CLOSE)
        lines.append(b"\r\n")
        return b"".join(lines)

    def _go_on(self, body: bytes, *, more: bool) -> None:
        if self._without_body:
            body = b""
        elif self._chunked:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body = framed if more else framed + b"0\r\n\r\n"
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("an answer is not as long as it says")
        # The head goes with the first bytes of the body: one system call of four or so.
        whole = bool(self._head) and not more
        part, self._head = (self._head + body if self._head else body), b""
        if more:
            if part:
                self._outgoing.write(part)
            return
        self.answered = True
        self._tell()
        if whole and not self.arrived:
            self._connection.answered(early=part)
        else:
            if part:
                self._outgoing.write(part)
            self._connection.answered()


def rendered(status: int, headers: Headers, body: bytes) -> bytes:
    """An answer as bytes, after which the connection is closed."""
    lines = [_STATUS_LINES[status]]
    for name, value in headers:
        lines += (name, b": ", value, b"\r\n")
    return b"".join((*lines, PRIVATE, SNIFFED, CLOSE, b"\r\n", body))
