"""`botwire-server usage` and `audit`: who used how much, and what was done."""

from __future__ import annotations

from pathlib import Path

import click

from botwire_server.cli.common import common, operate, show_json, show_table
from botwire_server.cli.terminal import say


@click.command()
@click.argument("tenant", required=False)
@common
def usage(tenant: str | None, data_dir: Path, tiers_file: Path | None, as_json: bool) -> None:
    """Calls and holdings of all tenants, or of TENANT by key and by day."""
    found = operate(data_dir, tiers_file, lambda it: it.usage(tenant))
    if as_json:
        show_json(found[0] if tenant is not None else found)
        return
    show_table(
        found,
        (
            "tenant",
            "api_calls_today",
            "api_calls_month",
            "namespaces",
            "vectors_stored",
            "storage_bytes",
        ),
        empty="There is no tenant yet.",
    )
    if tenant is not None:
        say()
        show_table(
            found[0]["keys"],
            ("id", "label", "api_calls_today", "api_calls_month"),
            empty="No key.",
        )
        say()
        show_table(
            found[0]["days"],
            ("day", "api_calls", "namespaces", "vectors_stored", "storage_bytes"),
            empty="Nothing was counted yet.",
        )


@click.command()
@click.argument("tenant", required=False)
@common
def audit(tenant: str | None, data_dir: Path, tiers_file: Path | None, as_json: bool) -> None:
    """What was created, rotated, revoked, purged, exported and imported: when and by whom."""
    found = operate(data_dir, tiers_file, lambda it: it.audit(tenant))
    if as_json:
        show_json(found)
    else:
        show_table(
            found,
            ("at", "actor", "action", "tenant", "subject", "outcome"),
            empty="Nothing was done yet.",
        )
