"""uvicorn's httptools protocol with what it lacks: deadlines and a limit for headers.

A client that sends nothing, half a header or half a body is closed in time; a slow handler is
left alone. The version of uvicorn is pinned, and the tests of this module drive it over a socket.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from botwire_server.errors import Invalid, Refusal

LARGEST_HEAD = 65_536
HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
# How long a request whose body is still coming is waited for once the server shuts down.
SHUTDOWN_SECONDS = 1.0

Refuse = Callable[[str, Refusal], Response]


class HeadTooLarge(Invalid):
    """The request line and headers are over their limit."""


class TooSlow(Refusal):
    """The request did not arrive in time."""


def protocol(refuse: Refuse) -> type[HttpToolsProtocol]:
    """The protocol class, answering with `refuse(path, error)` what never reaches the app."""

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
    _head_bytes = 0
    _head_complete = False
    _message_complete = True
    _awaited_head = True
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._cork = _Cork(transport)
        self._expect(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._message_complete:  # the first bytes of the next request
            self._head_bytes = 0
            self._head_complete = False
            self._message_complete = False
        if not self._head_complete:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._message_complete:
            self._stop_waiting()
        elif not self._head_complete and self._head_bytes > LARGEST_HEAD:
            self._reject(HeadTooLarge("The request line and headers are too large."), 431)
        elif self._deadline is None or self._awaited_head is self._head_complete:
            self._expect(BODY_SECONDS if self._head_complete else HEAD_SECONDS)
            self._awaited_head = not self._head_complete

    def on_headers_complete(self) -> None:
        self._head_complete = True
        # Only a large read can have brought a large head at once; it is counted then.
        if self._head_bytes > LARGEST_HEAD:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > LARGEST_HEAD:
                self._message_complete = True
                self._reject(HeadTooLarge("The request line and headers are too large."), 431)
                return
        super().on_headers_complete()
        self.cycle.transport = self._cork  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        if self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._message_complete = True
        if self.cycle is not None:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self._cork.flush()  # an answer without a body
        super().on_response_complete()

    def shutdown(self) -> None:
        super().shutdown()
        if not self.transport.is_closing() and not self._message_complete:
            self.loop.call_later(SHUTDOWN_SECONDS, self._abandon)

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
        if self._head_bytes and not self._message_complete:
            self._reject(TooSlow("The request did not arrive in time."), 408)
        self._abandon()

    def _abandon(self) -> None:
        if not self.transport.is_closing():
            self.transport.abort()

    def _reject(self, error: Refusal, status: int) -> None:
        """Answer and close, unless an answer is under way: then only close."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            response = type(self).refuse(self.url.decode("latin-1"), error)
            content: list[Any] = [STATUS_LINE[status]]
            for name, value in response.raw_headers:
                content += [name, b": ", value, b"\r\n"]
            content += [b"connection: close\r\n\r\n", response.body]
            self.transport.write(b"".join(content))
        self.transport.close()
