"""`botwire-server namespaces`: what a tenant keeps apart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import click

from botwire_server.cli.carrying_out import carry_out
from botwire_server.cli.common import (
    common,
    confirm,
    opened,
    operate,
    show_json,
    show_record,
    show_table,
)
from botwire_server.cli.terminal import say
from botwire_server.errors import Invalid, NotFound, Unavailable
from botwire_server.store import accepting, chores
from botwire_server.store.chores import Chore

COLUMNS = ("namespace", "entries", "states", "memories", "episodes", "bytes", "created_at")


@click.group()
def namespaces() -> None:
    """Namespaces: one file each, inside a tenant."""


@namespaces.command("list")
@click.argument("tenant")
@click.option("--prefix", default="", help="Only those whose names begin so.")
@common
def list_(tenant: str, prefix: str, data_dir: Path, tiers_file: Path | None, as_json: bool) -> None:
    """The namespaces of TENANT and what they hold."""
    found = operate(data_dir, tiers_file, lambda it: it.list_namespaces(tenant, prefix=prefix))
    if as_json:
        show_json(found)
    else:
        show_table(found, COLUMNS, empty="There is no such namespace.")


@namespaces.command("purge")
@click.argument("tenant")
@click.argument("name", required=False)
@click.option("--prefix", help="Remove all whose names begin so.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
def purge(
    tenant: str,
    name: str | None,
    prefix: str | None,
    yes: bool,
    data_dir: Path,
    tiers_file: Path | None,
    as_json: bool,
) -> None:
    """Remove namespace NAME of TENANT, or all with a prefix, for good; prints the receipt."""
    if (name is None) == (prefix is None):
        raise click.UsageError("Name one namespace, or give --prefix.")
    if prefix == "":
        raise Invalid("The prefix must not be empty: `tenants purge` removes everything.")
    if not (yes and as_json):
        found = operate(
            data_dir, tiers_file, lambda it: it.list_namespaces(tenant, prefix=prefix or "")
        )
        doomed = [row for row in found if name is None or row["namespace"] == name]
        if not doomed:
            raise NotFound("There is no such namespace.")
        if not as_json:
            show_table(doomed, COLUMNS, empty="")
        what = "this namespace" if len(doomed) == 1 else f"these {len(doomed)} namespaces"
        confirm(f"Remove {what} of {tenant} for good?", yes=yes)
    receipt = operate(
        data_dir,
        tiers_file,
        lambda it: (
            it.purge_namespace(tenant, name)
            if name is not None
            else it.purge_prefix(tenant, prefix or "")
        ),
    )
    if as_json:
        show_json(receipt)
    else:
        show_record(receipt)


@namespaces.command("accept")
@click.argument("tenant")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
def accept(
    tenant: str, name: str, yes: bool, data_dir: Path, tiers_file: Path | None, as_json: bool
) -> None:
    """Go on with namespace NAME of TENANT as its file is, although it lost its journal.

    For who has no backup of it: what was stored last is given up for good, the rest is served
    again. `check` says whether the rest is whole.
    """
    confirm(
        f"Give up what namespace {name} of {tenant} lost, and serve the rest?",
        yes=yes,
        otherwise="Nothing was changed",
    )
    outcome = asyncio.run(_accept(data_dir, tiers_file, tenant, name))
    if as_json:
        show_json({"tenant": tenant, "namespace": name, "outcome": outcome})
    else:
        say(f"{outcome}.".capitalize())


async def _accept(data_dir: Path, tiers_file: Path | None, tenant: str, name: str) -> str:
    @asynccontextmanager
    async def able() -> AsyncIterator[Mapping[str, Chore]]:
        yield {chores.ACCEPT: accepting.accept}

    async with opened(data_dir, tiers_file) as (operator, registry):
        states = await carry_out(
            data_dir,
            registry,
            chores.ACCEPT,
            tenant=tenant,
            namespace=name,
            able=able,
            label="accepting",
        )
        [outcome] = [each.outcome or "" for each in states] or ["failed: it was purged meanwhile"]
        if outcome.startswith("failed: "):
            raise Unavailable(outcome.removeprefix("failed: "))
        # By its id: the audit outlives a purge and holds no names.
        row = registry.tenant(tenant)
        found = None if row is None else registry.namespace(row.id, name)
        if found is not None:
            await operator.note("accept namespace", tenant, found.id, outcome)
    return outcome
