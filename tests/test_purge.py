"""Purges: everything of it is gone, the receipt is exact, and no crash leaves one half-done."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager

import httpx
import pytest
from serving import InProcess, namespace_files, query, until
from tenancy import Keyed, cli, cli_json, files_with, make_tenant, operator_of

from botwire_server.errors import Closed, Unauthorized, Unavailable
from botwire_server.store import entries, keys, purges
from botwire_server.store.directory import DataDirectory
from botwire_server.store.housekeeping import Housekeeping
from botwire_server.store.namespace import Limits
from botwire_server.store.pool import DRAFT
from botwire_server.store.registry import Registry
from botwire_server.store.tenant import Tenant
from botwire_server.store.usage import Call

# What must be nowhere afterwards; each stands for a name, a key and a text.
NAMES = ["zebra-north", "zebra-south", "yak"]
SECRETS = ["zebra", "quokka-key", "wombat-text", "label-lemur"]


def fill(client, namespace, count=5):
    """Store entries, overwrite one, delete one; how many are left and their bytes."""
    size = 0
    for number in range(count):
        value = f"wombat-text {namespace} {number} " + "é" * number
        path = f"/memory/{namespace}/quokka-key-{number}"
        assert client.put(path, json={"value": "wombat-text to be replaced"}).is_success
        assert client.put(path, json={"value": value}).is_success
        size += len(value.encode())
    gone = f"/memory/{namespace}/quokka-key-gone"
    assert client.put(gone, json={"value": "wombat-text gone"}).is_success
    assert client.delete(gone).is_success
    return count, size


SCOPES = {
    "namespace": (
        ["zebra-north"],
        ["namespaces", "purge", "acme", "zebra-north"],
        "?name=zebra-north",
    ),
    "prefix": (
        ["zebra-north", "zebra-south"],
        ["namespaces", "purge", "acme", "--prefix", "zebra-"],
        "?prefix=zebra-",
    ),
    "tenant": (NAMES, ["tenants", "purge", "acme"], "?confirm=acme"),
}


@pytest.mark.parametrize("how", ["api", "command", "command without a server"])
@pytest.mark.parametrize("scope", SCOPES)
def test_a_purge_leaves_nothing_but_its_receipt(tmp_path, scope, how):
    doomed, command, api_query = SCOPES[scope]
    data = tmp_path / "data"
    held = {}
    with Keyed(data) as office:
        key = office.tenant("acme", tier="unlimited")
        office.key("acme", label="label-lemur")
        client = office.client(key)
        other = office.client(office.tenant("globex"))
        assert other.put("/memory/yak/kept", json={"value": "of globex"}).is_success
        for name in NAMES:
            held[name] = fill(client, name)
        if how == "api":
            path = "/tenants/acme" + ("/namespaces" if scope != "tenant" else "") + api_query
            receipt = office.admin("DELETE", path)
        elif how == "command":
            receipt = cli_json(data, *command, "--yes", process=True)
        if how != "command without a server":
            left = [name for name in NAMES if name not in doomed]
            for name in NAMES:
                answer = client.get(f"/memory/{name}")
                expected = 401 if scope == "tenant" else 200
                assert answer.status_code == expected
                if expected == 200:
                    assert answer.json()["count"] == (5 if name in left else 0)
            assert other.get("/memory/yak/kept").json()["value"] == "of globex"
    if how == "command without a server":
        receipt = cli_json(data, *command, "--yes")
    counts = {
        "scope": scope,
        "tenant": "acme",
        "namespaces": len(doomed),
        "entries": sum(held[name][0] for name in doomed),
        "bytes": sum(held[name][1] for name in doomed),
        "states": 0,
        "memories": 0,
        "episodes": 0,
        "vectors": 0,
    }
    assert {name: receipt[name] for name in counts} == counts
    assert receipt["started_at"] <= receipt["finished_at"]
    searched = {"namespace": ["zebra-north"], "prefix": ["zebra"], "tenant": [*SECRETS, "acme"]}
    assert list(files_with(data, *searched[scope])) == []
    assert len(namespace_files(data)) == 1 + len(NAMES) - len(doomed)
    assert not list(data.glob("tenants/*/*.db-*"))
    lines = operator_of(data, lambda it: it.audit())
    [line] = [line for line in lines if line["action"].startswith("purge")]
    assert (line["action"], line["subject"]) == (f"purge {scope}", receipt["purge_id"])
    assert line["actor"] == ("command line" if how != "api" else receipt["actor"])
    # Safe to repeat: there is nothing of it, which is what was asked for.
    again = cli(data, *command, "--yes", expect=1)
    assert "There is no" in again.stderr or "nothing to remove" in again.stderr


@pytest.mark.parametrize("scope", SCOPES)
def test_with_a_server_nothing_is_left_the_moment_it_answers(tmp_path, scope):
    """Not even in the registry's WAL, which a server under load keeps reading."""
    data = tmp_path / "data"
    _, _, api_query = SCOPES[scope]
    with Keyed(data) as office:
        client = office.client(office.tenant("acme"))
        for name in NAMES:
            fill(client, name, 2)
        path = "/tenants/acme" + ("/namespaces" if scope != "tenant" else "") + api_query
        office.admin("DELETE", path)
        searched = {"namespace": ["zebra-north"], "prefix": ["zebra"], "tenant": SECRETS}
        assert list(files_with(data, *searched[scope])) == []


