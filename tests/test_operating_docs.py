"""docs/operating.md tells of every operator's command, every route of its API, and every tier."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from botwire_server.cli import cli
from botwire_server.store.keys import SCOPES
from botwire_server.tiers import BUILT_IN
from botwire_server.web import admin

DOCS = Path(__file__).parents[1] / "docs" / "operating.md"
# Described elsewhere: what is about no tenant.
ELSEWHERE = {"serve", "reembed"}


def commands(group: click.Group, path: str = "botwire-server") -> list[str]:
    found = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += commands(command, f"{path} {name}")
        elif name not in ELSEWHERE:
            found.append(f"{path} {name}")
    return found


@pytest.mark.parametrize("command", commands(cli))
def test_every_command_is_described(command):
    name = command.removeprefix("botwire-server ")
    text = DOCS.read_text()
    assert command in text or f"`{name}" in text


def test_every_route_of_the_operator_api_stands_in_the_table():
    dialect = admin.dialect(lambda key_id: None)
    routes = {
        f"| `{method} {resource.path}` |"
        for resource in dialect.routes
        for method in resource.operations
    }
    rows = {
        line[: line.index(" |", 2) + 2]
        for line in DOCS.read_text().splitlines()
        if line.startswith("| `") and "/admin/v1" in line
    }
    assert rows == routes


def test_tiers_and_scopes_are_described():
    text = DOCS.read_text()
    for name in (*BUILT_IN, *SCOPES):
        assert f"| `{name}`" in text
    for limit in BUILT_IN["free"].__slots__:
        assert f"{limit} =" in text
