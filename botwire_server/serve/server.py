"""The server process: one loop, the listeners on it, and what it says when it starts and ends."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from botwire_server import __version__
from botwire_server.addresses import UNIX, of_host
from botwire_server.errors import Unusable
from botwire_server.logs import timestamp
from botwire_server.serve import first_key
from botwire_server.serve.banner import Start
from botwire_server.serve.listeners import Listener, bind, read_group, read_mode
from botwire_server.serve.notify import Notifier
from botwire_server.web.app import App
from botwire_server.web.http.places import Places
from botwire_server.web.http.protocol import protocol

# Longer than any proxy of the examples keeps a connection without a request.
IDLE_SECONDS = 75
# What is being read at SIGTERM may take so long more: whoever asked can ask again.
READ_SECONDS_LEFT = 1.0


class Server(uvicorn.Server):
    """uvicorn, which listens where we say, and tells of it once it does.

    `listener` holds sockets that were passed; None binds what the configuration names.
    """

    def __init__(
        self,
        app: App,
        *,
        listener: Listener | None,
        notifier: Notifier,
        announce: Callable[[str], None],
    ) -> None:
        config = app.config
        self._app = app
        self._notifier = notifier
        self._announce = announce
        self._listener = listener
        self._figures: Listener | None = None
        # A mistake in these is told before anything is opened.
        self._address = of_host(config.host, config.port)
        self._mode = read_mode(config.socket_mode)
        self._group = read_group(config.socket_group)
        places = Places()
        http = protocol(app.refuse, places)
        super().__init__(
            _settings(
                app,
                http,
                lifespan="on",
                end_seconds=config.shutdown_seconds,
            )
        )
        self._figures_config = _settings(
            app.observatory, protocol(app.observatory.refuse, places), date_header=False
        )
        self._figures_state = ServerState()
        self._figures_servers: list[asyncio.Server] = []
        app.connections = lambda: len(self.server_state.connections)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Say at once that it ends: `/ready` tells."""
        self._app.stopping = True
        super().handle_exit(sig, frame)

    async def startup(self, sockets: Any = None) -> None:
        """Open the data directory, listen, and say so. Raises `Unusable`."""
        await self.lifespan.startup()
        if self.lifespan.should_exit:
            raise self._app.failure or Unusable("The server does not start; its log says why.")
        try:
            listener = await self._listen()
        except BaseException:
            await self.lifespan.shutdown()
            raise
        self.started = True
        # Only once it listens: a key that a failed start made would never be seen.
        await self._say(listener)

    async def _listen(self) -> Listener:
        if self._listener is None:
            self._listener = bind(self._address, mode=self._mode, group=self._group)
        if self._app.metrics_address is not None:
            self._figures = bind(self._app.metrics_address, mode=self._mode, group=self._group)
            self._figures_config.load()
            self._figures_servers = await self._figures.serve(
                _connections(self._figures_config, self._figures_state, {})
            )
        self.servers = await self._listener.serve(
            _connections(self.config, self.server_state, self.lifespan.state)
        )
        return self._listener

    async def _say(self, listener: Listener) -> None:
        app, config = self._app, self._app.config
        made = await app.make_first_key()
        watched = sys.stdout.isatty()
        if made is not None and not watched:
            first_key.keep(config.data_dir, made)
        start = Start(
            config=config,
            public_url=app.public_url,
            urls=listener.urls,
            client_url=listener.client_url,
            local=app.local,
            keyed=app.directory.registry.keys_required(),
            first_key=made,
            key_file=first_key.kept(config.data_dir),
            figures=[] if self._figures is None else [_metrics(at) for at in self._figures.urls],
        )
        app.directory.lock.tell(
            {
                "pid": os.getpid(),
                "version": __version__,
                "since": timestamp(time.time()),
                "addresses": start.urls,
                "url": app.public_url or start.client_url,
            }
        )
        self._announce(start.said(config.log_format, watched=watched))
        self._notifier.ready(f"serving {', '.join(start.urls)}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End it; what tells how it does is the last that ends."""
        await self._notifier.stopping()
        self.forget()  # before the data directory lets another server in
        end_reads = self._app.directory.end_reads
        ending = asyncio.get_running_loop().call_later(READ_SECONDS_LEFT, end_reads)
        await super().shutdown(sockets)
        ending.cancel()
        for server in self._figures_servers:
            server.close()
        for connection in list(self._figures_state.connections):
            connection.transport.abort()

    def forget(self) -> None:
        """Remove the files of its Unix sockets. May be called again."""
        for listener in (self._listener, self._figures):
            if listener is not None:
                listener.forget()


def _settings(
    app: Any, http: Any, *, end_seconds: int | None = None, **more: Any
) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=http,
        ws="none",
        loop="uvloop",
        lifespan=more.pop("lifespan", "off"),
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=end_seconds,
        **more,
    )


def _metrics(address: str) -> str:
    """The address of the figures, as far as an address can name them."""
    return address if address.startswith(UNIX) else f"{address}/metrics"


def _connections(
    config: uvicorn.Config, state: ServerState, app_state: dict[str, Any]
) -> Callable[[], asyncio.BaseProtocol]:
    def connection() -> asyncio.BaseProtocol:
        return config.http_protocol_class(  # type: ignore[call-arg]
            config=config, server_state=state, app_state=app_state
        )

    return connection


def run(
    app: App, *, listener: Listener | None, notifier: Notifier, announce: Callable[[str], None]
) -> None:
    """Serve until SIGTERM or Ctrl-C, and `announce` the start. Raises `Unusable`."""
    server = Server(app, listener=listener, notifier=notifier, announce=announce)
    try:
        server.run()
    finally:
        server.forget()
