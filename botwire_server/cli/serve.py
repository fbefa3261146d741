"""`botwire-server serve`: the server process. Its options are the fields of `Config`."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from types import FrameType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
import uvicorn
from uvicorn.server import ServerState

from botwire_server import __version__
from botwire_server.cli.terminal import say
from botwire_server.config import Config, variable
from botwire_server.errors import Unusable
from botwire_server.logs import configure
from botwire_server.store.pool import raise_descriptor_limit
from botwire_server.web.app import App, create_app
from botwire_server.web.http.places import Places
from botwire_server.web.http.protocol import protocol
from botwire_server.web.observatory import Address, Observatory
from botwire_server.web.request_log import RequestLog

# What is being read at SIGTERM may take so long more: whoever asked can ask again.
READ_SECONDS_LEFT = 1.0


def settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each field of `Config`."""
    hints = get_type_hints(Config)
    for setting in reversed(fields(Config)):
        command = click.option(
            "--" + setting.name.replace("_", "-"),
            envvar=variable(setting.name),
            show_envvar=True,
            **_option(setting, hints[setting.name]),
        )(command)
    return command


def _option(setting: Field[Any], hint: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"help": setting.metadata["help"], "default": setting.default}
    if setting.default is MISSING:
        options["default"] = None
    if hint is bool:
        return options | {"is_flag": True}
    if get_origin(hint) is tuple:
        options |= {"multiple": True, "callback": _words}
    elif get_origin(hint) is Literal:
        options["type"] = click.Choice(get_args(hint))
    elif "least" in setting.metadata:
        options["type"] = click.IntRange(setting.metadata["least"], setting.metadata.get("most"))
    elif hint is Path:
        options["type"] = click.Path(file_okay=False, path_type=Path, resolve_path=True)
    elif hint == Path | None:
        options["type"] = click.Path(exists=True, dir_okay=False, path_type=Path)
    options["show_default"] = setting.metadata.get("shown", True) or False
    return options


def _words(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """All words; spaces or commas are between them, as a variable holds several."""
    return tuple(word for text in given for word in text.replace(",", " ").split())


@click.command()
@settings
def serve(**options: Any) -> None:
    """Serve the memory until SIGTERM or Ctrl-C.

    \b
    The first steps:
      botwire-server serve
      export BOTWIRE_URL=http://127.0.0.1:8000
      python -c 'from botwire import Memory; Memory("hello").set("name", "Ada")'
    """
    config = Config(**{name: value for name, value in options.items() if value is not None})
    configure(config.log_level, config.log_format)
    raise_descriptor_limit()
    logs_requests = config.log_level in ("debug", "info")
    app = create_app(
        config, request_log=RequestLog(sys.stderr, config.log_format) if logs_requests else None
    )
    _Server(app).run()


class _Server(uvicorn.Server):
    """uvicorn, which says where it listens once it does."""

    def __init__(self, app: App) -> None:
        self._app = app
        places = Places()
        super().__init__(
            uvicorn.Config(
                app,
                host=app.config.host,
                port=app.config.port,
                http=protocol(app.refuse, places),
                ws="none",
                loop="uvloop",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=app.config.shutdown_seconds,
            )
        )
        app.connections = lambda: len(self.server_state.connections)
        address = app.metrics_address
        self._figures = None if address is None else _Figures(app.observatory, address, places)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Say at once that it ends: `/ready` tells."""
        self._app.stopping = True
        super().handle_exit(sig, frame)

    async def startup(self, sockets: Any = None) -> None:
        config = self._app.config
        if self._figures is not None:
            await self._figures.bind()
        try:
            await super().startup(sockets)
        except SystemExit:
            raise self._app.failure or Unusable(
                f"Cannot listen on {config.host} port {config.port}: it is taken or not this "
                "machine's; name another --port or --host."
            ) from None
        if self._figures is not None:
            await self._figures.start()
        # Only once it listens: a key that a failed start made would never be seen.
        first_key = await self._app.make_first_key()
        port = self.servers[0].sockets[0].getsockname()[1]
        say(
            welcome(
                config,
                port,
                keyed=self._app.directory.registry.keys_required(),
                first_key=first_key,
                figures=None if self._figures is None else self._figures.url,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End it; what tells how it does is the last that ends."""
        end_reads = self._app.directory.end_reads
        ending = asyncio.get_running_loop().call_later(READ_SECONDS_LEFT, end_reads)
        await super().shutdown(sockets)
        ending.cancel()
        if self._figures is not None:
            await self._figures.stop()


class _Figures:
    """The listener of `--metrics HOST:PORT`, in the process and on the loop of the server."""

    def __init__(self, app: Observatory, address: Address, places: Places) -> None:
        self._address = address
        self._config = uvicorn.Config(
            app,
            http=protocol(app.refuse, places),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
        )
        self._state = ServerState()
        self._server: asyncio.Server

    @property
    def url(self) -> str:
        """Where it listens."""
        host = f"[{self._address.host}]" if ":" in self._address.host else self._address.host
        return f"http://{host}:{self._server.sockets[0].getsockname()[1]}"

    async def bind(self) -> None:
        """Take the address, or raise `Unusable`; nobody is served yet."""
        config = self._config
        config.load()

        def connection() -> asyncio.BaseProtocol:
            return config.http_protocol_class(  # type: ignore[call-arg]
                config=config, server_state=self._state, app_state={}
            )

        host, port = self._address
        try:
            self._server = await asyncio.get_running_loop().create_server(
                connection, host, port, start_serving=False
            )
        except OSError:
            raise Unusable(
                f"Cannot listen on {host} port {port} for --metrics: it is taken or not this "
                "machine's; name another."
            ) from None

    async def start(self) -> None:
        """Serve."""
        await self._server.start_serving()

    async def stop(self) -> None:
        """Close it and whoever is connected."""
        self._server.close()
        for connection in list(self._state.connections):
            connection.transport.abort()


def welcome(
    config: Config, port: int, *, keyed: bool, first_key: str | None, figures: str | None
) -> str:
    """What a start prints: where data lies, the address, the mode, and how to point a client."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    reachable = "localhost" if config.host in ("0.0.0.0", "::") else host
    if keyed:
        mode = "keys: every request needs an API key"
    elif config.loopback:
        mode = "open: no key needed, this machine only"
    else:
        mode = "open: no key needed, EVERYBODY who reaches this port"
    key = first_key or ("KEY" if keyed else None)
    lines = [
        f"botwire-server {__version__}",
        f"  data     {config.data_dir}",
        f"  address  http://{host}:{port}",
        f"  mode     {mode}",
        *([f"  metrics  {figures}/metrics"] if figures is not None else []),
        "",
        "Point a client at it:",
        f"  export BOTWIRE_URL=http://{key + '@' if key else ''}{reachable}:{port}",
        "  pip install botwire",
        """  python -c 'from botwire import Memory; m = Memory("hello"); m.set("name", "Ada"); """
        """print(m.get("name"))'""",
        "",
    ]
    if first_key is not None:
        lines += [
            "This address can be reached from other machines, so keys are required. There was",
            "none: tenant default was made, and its first key, which is shown only now:",
            f"  {first_key}",
            "",
        ]
    if config.insecure_open:
        lines.insert(
            0,
            "WARNING: --insecure-open: while no key exists, everybody who reaches this port can "
            "read, change and delete everything.",
        )
    return "\n".join(lines)
