"""A data directory with as many keys as a product with many customers has."""

from __future__ import annotations

import asyncio
from pathlib import Path

from botwire_server.cli.common import opened
from botwire_server.store import keys
from botwire_server.store.driver import Connection
from botwire_server.store.operator import Operator

KEYS = 10_000


def prepare(data_dir: Path) -> str:
    """Make a tenant with `KEYS` keys; one that works."""
    return asyncio.run(_prepare(data_dir))


async def _prepare(data_dir: Path) -> str:
    async with opened(data_dir, None) as (operator, registry):
        key = await _one(operator)
        await registry.change(_many)
    return key


async def _one(operator: Operator) -> str:
    await operator.create_tenant("bench")
    return str((await operator.create_key("bench"))["key"])


def _many(connection: Connection) -> None:
    """As `create_key` does it, in one transaction."""
    made = [keys.new_key() for _ in range(KEYS)]
    connection.executemany(
        """INSERT INTO keys (id, tenant_id, hash, label, scopes, pattern, created_at)
        SELECT ?, id, ?, '', 'read,write,purge', '*', 0 FROM tenants WHERE name = 'bench'""",
        [(key.id, key.hash) for key in made],
    )
