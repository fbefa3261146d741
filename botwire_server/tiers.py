"""Tiers: named sets of limits. The built-in ones, and those of a TOML file.

[tiers.team]
calls_per_day = 10000
writes_per_day = 0          # per namespace; 0 is no limit
storage_bytes = 1000000000
vectors = 100000
agents = 20
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path

from botwire_server.errors import Unusable


@dataclass(frozen=True, slots=True)
class Tier:
    """A set of limits; 0 is no limit."""

    calls_per_day: int = 0
    writes_per_day: int = 0
    storage_bytes: int = 0
    vectors: int = 0
    agents: int = 0


UNLIMITED = "unlimited"

BUILT_IN: Mapping[str, Tier] = {
    "free": Tier(calls_per_day=500, storage_bytes=50_000_000, vectors=5_000, agents=1),
    "starter": Tier(calls_per_day=5_000, storage_bytes=500_000_000, vectors=50_000, agents=10),
    "pro": Tier(calls_per_day=25_000, storage_bytes=5_000_000_000, vectors=250_000, agents=50),
    "scale": Tier(calls_per_day=50_000, storage_bytes=10_000_000_000, vectors=500_000),
    UNLIMITED: Tier(),
}

FILE = "tiers.toml"


def load(path: Path) -> Mapping[str, Tier]:
    """The built-in tiers, changed and added to by the file where there is one."""
    if not path.exists():
        return BUILT_IN
    try:
        with path.open("rb") as file:
            content = tomllib.load(file)
    except (OSError, ValueError) as error:  # no TOML, or no UTF-8
        raise Unusable(f"{path} cannot be read as TOML: {error}") from error
    for heading in sorted(set(content) - {"tiers"}):
        raise Unusable(f"{path}: there is nothing called {heading}; write [tiers.NAME].")
    tables = content.get("tiers", {})
    if not isinstance(tables, dict):
        raise Unusable(f"{path}: tiers must be tables: write [tiers.NAME].")
    tiers = dict(BUILT_IN)
    known = {field.name for field in fields(Tier)}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise Unusable(f"{path}: tier {name} must be a table: write [tiers.{name}].")
        for limit, value in table.items():
            if limit not in known:
                limits = ", ".join(sorted(known))
                raise Unusable(f"{path}: tier {name} has no limit {limit}; there are {limits}.")
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise Unusable(f"{path}: {limit} of tier {name} must be a whole number from 0.")
        tiers[name] = replace(tiers.get(name, Tier()), **table)
    return tiers
