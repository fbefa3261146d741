"""`botwire-server reembed`: new vectors for what is stored, after the model was changed."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import click

from botwire_server.cli.common import (
    MOST_OPEN,
    POLL_SECONDS,
    Progress,
    common,
    opened,
    show_json,
    show_table,
)
from botwire_server.config import Config, variable
from botwire_server.embedding import embedder
from botwire_server.errors import Unavailable, Unusable
from botwire_server.store import chores, reembedding
from botwire_server.store.directory import DataDirectory
from botwire_server.store.registry import Registry


@click.command()
@click.argument("tenant", required=False)
@click.option(
    "--embedder",
    "setting",
    envvar=variable("embedder"),
    default=Config.embedder,
    show_default=True,
    help="Whose vectors, where no server runs; a running server takes its own.",
)
@click.option("--embedder-key", envvar=variable("embedder_key"), hidden=True)
@common
def reembed(
    tenant: str | None,
    setting: str,
    embedder_key: str | None,
    data_dir: Path,
    tiers_file: Path | None,
    as_json: bool,
) -> None:
    """Make new vectors for the memories of TENANT, or of all, with the model now chosen.

    Needed after --embedder was changed: until then searches go by keywords. The server goes on
    answering meanwhile; stopped anywhere, this goes on where it stopped.
    """
    found = asyncio.run(_reembed(data_dir, tiers_file, tenant, setting, embedder_key))
    if as_json:
        show_json(found)
    else:
        show_table(
            found, ("tenant", "namespace", "memories", "outcome"), empty="There is no namespace."
        )
    if any(each["outcome"].startswith("failed") for each in found):
        raise Unavailable("Some namespaces have no new vectors yet; run this again.")


async def _reembed(
    data_dir: Path, tiers_file: Path | None, tenant: str | None, setting: str, key: str | None
) -> list[dict[str, Any]]:
    bar = Progress("embedding")
    async with opened(data_dir, tiers_file) as (_, registry):
        asked_at = await registry.change(chores.ask, chores.REEMBED, tenant)
        here = asyncio.create_task(_do_here(data_dir, setting, key))
        while True:
            states = await registry.query(chores.states, chores.REEMBED, asked_at)
            bar.show(sum(each.done for each in states), sum(each.total for each in states))
            if all(each.outcome is not None for each in states):
                break
            if here.done():
                here.result()
                here = asyncio.create_task(_do_here(data_dir, setting, key))
            await asyncio.sleep(POLL_SECONDS)
        bar.close()
        await here  # not cancelled: it may be closing the data directory
    return [
        {
            "tenant": each.tenant,
            "namespace": each.namespace,
            "memories": each.total,
            "outcome": each.outcome,
        }
        for each in states
    ]


async def _do_here(data_dir: Path, setting: str, key: str | None) -> None:
    """Do what is due in this process; nothing where a server runs, which does it itself."""
    try:
        directory = await DataDirectory.open(
            data_dir, durability="full", clock=time.time, most_open=MOST_OPEN
        )
    except Unusable:
        await asyncio.sleep(POLL_SECONDS)
        return
    try:
        made = embedder(setting, key)
        try:
            can = {chores.REEMBED: reembedding.chore(made.embed)}
            while await _waiting(directory.registry):
                await chores.do_due(directory, can)
        finally:
            await made.close()
    finally:
        await directory.close()


async def _waiting(registry: Registry) -> bool:
    return bool(await registry.query(chores.due, chores.REEMBED))
