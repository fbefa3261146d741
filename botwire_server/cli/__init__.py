"""The command line. Every setting of a server is an option and a BOTWIRE_SERVER_* variable."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from typing import NoReturn

import click
import orjson

from botwire_server import __version__
from botwire_server.cli import (
    backups,
    checking,
    compacting,
    doctor,
    keys,
    namespaces,
    reports,
    serve,
    tenants,
    vectors,
)
from botwire_server.cli.terminal import printable_json, say
from botwire_server.config import refuse_unknown_variables
from botwire_server.errors import Refusal, Unusable
from botwire_server.store import causes
from botwire_server.store.driver import sqlite3

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
cli.add_command(reports.usage)
cli.add_command(reports.audit)


def variables(command: click.Command) -> set[str]:
    """The environment variables that a command and those below it read."""
    found = {str(parameter.envvar) for parameter in command.params if parameter.envvar}
    if isinstance(command, click.Group):
        found = found.union(*map(variables, command.commands.values()))
    return found


def main() -> None:
    """The console script: a refusal is one sentence and exit code 1, with --json as JSON."""
    try:
        if sys.argv[1:2] != ["doctor"]:  # which tells of them among the rest
            refuse_unknown_variables(os.environ, variables(cli))
        cli(standalone_mode=False)
    except click.ClickException as error:
        if AS_JSON in sys.argv:
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
    else:
        say(f"botwire-server: {sentence}", err=True)
    sys.exit(code)