def test_the_owner_of_a_key_purges_a_namespace(tmp_path):
    with Keyed(tmp_path / "data") as office:
        made = office.key("acme") if office.tenant("acme") else None
        client = office.client(made["key"])
        count, size = fill(client, "zebra")
        answer = client.delete("/memory/zebra?confirm=zebra").json()
        assert (answer["deleted"], answer["entries"], answer["bytes"]) == (True, count, size)
        assert list(files_with(office.data, *SECRETS)) == []
        assert client.delete("/memory/zebra?confirm=zebra").status_code == 404
        [line] = [
            each for each in office.admin("GET", "/audit")["audit"] if "purge" in each["action"]
        ]
        assert line["actor"] == made["id"]


def test_a_write_after_a_purge_starts_a_new_empty_namespace(tmp_path):
    with Keyed(tmp_path / "data") as office:
        client = office.client(office.tenant("acme"))
        fill(client, "zebra")
        [before] = namespace_files(office.data)
        office.admin("DELETE", "/tenants/acme/namespaces?name=zebra")
        assert client.put("/memory/zebra/new", json={"value": "v"}).status_code == 200
        assert client.get("/memory/zebra").json()["keys"] == ["new"]
        [after] = namespace_files(office.data)
        assert after != before


def test_a_tenants_name_is_free_again(tmp_path):
    with Keyed(tmp_path / "data") as office:
        first = office.tenant("acme")
        fill(office.client(first), "zebra")
        office.admin("DELETE", "/tenants/acme?confirm=acme")
        second = office.client(office.tenant("acme"))
        assert second.get("/memory/zebra").json()["count"] == 0
        assert office.client(first).get("/memory/zebra").status_code == 401
        usage = office.admin("GET", "/tenants/acme/usage")
        assert usage["api_calls_today"] == 1  # its own


@pytest.mark.parametrize("query", ["", "?confirm=", "?confirm=acm", "?confirm=acme&confirm=acme"])
def test_a_tenant_is_not_removed_by_a_slip(tmp_path, query):
    with Keyed(tmp_path / "data") as office:
        office.tenant("acme")
        office.admin("DELETE", f"/tenants/acme{query}", expect=400)
        assert office.admin("GET", "/tenants/acme")["tenant"] == "acme"


