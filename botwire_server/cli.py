"""The command line. Every setting is an option and a BOTWIRE_SERVER_* variable."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
import uvicorn

from botwire_server import __version__
from botwire_server.config import Config, refuse_unknown_variables, variable
from botwire_server.errors import Unusable
from botwire_server.logs import configure
from botwire_server.store.pool import raise_descriptor_limit
from botwire_server.web.app import App, create_app
from botwire_server.web.protocol import protocol
from botwire_server.web.request_log import RequestLog

SHUTDOWN_SECONDS = 10


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="botwire-server")
def cli() -> None:
    """Memory for AI agents, on your own machine.

    Start with `botwire-server serve`: it needs no option and prints what to do next.
    """


def settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each field of `Config`."""
    hints = get_type_hints(Config)
    for setting in reversed(fields(Config)):
        if setting.metadata.get("secret"):
            continue
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
    if get_origin(hint) is Literal:
        options["type"] = click.Choice(get_args(hint))
    elif "least" in setting.metadata:
        options["type"] = click.IntRange(setting.metadata["least"], setting.metadata.get("most"))
    elif setting.name == "data_dir":
        options["type"] = click.Path(file_okay=False, path_type=Path, resolve_path=True)
    options["show_default"] = setting.metadata.get("shown", True)
    return options


@cli.command()
@settings
def serve(**options: Any) -> None:
    """Serve the memory until SIGTERM or Ctrl-C.

    \b
    The first steps:
      botwire-server serve
      export BOTWIRE_URL=http://127.0.0.1:8000
      python -c 'from botwire import Memory; Memory("hello").set("name", "Ada")'
    """
    known = {variable(setting.name) for setting in fields(Config)}
    refuse_unknown_variables(os.environ, known)
    options |= {
        setting.name: os.environ.get(variable(setting.name))
        for setting in fields(Config)
        if setting.metadata.get("secret")
    }
    config = Config(**{name: value for name, value in options.items() if value is not None})
    if not config.loopback and not config.insecure_open:
        raise Unusable(
            f"{config.host} is reachable from other machines and no API key is required: bind "
            "127.0.0.1 behind a reverse proxy, or say --insecure-open if everybody may read, "
            "change and delete everything."
        )
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
        super().__init__(
            uvicorn.Config(
                app,
                host=app.config.host,
                port=app.config.port,
                http=protocol(app.refuse),
                ws="none",
                loop="uvloop",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            )
        )

    async def startup(self, sockets: Any = None) -> None:
        config = self._app.config
        try:
            await super().startup(sockets)
        except SystemExit:
            raise self._app.failure or Unusable(
                f"Cannot listen on {config.host} port {config.port}: it is taken or not this "
                "machine's; name another --port or --host."
            ) from None
        click.echo(welcome(config, self.servers[0].sockets[0].getsockname()[1]))


def welcome(config: Config, port: int) -> str:
    """What a start prints: where data lies, the address, the mode, and how to point a client."""
    host = f"[{config.host}]" if ":" in config.host else config.host
    reachable = "localhost" if config.host in ("0.0.0.0", "::") else host
    lines = [
        f"botwire-server {__version__}",
        f"  data     {config.data_dir}",
        f"  address  http://{host}:{port}",
        "  mode     open: no key needed, "
        + ("this machine only" if config.loopback else "EVERYBODY who reaches this port"),
        "",
        "Point a client at it:",
        f"  export BOTWIRE_URL=http://{reachable}:{port}",
        "  pip install botwire",
        """  python -c 'from botwire import Memory; m = Memory("hello"); m.set("name", "Ada"); """
        """print(m.get("name"))'""",
        "",
    ]
    if not config.loopback:
        lines.insert(
            0,
            "WARNING: --insecure-open: everybody who reaches this port can read, change and "
            "delete everything.",
        )
    return "\n".join(lines)


def main() -> None:
    """The console script: a refusal to start is one sentence and exit code 1."""
    try:
        cli(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
    except Unusable as error:
        click.echo(f"botwire-server: {error.message}", err=True)
        sys.exit(1)
