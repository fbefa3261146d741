"""`botwire-server reembed`: new vectors for what is stored, after the model was changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click

from botwire_server.cli.carrying_out import carry_out
from botwire_server.cli.common import common, opened, show_json, show_table
from botwire_server.cli.settings import option
from botwire_server.config import Config, variable
from botwire_server.embedding import embedder
from botwire_server.errors import Unavailable
from botwire_server.store import chores, reembedding
from botwire_server.store.chores import Chore


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
@option("embedder_key", hidden=True)
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
    @asynccontextmanager
    async def able() -> AsyncIterator[Mapping[str, Chore]]:
        made = embedder(setting, key)
        try:
            yield {chores.REEMBED: reembedding.chore(made.embed)}
        finally:
            await made.close()

    async with opened(data_dir, tiers_file) as (_, registry):
        states = await carry_out(
            data_dir, registry, chores.REEMBED, tenant=tenant, able=able, label="embedding"
        )
    return [
        {
            "tenant": each.tenant,
            "namespace": each.namespace,
            "memories": each.total,
            "outcome": each.outcome,
        }
        for each in states
    ]
