"""`botwire-server doctor`: would a server run well here, with these settings?"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from botwire_server import __version__, tiers
from botwire_server.cli.common import ACTOR, opened, show_json, show_table
from botwire_server.cli.settings import settings, shown, text_of, variables
from botwire_server.cli.terminal import say
from botwire_server.config import Config
from botwire_server.embedding import NONE, embedder
from botwire_server.environment import unknown
from botwire_server.errors import Refusal, Unusable
from botwire_server.store import installation, records
from botwire_server.store.diagnosis import Finding, of_directory, of_machine
from botwire_server.summarizer import summarizer
from botwire_server.web.callers import Proxies
from botwire_server.web.origins import Origins

# How long an endpoint may take to answer.
PATIENCE_SECONDS = 10.0


@click.command()
@settings
@click.option(
    "--new-installation",
    is_flag=True,
    help="This data directory is a copy: give it an id of its own.",
)
@click.option(
    "--same-installation",
    is_flag=True,
    help="This data directory was moved: it is the installation that it was.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_context
def doctor(
    context: click.Context,
    /,
    as_json: bool,
    new_installation: bool,
    same_installation: bool,
    **options: Any,
) -> None:
    """Look at this machine, the data directory and the settings, and say what is not well.

    It takes the options and variables of `serve`, and says of each where it comes from. It works
    before the first start, beside a server, and where something is broken; it changes nothing but
    which installation this is, where that is asked for. The exit code is 1 where a server would not
    start, or would not work.
    """
    config = Config(**{name: value for name, value in options.items() if value is not None})
    if new_installation or same_installation:
        if new_installation and same_installation:
            raise Unusable("It is a copy or it was moved: give one of the two.")
        asyncio.run(_settle(config.data_dir, config.tiers, anew=new_installation))
    found = shown(context, config)
    findings = [
        Finding("ok", "botwire-server", __version__),
        *of_machine(),
        *of_directory(config.data_dir),
        *_of_settings(
            config,
            known=variables(context.find_root().command),
            ignored=len(context.obj or ()),
        ),
    ]
    ok = all(each.level != "failure" for each in findings)
    if as_json:
        show_json({"ok": ok, "findings": [each._asdict() for each in findings], "settings": found})
    else:
        for each in findings:
            say(f"{each.level:<8} {each.what:<15} {each.says}")
            if each.remedy is not None:
                say(f"{'':<25}{each.remedy}")
        say("")
        show_table(found, ("setting", "value", "origin"), empty="")
    if not ok:
        sys.exit(1)


async def _settle(data_dir: Path, tiers_file: Path | None, *, anew: bool) -> None:
    """Say which installation a copied or moved data directory is."""
    async with opened(data_dir, tiers_file) as (_, registry):
        place = installation.place_of(data_dir)
        action, unit = (
            ("new installation", installation.renew)
            if anew
            else ("same installation", installation.stay)
        )
        await registry.change(unit, place)
        id = str(await registry.query(installation.of))
        await registry.change(records.add_audit, ACTOR, action, None, id, "done")


def _of_settings(config: Config, *, known: set[str], ignored: int) -> Iterator[Finding]:
    for name, near in unknown(os.environ, known):
        yield Finding(
            "failure",
            "variable",
            f"{name} is no setting, and the server does not start with it",
            f"Did you mean {near}?" if near else "Remove it.",
        )
    if ignored:
        yield Finding(
            "ok",
            "variables",
            f"{ignored} that Kubernetes or Docker sets for a service of this name are ignored",
        )
    if config.insecure_open and not config.loopback:
        yield Finding(
            "warning",
            "insecure_open",
            "everybody who reaches the port can read and delete everything while no key exists",
            "Leave the option away, and make keys.",
        )
    for what, tried in (
        ("tiers", lambda: tiers.load(config.tiers or config.data_dir / tiers.FILE)),
        ("summarizer", lambda: summarizer(config.summarizer, config.summarizer_key)),
        ("allow_origin", lambda: Origins(config.allow_origin)),
        ("trusted_proxy", lambda: Proxies(config.trusted_proxy)),
    ):
        try:
            tried()
        except Unusable as error:
            yield Finding("failure", what, "the server does not start with it", error.message)
        else:
            says = "readable" if what == "tiers" else text_of(getattr(config, what)) or "none"
            yield Finding("ok", what, says)
    yield asyncio.run(_embedder(config))


async def _embedder(config: Config) -> Finding:
    try:
        made = embedder(config.embedder, config.embedder_key, seconds=PATIENCE_SECONDS)
    except Unusable as error:
        return Finding("failure", "embedder", "the server does not start with it", error.message)
    try:
        embedded = await made.embed(["Is anybody there?"])
    except Refusal as error:
        return Finding(
            "failure",
            "embedder",
            f"{made.name} does not answer: memories cannot be stored or found by meaning",
            error.message,
        )
    finally:
        await made.close()
    if embedded is None:
        return Finding("ok", "embedder", f"{NONE}: search by keywords only")
    return Finding("ok", "embedder", f"{made.name}, {embedded.model.dimension} dimensions")
