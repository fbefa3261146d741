"""A connection: one request after the other, each answered before the next is looked at.

What comes in meanwhile waits, and nothing more is read: a client can make us hold a few
kilobytes and no more. A client that sends nothing, half a head or half a body is closed in time,
and so is one that takes nothing of its answer; a slow handler is left alone, and so is whoever
goes on slowly. The answer to a request that is refused before its body is here waits for the
rest of the body, within limits: most clients and proxies listen only then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from starlette.responses import Response
from uvicorn.config import Config
from uvicorn.protocols.utils import get_local_addr, get_remote_addr
from uvicorn.server import ServerState

from botwire_server.errors import Invalid, Refusal, Unavailable
from botwire_server.web.http.deadline import Deadline
from botwire_server.web.http.exchange import Exchange, rendered
from botwire_server.web.http.framing import Body, Chunked, Sized
from botwire_server.web.http.head import (
    CHUNKED,
    LARGEST_HEAD,
    Head,
    Rejected,
    is_hopeless,
    parse,
    target_of,
    too_large,
)
from botwire_server.web.http.outgoing import Outgoing
from botwire_server.web.http.places import Places

HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
# What is still read of a request that was refused, and when nothing more seems to come of it: of
# one that waits for 100 Continue sooner, though proxies that pass this on do not wait.
DRAIN_SECONDS = 5.0
DRAIN_BYTES = 64_000_000
STILL_SECONDS = 0.5
WAITING_SECONDS = 0.1
# What is read at once: a head, and what may have to wait behind it; and of a body.
HEAD_READ = 16_384
BODY_READ = 262_144
# Bytes of a body that wait for a handler, before no more are read.
MOST_WAITING = 65_536
# Once the server shuts down, a client is waited for while in every such span it sends or takes
# so many bytes: less than that is one that stalls.
SHUTDOWN_SECONDS = 1.0
SHUTDOWN_BYTES = 1_024

# Of a path: what to answer where the request, whose scope it is, never reaches the app.
Refuse = Callable[[str, Refusal, int, MutableMapping[str, Any] | None], Response]


class TooSlow(Invalid):
    """The request did not arrive in time."""


def protocol(refuse: Refuse, places: Places | None = None) -> type[asyncio.Protocol]:
    """The protocol class for uvicorn.

    `refuse` makes the answers for what never reaches the app; `places` are those of all
    connections of the process.
    """

    class Protocol(_Connection):
        pass

    Protocol.refuse = staticmethod(refuse)
    Protocol.places = Places() if places is None else places
    # One loop reads for all of them, and what it read is copied before it reads again.
    Protocol.buffer = memoryview(bytearray(BODY_READ))
    Protocol.head_buffer = Protocol.buffer[:HEAD_READ]
    return Protocol  # type: ignore[return-value]  # uvicorn takes this kind too


class _Connection(asyncio.BufferedProtocol):
    refuse: Refuse
    places: Places
    buffer: memoryview
    head_buffer: memoryview

    transport: asyncio.Transport
    outgoing: Outgoing
    # When it began to rest, and whether a request with a key was served here.
    resting_since = 0.0
    admitted = False

    _exchange: Exchange | None = None  # the request that arrives or is answered
    _body: Body | None = None  # of it, while it arrives
    _held = b""  # what came behind it
    _read_paused = False
    _lingering = False  # nothing is answered any more; what comes is dropped
    _early = b""  # an answer that waits for the rest of its request
    _dropped = 0  # bytes of a refused request
    _received = 0
    _gone = False
    _resting = False
    _target = b""  # of a request that never became one

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        if not config.loaded:
            config.load()
        self.loop = _loop or asyncio.get_event_loop()
        self._app = config.loaded_app
        self._root_path = config.root_path
        self._keep_alive_seconds = config.timeout_keep_alive
        self._state = server_state
        self._head = bytearray()  # one that has not come whole
        self._deadline = Deadline(self.loop, self._too_late)

    # The connection begins and ends.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.outgoing = Outgoing(transport, self.loop)
        self._server = get_local_addr(transport)
        self._client = get_remote_addr(transport)
        self._state.connections.add(self)  # type: ignore[arg-type]
        self.places.take(self)
        self._rest(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        self._state.connections.discard(self)
        self.places.give_back(self)
        self._deadline.cancel()
        self.outgoing.end()
        if self._exchange is not None:
            self._exchange.leave()
            self._exchange = None

    def eof_received(self) -> None:
        """Nothing more comes; the transport closes itself."""

    def shutdown(self) -> None:
        """The server ends: the request under way is the last."""
        if self._exchange is None or self._exchange.answered:
            self.close()
        else:
            self._exchange.keep_alive = False
        self._watch_the_end()

    def _watch_the_end(self, before: tuple[int, int, int] | None = None) -> None:
        """Abandon a client that holds up the end of the server: called once in a span."""
        if self._gone:
            return
        now = self._received, self.outgoing.taken, self.outgoing.unsent
        if before is not None:
            received, taken, unsent = before
            sends = self._body is None or now[0] - received >= SHUTDOWN_BYTES
            takes = not (unsent and now[2]) or now[1] - taken >= SHUTDOWN_BYTES
            if not (sends and takes):
                self.abandon()
                return
        self.loop.call_later(SHUTDOWN_SECONDS, self._watch_the_end, now)

    def abandon(self) -> None:
        """Close at once, whatever is unsent; also one that is closing, which it may be for good."""
        if not self._gone:
            self.transport.abort()

    def close(self) -> None:
        """Close once everything is sent, and no later than nobody takes it."""
        self._send_early()
        self.transport.close()
        self.outgoing.watch()

    # What comes in.

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._body is None:
            return self.head_buffer
        return self.buffer[: self._body.left + HEAD_READ]

    def buffer_updated(self, nbytes: int) -> None:
        self._received += nbytes
        if self._lingering:
            self._drop(nbytes)
            return
        if self._resting:
            self._resting = False
            self.places.wake(self)
            self._deadline.lift()
        self._advance(bytes(self.buffer[:nbytes]))

    def _advance(self, data: bytes) -> None:
        """Take what came as far as it can be taken now, and rest where that is all."""
        at = 0
        try:
            while at < len(data):
                if self._body is not None:
                    at = self._take_body(self._body, data, at)
                elif self._exchange is not None or self.outgoing.paused:
                    self._held += data[at:]
                    self._pause_reading()
                    break
                else:
                    at = self._take_head(data, at)
        except Rejected as rejected:
            self.reject(rejected.error, rejected.status)
        if self._exchange is None and not (self._head or self._held or self._lingering):
            self._rest(self._keep_alive_seconds)

    def _take_head(self, data: bytes, at: int) -> int:
        """Take a head as far as it came; where it stops. Raises `Rejected`."""
        # An empty line before a request is left by clients that count badly.
        start = at + 2 if not self._head and data.startswith(b"\r\n", at) else at
        if self._head:
            before = len(self._head)
            self._head += data
            end = self._head.find(b"\r\n\r\n", max(0, before - 3))
            whole, stop = bytes(self._head[:end]), end + 4 - before
        else:
            before = 0
            end = data.find(b"\r\n\r\n", start)
            whole, stop = data[start:end], end + 4
        if end < 0:
            self._keep_head(data[start:], before)
            return len(data)
        if before:
            self._head.clear()
            self._deadline.lift()
        try:
            if len(whole) > LARGEST_HEAD:
                raise too_large()
            self._begin(parse(whole))
        except Rejected:
            self._target = target_of(whole)
            raise
        return stop

    def _keep_head(self, data: bytes, before: int) -> None:
        """Keep what came of a head until the rest does. Raises `Rejected`."""
        head = self._head
        if not before:
            head += data
            if head:
                self._deadline.set(HEAD_SECONDS)
        if len(head) > LARGEST_HEAD:
            self._target = target_of(bytes(head))
            raise too_large()
        if is_hopeless(head, max(0, before - 1)):
            raise Rejected(Invalid("The request is no valid HTTP/1.1."))

    def _begin(self, head: Head) -> None:
        path = head.path.decode()
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": head.version,
            "server": self._server,
            "client": self._client,
            "scheme": "http",
            "root_path": self._root_path,
            "headers": head.headers,
            "state": {},
            "method": head.method,
            "path": unquote(path) if "%" in path else path,
            "raw_path": head.path,
            "query_string": head.query,
        }
        exchange = self._exchange = Exchange(
            self,
            scope,
            defaults=self._state.default_headers,
            keep_alive=head.keep_alive,
            expects=head.expects,
        )
        if head.length == 0:
            exchange.take(b"", ended=True)
        else:
            self._body = Chunked() if head.length == CHUNKED else Sized(head.length)
            self._deadline.set(BODY_SECONDS)
        task = self.loop.create_task(exchange.run(self._app))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)

    def _take_body(self, body: Body, data: bytes, at: int) -> int:
        """Take a body as far as it came; where it stops. Raises `Rejected`."""
        exchange = self._exchange
        assert exchange is not None
        part, stop = body.feed(data, at)
        if body.ended:
            self._body = None
            self._deadline.lift()
        if exchange.answered:
            self._dropped += stop - at
            if self._body is None:
                self._go_on()
            elif self._dropped > DRAIN_BYTES:
                self.close()
                return len(data)
        elif part or body.ended:
            exchange.take(part, ended=body.ended)
            if exchange.waiting > MOST_WAITING and self._body is not None:
                self._pause_reading()
        return stop

    def want_body(self) -> None:
        """The handler waits for more of the body."""
        self._resume_reading()

    def _pause_reading(self) -> None:
        if not self._read_paused and not self.transport.is_closing():
            self._read_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._read_paused and not self.transport.is_closing():
            self._read_paused = False
            self.transport.resume_reading()

    # What goes out.

    def answered(self, *, early: bytes = b"") -> None:
        """The answer is made, to its end. One that is `early` is still to be sent."""
        exchange = self._exchange
        assert exchange is not None
        self._state.total_requests += 1
        self.admitted = self.admitted or exchange.scope.get("admitted", False)
        if self._body is None:
            self._go_on()
            self._take_held()
        elif not self.transport.is_closing():
            # A proxy that hears the answer while it still sends lets its client go, who then hears
            # nothing: it is told when the body ends, or does not go on.
            self._early = early
            self._dropped = 0
            self._resume_reading()
            self._deadline.set(DRAIN_SECONDS)
            still = WAITING_SECONDS if exchange.waits else STILL_SECONDS
            self.loop.call_later(still, self._look_whether_it_goes_on, 0)

    def _look_whether_it_goes_on(self, dropped: int) -> None:
        if self._early and self._dropped == dropped:
            self._send_early()
        elif self._early:
            self.loop.call_later(STILL_SECONDS, self._look_whether_it_goes_on, self._dropped)

    def _send_early(self) -> None:
        early, self._early = self._early, b""
        if early and not self.transport.is_closing():
            self.outgoing.write(early)

    def _go_on(self) -> None:
        """The request is here, and answered."""
        if self._exchange is None or self.transport.is_closing():
            return
        self._send_early()
        if not self._exchange.keep_alive:
            if self._held:
                self._linger()
            else:
                self.close()
            return
        self._exchange = None

    def _take_held(self) -> None:
        """Turn to what came while the last request was answered."""
        if self._exchange is None and not self.outgoing.paused and not self.transport.is_closing():
            held, self._held = self._held, b""
            self._resume_reading()
            self._advance(held)

    def pause_writing(self) -> None:
        self.outgoing.pause()

    def resume_writing(self) -> None:
        self.outgoing.resume()
        self._take_held()

    # Refusals.

    def reject(self, error: Refusal, status: int) -> None:
        """Answer what is arriving, where no answer has begun, and close."""
        if self._lingering or self.transport.is_closing():
            return
        exchange = self._exchange
        if exchange is None or not exchange.started:
            target = self._target if exchange is None else exchange.scope["raw_path"]
            scope = None if exchange is None else exchange.scope
            refused = type(self).refuse(target.decode("latin-1"), error, status, scope)
            self.outgoing.write(rendered(status, refused.raw_headers, bytes(refused.body)))
        if exchange is not None and not exchange.answered:
            exchange.leave()
        self._linger()

    def cut(self) -> None:
        """The handler will answer no more. Where it has not begun it was cancelled."""
        if self._exchange is not None and not self._exchange.started:
            self.reject(Unavailable("The server is ending; try again."), 503)
        else:
            self.close()

    def _linger(self) -> None:
        """Say that nothing more comes, and drop what the other side still sends.

        To close while it sends would make its system throw away the answer that it has not read.
        """
        self._send_early()
        self._lingering = True
        self._held = b""
        self._head.clear()
        self._dropped = 0
        self._resume_reading()
        self._deadline.set(DRAIN_SECONDS)
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _drop(self, count: int) -> None:
        self._dropped += count
        if self._dropped > DRAIN_BYTES:
            self.close()

    # Time.

    def _rest(self, seconds: float) -> None:
        """Wait for a request."""
        self._resting = True
        self.resting_since = self.loop.time()
        self.places.rest(self)
        self._deadline.set(seconds)

    def _too_late(self) -> None:
        if self._lingering or self._resting or (self._exchange and self._exchange.answered):
            self.close()
        elif self._body is not None and self._read_paused:  # our handler is slow
            self._deadline.set(BODY_SECONDS)
        elif self._body is not None or self._head:
            if self._head:
                self._target = target_of(bytes(self._head))
            self.reject(TooSlow("The request did not arrive in time."), 408)
