"""`botwire-server config`: what a server started here, and so, would be set to."""

from __future__ import annotations

from typing import Any

import click

from botwire_server.cli.common import show_json, show_table
from botwire_server.cli.settings import settings, shown
from botwire_server.config import Config


@click.group()
def config() -> None:
    """The settings of a server."""


@config.command()
@settings
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_context
def show(context: click.Context, /, as_json: bool, **options: Any) -> None:
    """Every setting: its value, and whether an option, a variable or nobody gave it.

    It takes the options and variables of `serve`. What is secret is not shown, only that it is set.
    """
    found = shown(context, Config(**{name: it for name, it in options.items() if it is not None}))
    if as_json:
        show_json(found)
    else:
        show_table(found, ("setting", "value", "origin"), empty="")