def test_the_last_tenant_of_an_open_server(tmp_path):
    data = tmp_path / "data"
    with InProcess(data) as server, httpx.Client(base_url=server.url) as client:
        fill(client, "zebra")
        assert cli_json(data, "tenants", "purge", "default", "--yes")["entries"] == 5
        assert list(files_with(data, *SECRETS, "default")) == []
        assert client.get("/memory/zebra").json()["count"] == 0
        fill(client, "zebra", 1)
        assert client.get("/memory/zebra").json()["count"] == 1
        assert cli_json(data, "tenants", "list")[0]["namespaces"] == 1


# What the registry and the files go through, step by step.


@asynccontextmanager
async def opened(data, *, most_open=32, clock=time.time):
    directory = await DataDirectory.open(data, durability="full", clock=clock, most_open=most_open)
    try:
        yield directory
    finally:
        await directory.close()


@asynccontextmanager
async def registry_of(data):
    """Only the registry, as a command has it whose process then dies."""
    registry = await Registry.open(data, durability="full", clock=time.time)
    try:
        yield registry
    finally:
        await registry.close()


def tenant_of(directory, name="acme"):
    row = directory.registry.tenant(name)
    call = Call(row.id, "")
    return Tenant(directory, row, limits=Limits(), grant=keys.UNLIMITED, call=call)


async def store(directory, namespace, count=3, **options):
    reference = tenant_of(directory).namespace(namespace)
    for number in range(count):
        await reference.write(
            entries.put, f"quokka-key-{number}", b'"wombat-text"', size=11, **options
        )
    return reference


@pytest.fixture
def filled(tmp_path):
    """A data directory with two namespaces of tenant acme, and one of globex, nobody serving."""
    data = tmp_path / "data"
    for name in ("acme", "globex"):
        make_tenant(data, name)

    async def fill_them():
        async with opened(data) as directory:
            await store(directory, "zebra-north", 3)
            await store(directory, "zebra-south", 2)

    asyncio.run(fill_them())
    return data


BURY = {
    "namespace": lambda it, row: it.change(
        purges.bury_namespace, row.id, it.namespace(row.id, "zebra-north").id, actor="test"
    ),
    "prefix": lambda it, row: it.change(purges.bury_prefix, row.id, "zebra-", actor="test"),
    "tenant": lambda it, row: it.change(purges.bury_tenant, row.id, actor="test"),
}

# How far a purge came before its process died.
STEPS = [
    "buried",
    "first counted",
    "first half unlinked",
    "first unlinked",
    "first removed",
    "all removed",
    "cleared",
    "erased",
]


async def purge_until(data, scope, last_step):
    """Begin a purge and die after `last_step`; its id."""
    async with registry_of(data) as registry:
        row = registry.tenant("acme")
        purge_id = await BURY[scope](registry, row)
        steps = iter(STEPS)

        def dies() -> bool:
            return next(steps) == last_step

        if dies():
            return purge_id
        tombstones = await registry.query(purges.due, purge_id)
        for number, tombstone in enumerate(tombstones):
            file = data / tombstone.row.file
            held = query(file, "SELECT entries FROM totals")[0][0]
            totals = tombstone.known._replace(entries=held)
            await registry.change(purges.record_held, tombstone.row.id, totals)
            if number == 0 and dies():
                return purge_id
            file.with_name(file.name + "-wal").unlink(missing_ok=True)
            if number == 0 and dies():
                return purge_id
            file.unlink()
            if number == 0 and dies():
                return purge_id
            await registry.change(purges.record_removed, tombstone.row.id)
            if number == 0 and dies():
                return purge_id
        if dies():
            return purge_id
        await registry.change(purges.clear, purge_id)
        if dies():
            return purge_id
        await registry.erase()
        return purge_id


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("scope", BURY)
def test_a_purge_that_died_goes_on_at_the_next_start(filled, scope, step):
    async def run():
        purge_id = await purge_until(filled, scope, step)
        async with registry_of(filled) as registry:
            assert await registry.query(purges.receipt_of, purge_id) is None
        async with opened(filled) as directory:
            receipt = await directory.registry.query(purges.receipt_of, purge_id)
            assert await directory.registry.query(purges.unfinished) == []
            # Once more changes nothing.
            assert await directory.finish_purge(purge_id) == receipt
            return receipt

    receipt = asyncio.run(run())
    everything = scope != "namespace"
    assert receipt["namespaces"] == (2 if everything else 1)
    assert receipt["entries"] == (5 if everything else 3)
    assert receipt["bytes"] == 11 * receipt["entries"]
    assert list(files_with(filled, "zebra" if everything else "zebra-north")) == []
    assert len(namespace_files(filled)) == (0 if everything else 1)
    if scope == "tenant":
        for table in ("keys", "calls", "holdings", "namespaces"):
            where = f"SELECT count(*) FROM {table} WHERE tenant_id = ?"
            assert query(filled / "control.db", where, receipt["tenant_id"]) == [(0,)], table
    tenants = [row["tenant"] for row in operator_of(filled, lambda it: it.list_tenants())]
    assert tenants == (["globex"] if scope == "tenant" else ["acme", "globex"])
    [line] = [
        each for each in operator_of(filled, lambda it: it.audit()) if "purge" in each["action"]
    ]
    assert line["subject"] == receipt["purge_id"]


