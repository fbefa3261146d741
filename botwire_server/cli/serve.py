"""`botwire-server serve`: the server process. Its options are the fields of `Config`."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from botwire_server.cli.settings import settings
from botwire_server.cli.terminal import say
from botwire_server.config import Config
from botwire_server.logs import configure, take_over
from botwire_server.serve.listeners import passed
from botwire_server.serve.notify import Notifier
from botwire_server.serve.server import run
from botwire_server.store.pool import raise_descriptor_limit
from botwire_server.web.app import create_app
from botwire_server.web.request_log import RequestLog


@click.command()
@settings
def serve(**options: Any) -> None:
    """Serve the memory until SIGTERM or Ctrl-C.

    \b
    The first steps:
      botwire-server serve
      export BOTWIRE_URL=http://127.0.0.1:8000
      python -c 'from botwire import Memory; Memory("hello").set("name", "Ada")'

    Sockets that systemd passes are served in place of --host and --port, and a service of
    Type=notify is told when it is ready, that it lives, and when it ends.
    """
    config = Config(**{name: value for name, value in options.items() if value is not None})
    configure(config.log_level, config.log_format)
    take_over()
    raise_descriptor_limit()
    listener = passed(os.environ)
    logs_requests = config.log_level in ("debug", "info")
    app = create_app(
        config,
        request_log=RequestLog(sys.stderr, config.log_format) if logs_requests else None,
        # Who chose the sockets chose who gets there, whatever --host says.
        local=None if listener is None else listener.local,
    )
    run(app, listener=listener, notifier=Notifier.of(os.environ), announce=say)
