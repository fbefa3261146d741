"""`botwire-server tenants`: whose data there is."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from botwire_server.cli.backups import purge_from, purged_before
from botwire_server.cli.common import (
    common,
    confirm,
    operate,
    show_json,
    show_record,
    show_table,
)
from botwire_server.cli.terminal import Progress, say
from botwire_server.store.destinations import place_apart
from botwire_server.tiers import UNLIMITED

COLUMNS = ("tenant", "tier", "namespaces", "entries", "states", "memories", "episodes", "bytes")


@click.group()
def tenants() -> None:
    """Customers: each sees its own data and nothing else."""


@tenants.command("create")
@click.argument("name")
@click.option("--tier", default=UNLIMITED, show_default=True, help="Its set of limits.")
@common
def create(name: str, tier: str, data_dir: Path, tiers_file: Path | None, as_json: bool) -> None:
    """Make a tenant. It needs a key next: `keys create NAME`."""
    made = operate(data_dir, tiers_file, lambda it: it.create_tenant(name, tier=tier), make=True)
    if as_json:
        show_json(made)
    else:
        say(f"Made tenant {name} on tier {tier}. Give it a key: keys create {name}")


@tenants.command("list")
@common
def list_(data_dir: Path, tiers_file: Path | None, as_json: bool) -> None:
    """All tenants and what they hold."""
    found = operate(data_dir, tiers_file, lambda it: it.list_tenants())
    if as_json:
        show_json(found)
    else:
        show_table(found, COLUMNS, empty="There is no tenant yet: tenants create NAME makes one.")


@tenants.command("show")
@click.argument("name")
@common
def show(name: str, data_dir: Path, tiers_file: Path | None, as_json: bool) -> None:
    """One tenant: what it holds, and its keys."""
    found = operate(data_dir, tiers_file, lambda it: it.show_tenant(name))
    if as_json:
        show_json(found)
    else:
        show_record(found)
        say()
        show_table(
            found["keys"],
            ("id", "label", "scopes", "namespace", "expires_at", "revoked_at"),
            empty=f"It has no key yet: keys create {name} makes one.",
        )


@tenants.command("set-tier")
@click.argument("name")
@click.argument("tier")
@common
def set_tier(name: str, tier: str, data_dir: Path, tiers_file: Path | None, as_json: bool) -> None:
    """Give a tenant another set of limits; it holds from the next request on."""
    found = operate(data_dir, tiers_file, lambda it: it.set_tier(name, tier))
    if as_json:
        show_json(found)
    else:
        say(f"Tenant {name} is on tier {tier}.")


@tenants.command("purge")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--backup",
    "backups",
    multiple=True,
    help="Remove it also from this backup, a directory or s3://bucket/prefix; may be repeated.",
)
@common
def purge(
    name: str,
    yes: bool,
    backups: tuple[str, ...],
    data_dir: Path,
    tiers_file: Path | None,
    as_json: bool,
) -> None:
    """Remove a tenant with everything it stored, for good; prints the receipt.

    With --backup, NAME may be the id of a tenant that was purged before: its receipt shows it.
    """
    places = [place_apart(each, data_dir) for each in backups]
    for place in places:
        place.require()
    gone = asyncio.run(purged_before(data_dir, tiers_file, name)) if places else None
    if gone is None:
        if not yes:
            found = operate(data_dir, tiers_file, lambda it: it.show_tenant(name))
            if not as_json:
                show_record(found)
        confirm(f"Remove tenant {name} with all this for good?", yes=yes)
        receipt = operate(data_dir, tiers_file, lambda it: it.purge_tenant(name))
    else:
        confirm(f"Remove the purged tenant {gone} from these backups for good?", yes=yes)
        receipt = {"tenant_id": gone}
    if places:
        receipt["backups"] = asyncio.run(
            purge_from(data_dir, tiers_file, places, str(receipt["tenant_id"]))
        )
    if as_json:
        show_json(receipt)
    else:
        show_record(receipt)
        if places:
            say()
            show_table(receipt["backups"], ("backup", "generations", "objects"), empty="")


@tenants.command("export")
@click.argument("name")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@common
def export(name: str, file: Path, data_dir: Path, tiers_file: Path | None, as_json: bool) -> None:
    """Write a tenant to FILE, with everything it stored; its keys stay here."""
    bar = Progress("exporting")
    written = operate(
        data_dir,
        tiers_file,
        lambda it: it.export_tenant(name, file, data_dir=data_dir, progress=bar.show),
    )
    bar.close()
    if as_json:
        show_json(written)
    else:
        show_record(written)


@tenants.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--as", "name", help="Its name here.  [default: the name it had]")
@click.option(
    "--any-size", is_flag=True, help="Take it also if it becomes hundreds of times as large."
)
@common
def import_(
    file: Path,
    name: str | None,
    any_size: bool,
    data_dir: Path,
    tiers_file: Path | None,
    as_json: bool,
) -> None:
    """Make a tenant of FILE, whole or not at all. It needs a key next: `keys create NAME`."""
    bar = Progress("importing")
    taken = operate(
        data_dir,
        tiers_file,
        lambda it: it.import_tenant(
            file, name=name, data_dir=data_dir, progress=bar.show, any_size=any_size
        ),
        make=True,
    )
    bar.close()
    if as_json:
        show_json(taken)
    else:
        show_record(taken)
