"""uvicorn's httptools protocol with what it lacks: deadlines and a limit for headers.

A client that sends nothing, half a header or half a body is closed in time; a slow handler is
left alone. The version of uvicorn is pinned, and the tests of this module drive it over a socket.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, MutableMapping
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from botwire_server.errors import Invalid, Refusal

LARGEST_HEAD = 65_536
HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
# Once the server shuts down, a client is waited for while in every such span it sends or takes
# so many bytes: less than that is one that stalls.
SHUTDOWN_SECONDS = 1.0
SHUTDOWN_BYTES = 1_024

# Of a path: what to answer where the request, whose scope it is, never reaches the app.
Refuse = Callable[[str, Refusal, int, MutableMapping[str, Any] | None], Response]


class HeadTooLarge(Invalid):
    """The request line and headers are over their limit."""


class TooSlow(Invalid):
    """The request did not arrive in time."""


def protocol(refuse: Refuse) -> type[HttpToolsProtocol]:
    """The protocol class; `refuse` makes the answers for what never reaches the app."""

    class Protocol(_Protocol):
        pass

    Protocol.refuse = staticmethod(refuse)
    return Protocol


class _Cork:
    """A transport that sends the head of an answer together with the first bytes of its body.

    uvicorn writes the two apart, which costs a system call of the four or so that an answer
    takes.
    """

    __slots__ = ("_head", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._head:
            self._transport.write(self._head + data)
            self._head = b""
        elif data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 1"):
            self._head = data
        else:
            self._transport.write(data)

    def flush(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def close(self) -> None:
        self.flush()
        self._transport.close()


class _Protocol(HttpToolsProtocol):
    refuse: Refuse
    _cork: _Cork
    url = b""
    _chunk_bytes = 0
    _received = 0
    _chunk_begins = True  # a message, with its first byte
    _head_bytes = 0
    # Of the message that is arriving, or arrived last.
    _head_complete = True
    _message_complete = True
    _messages = 0
    _rejected = False
    _gone = False
    _deadline: asyncio.TimerHandle | None = None
    _awaited: tuple[int, bool] | None = None  # what the deadline is for

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Of requests that are not answered yet: once it is lost nobody waits for what they read.
        self._scopes: deque[Any] = deque()
        self._cork = _Cork(transport)
        self._expect(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._stop_waiting()
        for scope in self._scopes:
            if "deadline" in scope:
                scope["deadline"].end(ClientDisconnect())
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._rejected:
            return
        self._chunk_bytes = len(data)
        self._received += len(data)
        self._chunk_begins = self._message_complete
        if not self._head_complete:
            self._head_bytes += len(data)
        super().data_received(data)
        self._watch()

    def _watch(self) -> None:
        """Refuse a head that is too large; set the deadline for what is still to come."""
        if self._rejected:
            return
        if not self._head_complete and self._head_bytes > LARGEST_HEAD:
            self._reject(HeadTooLarge("The request line and headers are too large."), 431)
        elif self._message_complete and self._working:
            self._stop_waiting()
        elif self._deadline is None or self._awaited != (self._messages, self._head_complete):
            body = self._head_complete and not self._message_complete
            self._expect(BODY_SECONDS if body else HEAD_SECONDS)
            self._awaited = (self._messages, self._head_complete)

    def on_message_begin(self) -> None:
        self._messages += 1
        self._head_bytes = self._chunk_bytes if self._chunk_begins else 0
        self._chunk_begins = False
        self._head_complete = self._message_complete = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        if self._rejected:
            return
        # Only a large read can have brought a large head at once; it is counted then.
        if max(self._head_bytes, self._chunk_bytes) > LARGEST_HEAD:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > LARGEST_HEAD:
                self._reject(HeadTooLarge("The request line and headers are too large."), 431)
                return
        super().on_headers_complete()
        self._scopes.append(self.scope)
        self._head_complete = True
        self.cycle.transport = self._cork  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        if not self._rejected:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._rejected:
            self._message_complete = True
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self._cork.flush()  # an answer without a body
        if self._scopes:
            self._scopes.popleft()
        super().on_response_complete()

    def shutdown(self) -> None:
        super().shutdown()
        self._watch_the_end()

    def _watch_the_end(self, received: int | None = None, unsent: int = 0) -> None:
        """Abandon a client that holds up the end of the server: called once in a span."""
        if self._gone:
            return
        now_unsent = self.transport.get_write_buffer_size()
        if received is not None:
            sends = self._message_complete or self._received - received >= SHUTDOWN_BYTES
            takes = not unsent or now_unsent == 0 or abs(unsent - now_unsent) >= SHUTDOWN_BYTES
            if not (sends and takes):
                self._abandon()
                return
        self.loop.call_later(SHUTDOWN_SECONDS, self._watch_the_end, self._received, now_unsent)

    def pause_writing(self) -> None:
        # The other side does not read its answer: that too has an end.
        super().pause_writing()
        self._expect(BODY_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._message_complete:
            self._stop_waiting()

    def send_400_response(self, msg: str) -> None:
        """Answer what httptools could not parse."""
        self._reject(Invalid("The request is no valid HTTP/1.1."), 400)

    def _expect(self, seconds: float) -> None:
        self._stop_waiting()
        self._deadline = self.loop.call_later(seconds, self._too_late)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self) -> None:
        self._deadline = None
        if not self._message_complete:
            if self._earlier_working and not self.flow.write_paused:  # our handler may be slow
                self._expect(HEAD_SECONDS)
                return
            self._reject(TooSlow("The request did not arrive in time."), 408)
        self._abandon()

    def _abandon(self) -> None:
        # Also one that is closing: with bytes left that nobody takes it would do so for good.
        if not self._gone:
            self.transport.abort()

    @property
    def _working(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def _earlier_working(self) -> bool:
        """Whether a request before the one that is arriving is being answered."""
        return bool(self.pipeline) or (self._working and not self._head_complete)

    def _reject(self, error: Refusal, status: int) -> None:
        """Answer what is arriving and close. Where an answer is under way, that is the last."""
        if self.transport.is_closing():
            return
        self._rejected = True
        self._stop_waiting()
        if self._earlier_working:
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        if not (self._head_complete and self.cycle is not None and self.cycle.response_started):
            arrived = self._head_complete and not self._message_complete
            scope: Any = self.scope if arrived else None
            response = type(self).refuse(self.url.decode("latin-1"), error, status, scope)
            content: list[Any] = [STATUS_LINE[status]]
            for name, value in response.raw_headers:
                content += [name, b": ", value, b"\r\n"]
            content += [b"connection: close\r\n\r\n", response.body]
            self.transport.write(b"".join(content))
        self.transport.close()
