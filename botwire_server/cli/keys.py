"""`botwire-server keys`: the credentials that decide what can be reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from botwire_server.addresses import url as url_of
from botwire_server.cli.common import common, operate, show_json, show_record, show_table
from botwire_server.cli.terminal import say
from botwire_server.config import Config
from botwire_server.serve.banner import with_key
from botwire_server.store import keys as store_keys
from botwire_server.store.lock import told

COLUMNS = (
    "id",
    "tenant",
    "label",
    "scopes",
    "namespace",
    "last_used_at",
    "expires_at",
    "revoked_at",
)


@click.group()
def keys() -> None:
    """API keys. As soon as one exists, the server asks for a key."""


_quiet = click.option(
    "--quiet", "-q", is_flag=True, help="Print the key and nothing else, for scripts."
)


@keys.command("create")
@click.argument("tenant", required=False)
@click.option("--operator", is_flag=True, help="A key for the operator API; it has no tenant.")
@click.option("--label", default="", help="What it is for, for people.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    type=click.Choice(store_keys.SCOPES),
    help="What it may do; repeat for several.  [default: all]",
)
@click.option(
    "--namespace",
    default=store_keys.EVERYTHING,
    show_default=True,
    help="In which namespaces, such as tenant-acme-*.",
)
@click.option("--expires", help="For how long it works, such as 90d.  [default: for good]")
@_quiet
@common
def create(
    tenant: str | None,
    operator: bool,
    label: str,
    scopes: tuple[str, ...],
    namespace: str,
    expires: str | None,
    quiet: bool,
    data_dir: Path,
    tiers_file: Path | None,
    as_json: bool,
) -> None:
    """Make a key of TENANT; it is shown once and kept nowhere."""
    _refuse_both(quiet=quiet, as_json=as_json)
    if (tenant is None) != operator:
        raise click.UsageError("Name a TENANT, or say --operator for an operator's key.")
    made = operate(
        data_dir,
        tiers_file,
        lambda it: it.create_key(
            tenant, label=label, scopes=list(scopes), namespace=namespace, expires=expires
        ),
        make=operator,  # a new directory has no tenant
    )
    _show_made(made, data_dir, quiet=quiet, as_json=as_json)


@keys.command("list")
@click.argument("tenant", required=False)
@common
def list_(tenant: str | None, data_dir: Path, tiers_file: Path | None, as_json: bool) -> None:
    """All keys, or those of TENANT; never their secrets."""
    found = operate(data_dir, tiers_file, lambda it: it.list_keys(tenant))
    if as_json:
        show_json(found)
    else:
        show_table(found, COLUMNS, empty="There is no key yet: keys create TENANT makes one.")


@keys.command("rotate")
@click.argument("id")
@click.option("--grace", help="How long the old key works on, such as 24h.  [default: not at all]")
@_quiet
@common
def rotate(
    id: str,
    grace: str | None,
    quiet: bool,
    data_dir: Path,
    tiers_file: Path | None,
    as_json: bool,
) -> None:
    """Replace key ID by a new one with the same label, scopes and namespaces."""
    _refuse_both(quiet=quiet, as_json=as_json)
    made = operate(data_dir, tiers_file, lambda it: it.rotate_key(id, grace=grace))
    _show_made(made, data_dir, quiet=quiet, as_json=as_json)


@keys.command("revoke")
@click.argument("id")
@common
def revoke(id: str, data_dir: Path, tiers_file: Path | None, as_json: bool) -> None:
    """Let key ID work no longer, at once."""
    found = operate(data_dir, tiers_file, lambda it: it.revoke_key(id))
    if as_json:
        show_json(found)
    else:
        say(f"Key {id} works no longer.")


def _refuse_both(*, quiet: bool, as_json: bool) -> None:
    """Before a key is made that would be shown otherwise than somebody meant."""
    if quiet and as_json:
        raise click.UsageError("--quiet prints the bare key, and --json a record: take one.")


def _show_made(made: dict[str, Any], data_dir: Path, *, quiet: bool, as_json: bool) -> None:
    if as_json:
        show_json(made)
        return
    if quiet:
        say(made["key"])
        return
    show_record({name: value for name, value in made.items() if value is not None})
    say("\nKeep the key now: it is not shown again. Clients send it like this:")
    # As the server says that runs here; else as one would by default.
    url = (told(data_dir) or {}).get("url") or url_of(Config.host, Config.port)
    say(f"  export BOTWIRE_URL={with_key(url, made['key'])}")
