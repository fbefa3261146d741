"""`botwire-server compact`: give the disk back what deleted things took."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import orjson

from botwire_server.cli.carrying_out import carry_out
from botwire_server.cli.common import common, opened, show_json, show_table
from botwire_server.cli.terminal import say
from botwire_server.errors import Unavailable
from botwire_server.store import chores
from botwire_server.store.chores import Chore, State
from botwire_server.store.compacting import compact as chore

COLUMNS = ("tenant", "namespace", "before", "after", "outcome")


@click.command()
@click.option("--tenant", help="Only this tenant's namespaces.")
@common
def compact(tenant: str | None, data_dir: Path, tiers_file: Path | None, as_json: bool) -> None:
    """Make files smaller that held more once than they do now.

    Room that deleted things left is used again by itself; this gives it back to the disk. Beside
    a running server, which does it, requests to a namespace wait while its file is written anew,
    and it needs free room for a copy of the largest file.
    """
    found = asyncio.run(_compact(data_dir, tiers_file, tenant))
    before, after = (sum(each[name] or 0 for each in found) for name in ("before", "after"))
    if as_json:
        show_json({"before": before, "after": after, "namespaces": found})
    else:
        show_table(found, COLUMNS, empty="There is no namespace.")
        if found:
            say(f"{before} bytes before, {after} after.")
    if any(each["outcome"] != "done" for each in found):
        raise Unavailable("Some namespaces were not compacted; the outcome says why.")


async def _compact(
    data_dir: Path, tiers_file: Path | None, tenant: str | None
) -> list[dict[str, Any]]:
    @asynccontextmanager
    async def able() -> AsyncIterator[Mapping[str, Chore]]:
        yield {chores.COMPACT: chore}

    async with opened(data_dir, tiers_file) as (_, registry):
        states = await carry_out(
            data_dir, registry, chores.COMPACT, tenant=tenant, able=able, label="compacting"
        )
    return [_row(each) for each in states]


def _row(state: State) -> dict[str, Any]:
    outcome = state.outcome or ""
    saved = {"before": None, "after": None}
    if outcome.startswith("{"):
        saved = orjson.loads(outcome)
        outcome = "done"
    return {"tenant": state.tenant, "namespace": state.namespace, **saved, "outcome": outcome}
