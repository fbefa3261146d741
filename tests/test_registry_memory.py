"""What the registry remembers of its look-ups ends with anybody's commit, and has a bound."""

from __future__ import annotations

import asyncio
import time

from botwire_server.store import driver, registry
from botwire_server.store.registry import Registry


async def opened(directory):
    found = await Registry.open(directory, durability="full", clock=time.time)
    tenant = await found.ensure_tenant("acme", "unlimited")
    return found, tenant.id


def add(directory, tenant_id, name):
    """As another process does it."""
    other = driver.connect(directory / "control.db")
    other.execute(
        "INSERT INTO namespaces (id, tenant_id, name, file, created_at) VALUES (?, ?, ?, ?, 0)",
        (name, tenant_id, name, f"tenants/{name}.db"),
    )
    other.close()


async def test_what_was_missing_is_found_once_another_process_made_it(tmp_path):
    control, tenant_id = await opened(tmp_path)
    assert control.namespace(tenant_id, "a") is None
    await asyncio.sleep(0)
    assert control.namespace(tenant_id, "a") is None
    add(tmp_path, tenant_id, "a")
    await asyncio.sleep(0)
    assert control.namespace(tenant_id, "a").id == "a"
    await control.close()


async def test_what_was_there_is_gone_once_this_process_removed_it(tmp_path):
    control, tenant_id = await opened(tmp_path)
    add(tmp_path, tenant_id, "a")
    assert control.namespace(tenant_id, "a") is not None
    await control.change(lambda connection: connection.execute("DELETE FROM namespaces"))
    assert control.namespace(tenant_id, "a") is None
    await control.close()


async def test_names_that_do_not_exist_fill_no_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "MOST_REMEMBERED", 10)
    control, tenant_id = await opened(tmp_path)
    for number in range(100):
        assert control.namespace(tenant_id, f"no-{number}") is None
        assert len(control._remembered) <= 10
    await control.close()
