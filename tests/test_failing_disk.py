"""A disk that is full or fails: what can still be read is, what is refused can be told apart.

`scripts/failing-disk` makes the calls of a server fail one kind after the other; this is what its
findings come down to.
"""

from __future__ import annotations

import errno
import sys
import time
from pathlib import Path

import httpx
import pytest
from serving import PACKAGE_ROOT, namespace_files, until
from test_pool import directory, get, put

from botwire_server.errors import StorageFull, Unavailable, Unusable
from botwire_server.store import pool
from botwire_server.store.directory import DataDirectory
from botwire_server.web import botwire
from botwire_server.web.dialect import STATUS, of_class

sys.path.insert(0, str(PACKAGE_ROOT / "scripts"))
from harness.disk import CONTROL, JOURNAL, Faults, compiled, environment
from harness.server import ServerProcess


def test_a_full_disk_has_a_status_of_its_own_in_every_dialect():
    assert of_class(StorageFull("Full."), STATUS) == 507
    assert of_class(StorageFull("Full."), botwire.STATUSES) == 507
    assert of_class(Unavailable("Later."), STATUS) == 503


def let_grow(connection, pages: int) -> int:
    """SQLite says that the disk is full beyond so many pages, as it does when it is."""
    [most] = connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()
    return most


async def test_where_there_is_no_room_nothing_is_stored_and_it_goes_on_with_room(tmp_path):
    async with directory(tmp_path) as (_, tenant):
        await put(tenant, "ns")
        reference = tenant.namespace("ns")
        await reference.read(let_grow, 1)
        with pytest.raises(StorageFull, match="full"):
            await put(tenant, "ns", "big", b'"' + b"v" * 500_000 + b'"')
        assert await get(tenant, "ns", "big") is None
        assert (await get(tenant, "ns")).value == b'"v"'
        await reference.read(let_grow, 1_000_000)
        await put(tenant, "ns", "big", b'"' + b"v" * 500_000 + b'"')
        assert await get(tenant, "ns", "big") is not None


def test_what_is_closed_can_be_read_without_room_for_its_journal(make_server):
    server = make_server()
    httpx.put(f"{server.url}/memory/ns/k", json={"value": "v"})
    server.restart()
    server.limit_file_size(0)
    assert httpx.get(f"{server.url}/memory/ns/k").json()["value"] == "v"
    assert httpx.get(f"{server.url}/memory/ns").json()["keys"] == ["k"]
    refused = httpx.put(f"{server.url}/memory/ns/k", json={"value": "w"})
    assert refused.status_code == 503
    assert httpx.get(f"{server.url}/memory/ns/k").json()["value"] == "v"
    server.limit_file_size(None)

    def taken() -> bool:
        answer = httpx.put(f"{server.url}/memory/ns/k", json={"value": "w"})
        return answer.status_code == 200

    until(taken, "the namespace is opened for writing again")
    server.kill()
    server.start()
    assert httpx.get(f"{server.url}/memory/ns/k").json()["value"] == "w"


async def test_a_journal_that_holds_more_than_the_file_is_never_left_out(tmp_path):
    """Reading the file alone would answer with what was stored before."""
    async with directory(tmp_path) as (_, tenant):
        await put(tenant, "ns")
        await put(tenant, "ns", value=b'"newer"')
        [file] = tmp_path.glob("tenants/*/*.db")
        journal = file.with_name(file.name + "-wal")
        held = {path: path.read_bytes() for path in (file, journal)}
    for path, content in held.items():
        path.write_bytes(content)
    shared = file.with_name(file.name + "-shm")
    shared.symlink_to(shared)  # as good as a disk without room: the journal needs this file
    async with directory(tmp_path) as (_, tenant):
        with pytest.raises(Unavailable):
            await get(tenant, "ns")
    shared.unlink()
    async with directory(tmp_path) as (_, tenant):
        assert (await get(tenant, "ns")).value == b'"newer"'


async def test_a_draft_that_the_registry_may_know_is_kept_until_it_is_sure(tmp_path, monkeypatch):
    async with directory(tmp_path) as (data, tenant):
        await put(tenant, "first")
        recorded = data.registry.add_namespace

        async def doubtful(*args, **more):
            """Recorded, and nobody can know it."""
            await recorded(*args, **more)
            raise Unavailable("In doubt.")

        monkeypatch.setattr(data.registry, "add_namespace", doubtful)
        with pytest.raises(Unavailable):
            await put(tenant, "second")
        assert len(list(tmp_path.glob(f"tenants/*/*{pool.DRAFT}"))) == 1
        monkeypatch.undo()
        await put(tenant, "second")
        assert (await get(tenant, "second")).value == b'"v"'
    async with directory(tmp_path) as (_, tenant):
        assert (await get(tenant, "second")).value == b'"v"'


async def test_a_data_directory_that_the_disk_refuses_is_named(tmp_path):
    (tmp_path / "data").mkdir()
    async with directory(tmp_path / "data") as (_, tenant):
        await put(tenant, "ns")
    (tmp_path / "data" / "control.db-wal").mkdir()
    with pytest.raises(Unusable, match="disk"):
        await DataDirectory.open(
            tmp_path / "data", durability="full", clock=time.time, most_open=10
        )
    (tmp_path / "data" / "control.db-wal").rmdir()
    async with directory(tmp_path / "data") as (_, tenant):
        assert (await get(tenant, "ns")).value == b'"v"'


def test_a_server_ends_in_peace_while_the_disk_is_full(make_server):
    server = make_server()
    httpx.put(f"{server.url}/memory/ns/k", json={"value": "v"})
    server.limit_file_size(0)
    assert httpx.put(f"{server.url}/memory/ns/k", json={"value": "w"}).status_code == 503
    server.stop()
    assert "Traceback" not in server.log
    server.start()
    assert httpx.get(f"{server.url}/memory/ns/k").json()["value"] in ("v", "w")
    assert all(Path(file).stat().st_size for file in namespace_files(server.data))


def test_what_is_stored_after_a_purge_that_failed_survives_a_crash(tmp_path):
    """The journal of the registry may hold the purge that was refused."""
    root = tmp_path / "disk"
    root.mkdir()
    faults = Faults(tmp_path / "faults")
    variables = environment(compiled(tmp_path), root, faults=faults.path)
    with ServerProcess(root / "data", more_environment=variables) as server:
        server.wait_until_ready()
        memory = f"http://127.0.0.1:{server.port}/memory/ns"
        assert httpx.put(f"{memory}/old", json={"value": "v"}).status_code == 200
        with faults.during(sync=errno.EIO, targets=JOURNAL | CONTROL):
            assert httpx.delete(memory, params={"confirm": "ns"}).status_code == 503
        assert httpx.put(f"{memory}/new", json={"value": "w"}).status_code == 200
        server.kill()
    with ServerProcess(root / "data") as server:
        server.wait_until_ready()
        memory = f"http://127.0.0.1:{server.port}/memory/ns"
        assert httpx.get(f"{memory}/new").json()["value"] == "w"