@pytest.mark.parametrize("command", [["tenants", "list"], ["tenants", "purge", "acme", "--yes"]])
def test_a_purge_that_died_goes_on_with_the_next_command(filled, command):
    """Not only when a server starts: to repeat the command must not say "gone" while it is not."""
    asyncio.run(purge_until(filled, "tenant", "buried"))
    assert list(files_with(filled, "wombat-text"))
    cli(filled, *command, expect=0 if command[1] == "list" else 1)
    assert list(files_with(filled, "wombat-text", "acme")) == []


def test_a_purge_of_another_process_is_finished_by_the_server(filled):
    with InProcess(filled):
        purge_id = asyncio.run(purge_until(filled, "prefix", "buried"))

        def receipt():
            return query(
                filled / "control.db", "SELECT receipt FROM purges WHERE id = ?", purge_id
            )[0][0]

        until(receipt, "the server finished it")
        assert list(files_with(filled, "zebra")) == []


def test_what_was_under_way_when_it_was_buried(filled):
    """Who holds the open file, or is just opening it, is turned away or counted; none is lost."""

    async def run():
        async with opened(filled) as directory:
            reference = tenant_of(directory).namespace("zebra-north")
            row = directory.find(directory.registry.tenant("acme"), "zebra-north")
            namespace = await directory.pool.open(row)
            writes = [
                asyncio.ensure_future(
                    namespace.write(entries.put, Limits(), f"k{number}", b"1", size=1)
                )
                for number in range(50)
            ]
            receipt = await directory.purge_namespace(row, actor="test")
            for write in writes:
                await write
            assert receipt["entries"] == 53
            with pytest.raises(Closed):
                await namespace.write(entries.put, Limits(), "late", b"1", size=1)
            with pytest.raises(Closed):
                await directory.pool.open(row)
            assert await directory.purge_namespace(row, actor="test") is None
            await reference.write(entries.put, "new", b"1", size=1)
            assert await reference.read(entries.get, "quokka-key-0") is None
            assert (await reference.read(entries.get, "new")).value == b"1"

    asyncio.run(run())


def test_what_is_queued_is_counted_before_a_file_goes(filled):
    """The count is that of the last write that was answered, not of the moment before."""

    async def run():
        async with opened(filled) as directory:
            row = directory.find(directory.registry.tenant("acme"), "zebra-north")
            namespace = await directory.pool.open(row)
            writes = [
                asyncio.ensure_future(
                    namespace.write(entries.put, Limits(), f"k{number}", b"1", size=1)
                )
                for number in range(600)
            ]
            await asyncio.sleep(0)
            held = await directory.pool.retire(row)
            assert held.entries == 603
            await asyncio.gather(*writes)
            with pytest.raises(Closed):
                await directory.pool.open(row)

    asyncio.run(run())


