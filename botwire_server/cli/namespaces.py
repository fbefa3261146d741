"""`botwire-server namespaces`: what a tenant keeps apart."""

from __future__ import annotations

from pathlib import Path

import click

from botwire_server.cli.common import (
    common,
    confirm,
    operate,
    show_json,
    show_record,
    show_table,
)
from botwire_server.errors import Invalid, NotFound

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
