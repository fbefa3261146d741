"""The command line. Every setting of a server is an option and a BOTWIRE_SERVER_* variable."""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
from typing import NoReturn

import click
import orjson

from botwire_server import __version__
from botwire_server.cli import (
    backups,
    checking,
    compacting,
    configuration,
    doctor,
    health,
    keys,
    namespaces,
    reports,
    serve,
    tenants,
    vectors,
)
from botwire_server.cli.settings import variables
from botwire_server.cli.terminal import printable_json, say
from botwire_server.config import variable
from botwire_server.environment import refuse_unknown, tidy
from botwire_server.errors import Refusal, Unusable
from botwire_server.logs import json_line
from botwire_server.store import causes
from botwire_server.store.driver import sqlite3

_HELP = {"-h", "--help", "--version"}

AS_JSON = "--json"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="botwire-server")
def cli() -> None:
    """Memory for AI agents, on your own machine.

    \b
    Start with `botwire-server serve`: it needs no option and prints what to do next.
    To give every customer a key of their own:
      botwire-server tenants create acme
      botwire-server keys create acme
    """


cli.add_command(serve.serve)
cli.add_command(configuration.config)
cli.add_command(tenants.tenants)
cli.add_command(keys.keys)
cli.add_command(namespaces.namespaces)
cli.add_command(vectors.reembed)
cli.add_command(backups.backup)
cli.add_command(backups.restore)
cli.add_command(backups.list_)
cli.add_command(checking.check)
cli.add_command(compacting.compact)
cli.add_command(doctor.doctor)
cli.add_command(health.health)
cli.add_command(reports.usage)
cli.add_command(reports.audit)


def main() -> None:
    """The console script: a refusal is one sentence and exit code 1, with --json as JSON."""
    try:
        ignored = tidy(os.environ)
        # Help helps also whom a mistake brought here; `doctor` tells of it among the rest.
        if sys.argv[1:2] != ["doctor"] and not _HELP.intersection(sys.argv[1:]):
            refuse_unknown(os.environ, variables(cli))
        cli(prog_name="botwire-server", standalone_mode=False, obj=ignored)
    except click.ClickException as error:
        if AS_JSON in sys.argv or _logs_json():
            _fail(error.format_message(), error.exit_code)
        shown = io.StringIO()
        error.show(shown)  # it may quote an argument
        say(shown.getvalue(), err=True, nl=False)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt, asyncio.CancelledError):
        sys.exit(130)
    except (Unusable, Refusal) as error:
        _fail(error.message)
    except (OSError, sqlite3.Error) as error:
        what = getattr(error, "filename", None) or "What was to be done"
        _fail(causes.told(f"{what} failed", error))
    except UnicodeEncodeError:
        _fail("An argument is no valid UTF-8.")


def _fail(sentence: str, code: int = 1) -> NoReturn:
    if AS_JSON in sys.argv:
        error = {"error": {"message": sentence, "exit_code": code}}
        click.echo(printable_json(orjson.dumps(error).decode()), err=True)
    elif _logs_json():
        click.echo(printable_json(json_line("error", sentence)), err=True)
    else:
        say(f"botwire-server: {sentence}", err=True)
    sys.exit(code)


def _logs_json() -> bool:
    """Whether a server was asked for whose lines are JSON: then also the one that ends it."""
    _, *arguments = sys.argv
    if arguments[:1] != ["serve"]:
        return False
    given = re.findall(r"--log-format[= ](\S+)", " ".join(arguments))
    return bool((given or [os.environ.get(variable("log_format"))])[-1] == "json")
