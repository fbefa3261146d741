"""What the tests of backups share: a data directory with two tenants, and what it holds."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from serving import namespace_files, query
from tenancy import cli_json, make_tenant

from botwire_server.store import entries, keys
from botwire_server.store.directory import DataDirectory
from botwire_server.store.driver import connect
from botwire_server.store.namespace import Limits
from botwire_server.store.places import MARKER
from botwire_server.store.tenant import Tenant
from botwire_server.store.usage import Call
from botwire_server.store.views import few

Contents = dict[str, dict[str, dict[str, str]]]


def fill(data: Path, contents: Contents) -> None:
    """Store entries: tenant, namespace, key, text. Tenants are made where there are none."""
    for tenant in contents:
        there = (data / "control.db").exists()
        known = [each["tenant"] for each in cli_json(data, "tenants", "list")] if there else []
        if tenant not in known:
            make_tenant(data, tenant)

    async def store() -> None:
        async with opened(data) as directory:
            for tenant, namespaces in contents.items():
                reach = door(directory, tenant)
                for namespace, texts in namespaces.items():
                    for key, text in texts.items():
                        value = f'"{text}"'.encode()
                        reference = reach.namespace(namespace)
                        await reference.write(entries.put, key, value, size=len(text))

    asyncio.run(store())


def held(data: Path) -> Contents:
    """What a data directory holds, asked as a server would."""

    async def read() -> Contents:
        async with opened(data) as directory:
            found: Contents = {}
            for [name] in query(data / "control.db", "SELECT name FROM tenants"):
                reach = door(directory, name)
                found[name] = {}
                for namespace in await reach.namespaces():
                    reference = reach.namespace(namespace)
                    found[name][namespace] = {
                        detail.key: json.loads(
                            (await reference.read(entries.get, detail.key)).value
                        )
                        for detail in await reference.read(few, entries.listing)
                    }
            return found

    return asyncio.run(read())


def sound(data: Path) -> None:
    """Every file is one the registry knows, whole, and its namespace's; nothing else lies about."""
    with closing(connect(data / "control.db")) as control:
        rows = dict(control.execute("SELECT file, id FROM namespaces").fetchall())
        assert control.execute("SELECT count(*) FROM discarded").fetchone() == (0,)
        assert control.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert {str(file.relative_to(data)) for file in namespace_files(data)} == set(rows)
    for file, id in rows.items():
        with closing(connect(data / file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert connection.execute("SELECT owner FROM totals").fetchone() in [(id,), (None,)]
    left = {path.name for path in data.iterdir()} - {"tiers.toml"}
    assert left <= {"control.db", "tenants", "lock"}, left
    for path in data.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


class opened:
    """A data directory that this process serves."""

    def __init__(self, data: Path) -> None:
        self._data = data

    async def __aenter__(self) -> DataDirectory:
        self._directory = await DataDirectory.open(
            self._data, durability="full", clock=time.time, most_open=50
        )
        return self._directory

    async def __aexit__(self, *_: Any) -> None:
        await self._directory.close()


def door(directory: DataDirectory, tenant: str) -> Tenant:
    """The door of a tenant without limits."""
    row = directory.registry.tenant(tenant)
    assert row is not None
    return Tenant(directory, row, limits=Limits(), grant=keys.UNLIMITED, call=Call(row.id, ""))


def objects(dest: Path) -> dict[str, bytes]:
    """Every object of a backup."""
    return {
        str(path.relative_to(dest)): path.read_bytes()
        for path in dest.rglob("*")
        if path.is_file() and path.name not in ("lock", MARKER)
    }
