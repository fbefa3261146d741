"""A data directory and its open namespaces: opening, closing, purging, what a crash leaves."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from botwire_server.errors import Damaged, Refusal, Unusable
from botwire_server.store import entries, purges
from botwire_server.store.directory import DataDirectory
from botwire_server.store.keys import UNLIMITED
from botwire_server.store.namespace import Limits, Namespace
from botwire_server.store.pool import DRAFT
from botwire_server.store.rows import NamespaceRow
from botwire_server.store.tenant import Tenant
from botwire_server.store.usage import NO_KEY, Call
from botwire_server.store.views import few


@asynccontextmanager
async def directory(path: Path, *, most_open: int = 100):
    """A data directory and the door of a tenant in it."""
    opened = await DataDirectory.open(path, durability="full", clock=time.time, most_open=most_open)
    try:
        yield opened, await door(opened, "tenant")
    finally:
        await opened.close()


async def door(data: DataDirectory, name: str) -> Tenant:
    """The door of a tenant without limits, made where there is none."""
    row = await data.registry.ensure_tenant(name, "unlimited")
    call = Call(row.id, NO_KEY)
    return Tenant(data, row, limits=Limits(), grant=UNLIMITED, call=call)


async def put(tenant: Tenant, namespace: str, key: str = "k", value: bytes = b'"v"'):
    return await tenant.namespace(namespace).write(entries.put, key, value, size=len(value))


async def get(tenant: Tenant, namespace: str, key: str = "k"):
    return await tenant.namespace(namespace).read(entries.get, key)


async def bury(data: DataDirectory, row: NamespaceRow) -> None:
    """Begin a purge, as another process would."""
    await data.registry.change(purges.bury_namespace, row.tenant_id, row.id, actor="test")


def files(path: Path) -> list[Path]:
    return sorted(path.glob("tenants/*/*"))


async def test_the_least_recently_used_is_closed(tmp_path):
    async with directory(tmp_path, most_open=3) as (data, tenant):
        for name in "abc":
            await put(tenant, name)
        await get(tenant, "a")
        await put(tenant, "d")
        opened = {id for id, _ in data.pool.opened()}
        ids = {name: data.find(tenant._row, name).id for name in "abcd"}
        assert opened == {ids["a"], ids["c"], ids["d"]}
        assert (await get(tenant, "b")).value == b'"v"'
        assert len(data.pool.opened()) == 3


async def test_many_namespaces_through_few_open_files(tmp_path):
    async with directory(tmp_path, most_open=4) as (data, tenant):
        names = [f"n{number}" for number in range(40)]
        await asyncio.gather(*(put(tenant, name) for name in names))
        for _ in range(3):
            await asyncio.gather(*(put(tenant, name, value=b"1") for name in names))
            read = await asyncio.gather(*(get(tenant, name) for name in names))
            assert [entry.value for entry in read] == [b"1"] * 40
        for name in names[:8]:  # one after the other: no more is open than may be
            await get(tenant, name)
        assert len(data.pool.opened()) == 4
        await asyncio.gather(*data.pool._closing.values())
        open_files = [os.readlink(f"/proc/self/fd/{fd}") for fd in descriptors()]
        assert sum(name.endswith(".db") and "/tenants/" in name for name in open_files) == 4


async def test_opening_twice_at_once_opens_once(tmp_path, monkeypatch):
    async with directory(tmp_path) as (_, tenant):
        await put(tenant, "n")
    opened = []
    original = Namespace.open.__func__

    async def counting(cls, path, **options):
        opened.append(path)
        return await original(cls, path, **options)

    async with directory(tmp_path) as (_, tenant):
        monkeypatch.setattr(Namespace, "open", classmethod(counting))
        await asyncio.gather(*(get(tenant, "n") for _ in range(50)))
    assert len(opened) == 1


async def test_creating_at_once_makes_one_namespace(tmp_path):
    async with directory(tmp_path) as (data, tenant):
        await asyncio.gather(*(put(tenant, "n", f"k{number}") for number in range(50)))
        assert len(await tenant.namespace("n").read(few, entries.listing)) == 50
        assert (await data.totals(tenant._row))[0] == 1
    assert len(files(tmp_path)) == 1


async def test_a_caller_that_gives_up_does_not_spoil_the_opening(tmp_path):
    async with directory(tmp_path) as (_, tenant):
        await put(tenant, "n")
    async with directory(tmp_path) as (_, tenant):
        first = asyncio.create_task(get(tenant, "n"))
        second = asyncio.create_task(get(tenant, "n"))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).value == b'"v"'


async def test_a_purge_closes_and_unlinks(tmp_path):
    async with directory(tmp_path) as (data, tenant):
        await put(tenant, "n")
        await put(tenant, "n", "l")
        row = data.find(tenant._row, "n")
        held = await tenant.namespace("n").purge()
        assert (held.entries, held.bytes) == (2, 6)
        assert files(tmp_path) == []
        assert data.pool.opened() == []
        assert not [fd for fd in descriptors() if row.id in os.readlink(f"/proc/self/fd/{fd}")]
        assert await data.registry.query(purges.unfinished) == []
        assert await tenant.namespace("n").purge() is None
        assert await get(tenant, "n") is None


async def test_a_name_that_was_purged_begins_in_a_new_file(tmp_path):
    async with directory(tmp_path) as (data, tenant):
        seen = set()
        for _ in range(5):
            await put(tenant, "n")
            row = data.find(tenant._row, "n")
            seen.add(row.file)
            await tenant.namespace("n").purge()
        assert len(seen) == 5


async def test_a_write_that_races_a_purge_is_in_the_new_file_or_refused(tmp_path):
    """Never acknowledged into a file that is gone."""
    async with directory(tmp_path) as (_, tenant):
        for turn in range(25):
            await put(tenant, "n", "old")

            async def write(number: int, turn=turn) -> str | None:
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                try:
                    await put(tenant, "n", f"{turn}-{number}")
                except Refusal:
                    return None
                return f"{turn}-{number}"

            purge = tenant.namespace("n").purge
            results = await asyncio.gather(*(write(n) for n in range(20)), purge())
            *acknowledged, held = results
            left = {
                key
                for key in acknowledged
                if key is not None and await get(tenant, "n", key) is not None
            }
            assert await get(tenant, "n", "old") is None
            gone = {key for key in acknowledged if key is not None} - left
            # What was acknowledged and is not here was there when the namespace was counted.
            assert held.entries == 1 + len(gone)
            await tenant.namespace("n").purge()
        assert files(tmp_path) == []


async def test_two_purges_at_once_remove_it_once(tmp_path):
    async with directory(tmp_path) as (_, tenant):
        await put(tenant, "n")
        results = await asyncio.gather(*(tenant.namespace("n").purge() for _ in range(5)))
        assert [held is not None for held in results].count(True) == 1
        assert files(tmp_path) == []


async def test_a_file_that_is_missing_is_damaged_not_empty(tmp_path):
    async with directory(tmp_path) as (_, tenant):
        await put(tenant, "n")
        await put(tenant, "other")
    [lost] = [file for file in files(tmp_path) if file.name.startswith("n-")]
    lost.unlink()
    async with directory(tmp_path) as (_, tenant):
        for action in (get(tenant, "n"), put(tenant, "n")):
            with pytest.raises(Damaged):
                await action
        assert not lost.exists()
        assert (await get(tenant, "other")).value == b'"v"'
        assert await tenant.namespace("n").purge() is not None
        await put(tenant, "n")


async def test_what_a_crash_left_is_finished(tmp_path):
    async with directory(tmp_path) as (data, tenant):
        for name in ("drafted", "buried", "kept"):
            await put(tenant, name)
        drafted = tmp_path / data.find(tenant._row, "drafted").file
        buried = data.find(tenant._row, "buried")
        await bury(data, buried)  # and then the power went
    drafted.rename(drafted.with_name(drafted.name + DRAFT))  # named in the registry, not yet taken
    unknown = drafted.with_name("unknown-0123.db" + DRAFT)  # prepared, not in the registry
    unknown.write_bytes(b"")
    async with directory(tmp_path) as (data, tenant):
        assert (await get(tenant, "drafted")).value == b'"v"'
        assert (await get(tenant, "kept")).value == b'"v"'
        assert await get(tenant, "buried") is None
        assert not (tmp_path / buried.file).exists()
        assert not unknown.exists()
        assert await data.registry.query(purges.unfinished) == []


async def test_what_another_process_buried_is_removed(tmp_path):
    async with directory(tmp_path) as (data, tenant):
        await put(tenant, "n")
        row = data.find(tenant._row, "n")
        await bury(data, row)
        assert await get(tenant, "n") is None
        await data.finish_purges()
        assert not (tmp_path / row.file).exists()
        await put(tenant, "n")
        assert data.find(tenant._row, "n").id != row.id


async def test_two_tenants_with_the_same_names_have_two_files(tmp_path):
    async with directory(tmp_path) as (data, one):
        two = await door(data, "two")
        await put(one, "n", value=b'"one"')
        assert await get(two, "n") is None
        await put(two, "n", value=b'"two"')
        assert (await get(one, "n")).value == b'"one"'
        assert await two.namespace("n").purge() is not None
        assert (await get(one, "n")).value == b'"one"'


@pytest.mark.parametrize("kind", ["empty", "garbage", "missing"])
async def test_a_registry_that_is_damaged_or_gone_is_never_made_anew(tmp_path, kind):
    async with directory(tmp_path) as (_, tenant):
        await put(tenant, "n")
    control = tmp_path / "control.db"
    content = {"empty": b"", "garbage": b"no database at all " * 500}.get(kind)
    if content is None:
        control.unlink()
    else:
        control.write_bytes(content)
    with pytest.raises(Unusable):
        async with directory(tmp_path):
            pass
    assert not control.exists() if content is None else control.read_bytes() == content
    assert len(files(tmp_path)) == 1


async def test_a_directory_is_let_go_after_a_start_that_failed(tmp_path):
    control = tmp_path / "control.db"
    control.write_bytes(b"garbage")
    with pytest.raises(Unusable):
        async with directory(tmp_path):
            pass
    control.unlink()
    async with directory(tmp_path) as (_, tenant):
        await put(tenant, "n")


async def test_only_the_owner_may_read_what_is_stored(tmp_path):
    path = tmp_path / "data"
    async with directory(path) as (_, tenant):
        await put(tenant, "n")
        for file in [path, *(file for file in path.rglob("*") if file.is_file())]:
            assert file.stat().st_mode & 0o077 == 0, file


def descriptors() -> list[str]:
    listed = os.listdir("/proc/self/fd")
    return [fd for fd in listed if os.path.lexists(f"/proc/self/fd/{fd}")]