def test_a_tenant_that_is_being_purged_takes_nothing_more(filled):
    async def run():
        async with opened(filled) as directory:
            tenant = tenant_of(directory)
            row = directory.registry.tenant("acme")
            purge_id = await directory.registry.change(purges.bury_tenant, row.id, actor="test")
            with pytest.raises(Unauthorized):
                await tenant.namespace("zebra-north").write(entries.put, "k", b"1", size=1)
            with pytest.raises(Unauthorized):
                await tenant.namespace("fresh").write(entries.put, "k", b"1", size=1)
            with pytest.raises(Unavailable):
                await directory.registry.ensure_tenant("acme", "unlimited")
            assert directory.registry.tenant("acme") is None
            receipt = await directory.finish_purge(purge_id)
            assert receipt["namespaces"] == 2
        assert not list(filled.glob(f"tenants/{row.id}/*"))

    asyncio.run(run())


def test_drafts_go_too(filled):
    """A namespace that was made and never written to is a draft, with its name in the file's."""

    async def run():
        async with opened(filled) as directory:
            row = await directory.create(directory.registry.tenant("acme"), "zebra-draft", most=0)
            assert (filled / (row.file + DRAFT)).exists()
            receipt = await directory.purge_namespace(row, actor="test")
            assert (receipt["namespaces"], receipt["entries"]) == (1, 0)

    asyncio.run(run())
    assert list(files_with(filled, "zebra-draft")) == []


def test_a_sweep_meets_a_purge(filled):
    async def run():
        now = time.time()
        async with opened(filled, clock=lambda: now) as directory:
            reference = await store(directory, "zebra-north", 10, ttl=1.0)
            await directory.note_changes()
            row = directory.find(directory.registry.tenant("acme"), "zebra-north")
            assert [each.id for each in directory.registry.due(now + 2, 10)] == [row.id]
            housekeeping = Housekeeping(directory, lambda: now + 2, can={})
            await asyncio.gather(
                directory.purge_namespace(row, actor="test"),
                *(housekeeping.sweep() for _ in range(5)),
            )
            assert directory.registry.due(now + 2, 10) == []
            assert await reference.read(entries.get, "quokka-key-0") is None
        assert list(files_with(filled, "zebra-north")) == []

    asyncio.run(run())


def test_a_damaged_namespace_can_be_purged(filled):
    [file] = [path for path in namespace_files(filled) if path.name.startswith("zebra-north")]
    file.write_bytes(b"wombat-text" * 1_000)

    async def run():
        async with opened(filled) as directory:
            row = directory.find(directory.registry.tenant("acme"), "zebra-north")
            return await directory.purge_namespace(row, actor="test")

    receipt = asyncio.run(run())
    assert (receipt["namespaces"], receipt["entries"]) == (1, 3)  # as last noted
    assert not file.exists()


def test_two_purges_at_once_of_the_same(filled):
    async def run():
        async with opened(filled) as directory:
            row = directory.find(directory.registry.tenant("acme"), "zebra-north")
            receipts = await asyncio.gather(
                *(directory.purge_namespace(row, actor="test") for _ in range(5))
            )
            assert sorted(receipt is None for receipt in receipts) == [False] + [True] * 4

    asyncio.run(run())


def test_many_more_namespaces_than_open_files(filled):
    async def run():
        async with opened(filled, most_open=4) as directory:
            for number in range(30):
                await store(directory, f"zebra-{number}", 1)
            row = directory.registry.tenant("acme")
            purge_id = await directory.registry.change(
                purges.bury_prefix, row.id, "zebra-", actor="test"
            )
            return await directory.finish_purge(purge_id)

    receipt = asyncio.run(run())
    assert (receipt["namespaces"], receipt["entries"]) == (32, 35)
    assert namespace_files(filled) == []
