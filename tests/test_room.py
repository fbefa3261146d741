"""The room of a tenant over all its namespaces: exact, whoever writes at once, whatever fails.

`scripts/storage-limit` runs it with every kind of write and kill -9; here is each case for itself.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Server, exchange, namespace_files, query, request, until
from tenancy import Keyed, bearer, cli, make_tenant

from botwire_server.errors import QuotaExceeded
from botwire_server.store import entries, purges
from botwire_server.store.directory import DataDirectory
from botwire_server.store.namespace import Namespace
from botwire_server.store.room import Limits
from harness.planted import Fault, planted

LIMIT = 100_000
NOTES_LATE = Fault("store/housekeeping.py", "NOTE_EVERY = 1.0", "NOTE_EVERY = 1_000.0")


def tiers(data: Path, storage: int = LIMIT, more: str = "") -> None:
    data.mkdir(exist_ok=True)
    (data / "tiers.toml").write_text(f"[tiers.tight]\nstorage_bytes = {storage}\n{more}")


def limited(make_server: Any, *options: str, storage: int = LIMIT, **more: Any) -> Server:
    """A server with a tenant `acme`, whose key is `server.key`."""
    server: Server = make_server("--embedder", "none", *options, started=False, **more)
    tiers(server.data, storage)
    server.key = make_tenant(server.data, "acme", tier="tight")  # type: ignore[attr-defined]
    return server.start()


def client_of(server: Any) -> httpx.Client:
    return httpx.Client(base_url=server.url, headers=bearer(server.key), timeout=60)


def put(client: httpx.Client, path: str, size: int, **headers: str) -> int:
    return client.put(f"/memory/{path}", json={"value": "x" * size}, headers=headers).status_code


def held(server: Server) -> int:
    return sum(
        query(file, "SELECT bytes FROM totals")[0][0] for file in namespace_files(server.data)
    )


def take_the_rest(client: httpx.Client, path: str = "last/k") -> None:
    """All that is left is to be had, and not a byte more."""
    used = client.get("/v1/usage").json()["data"]["storage"]["total_bytes"]
    left = LIMIT - used
    assert put(client, path, left + 1) == 429
    assert put(client, path, left) == 200
    assert put(client, path, left + 1) == 429
    assert put(client, f"{path}-more", 1) == 429
    assert put(client, path, left - 1) == 200
    assert put(client, f"{path}-more", 1) == 200


def test_40_writers_in_many_namespaces_get_what_there_is(make_server):
    server = limited(make_server)

    def write(number: int) -> list[int]:
        with client_of(server) as client:
            return [put(client, f"agent-{number % 7}/{number}-{turn}", 1_000) for turn in range(5)]

    with ThreadPoolExecutor(40) as pool:
        statuses = [status for some in pool.map(write, range(40)) for status in some]
    assert (statuses.count(200), statuses.count(429)) == (100, 100)
    assert held(server) == LIMIT


def test_who_goes_away_takes_no_room_along(make_server):
    server = limited(make_server)
    body = b'{"value": "' + b"x" * 30_000 + b'"}'
    for number in range(40):
        raw = request("PUT", f"/memory/n{number % 3}/k", body, Authorization=f"Bearer {server.key}")
        with socket.create_connection(server.address) as connection:
            connection.sendall(raw if number % 2 else raw[:-1])
            time.sleep(0.002 * (number % 5))
    with client_of(server) as client:

        def at_rest() -> bool:
            before = held(server)
            time.sleep(1.0)
            return held(server) == before

        until(at_rest, "what they had sent is stored or not")
        take_the_rest(client)


def test_what_a_full_disk_refused_takes_no_room(make_server):
    server = limited(make_server)
    with client_of(server) as client:
        assert put(client, "n/k", 10) == 200
        server.limit_file_size(40_000)
        statuses = {put(client, f"n/{number}", 30_000) for number in range(30)}
        assert statuses & {503, 507}
        server.limit_file_size(None)
        take_the_rest(client, "n/last")


def test_what_conflicts_or_is_wrong_takes_no_room(make_server):
    server = limited(make_server)
    with client_of(server) as client:
        assert put(client, "n/k", 10) == 200
        for _ in range(5):
            assert put(client, "n/k", 90_000, **{"If-None-Match": "*"}) == 412
            assert put(client, "n/k", 90_000, **{"If-Match": '"no"'}) == 412
            state = {"data": {"x": "x" * 90_000}, "version": 5}
            assert client.put("/v1/state/n", json=state).status_code == 404
            assert client.put("/v1/state/nowhere", json=state).status_code == 404
        take_the_rest(client)


def test_deleting_and_purging_give_room_at_once(make_server):
    server = limited(make_server)
    with client_of(server) as client:
        for _ in range(5):
            for name in ("one", "two", "three"):
                assert put(client, f"{name}/k", 33_000) == 200
            assert put(client, "four/k", 33_000) == 429
            assert client.delete("/memory/one/k").is_success
            assert put(client, "four/k", 33_000) == 200
            for name in ("two", "three", "four"):
                assert client.delete(f"/memory/{name}?confirm={name}").is_success
            take_the_rest(client, "one/k")
            assert client.delete("/v1/memory/one").is_success


def test_a_full_tenant_may_shrink_under_a_lower_limit(make_server):
    server = limited(make_server, storage=100_000)
    with client_of(server) as client:
        assert put(client, "n/k", 100_000) == 200
    server.stop()
    tiers(server.data, 1_000)
    server.start()
    with client_of(server) as client:
        assert put(client, "n/k", 100_001) == 429
        assert put(client, "n/k", 50_000) == 200
        assert put(client, "n/l", 1) == 429
        assert put(client, "n/k", 999) == 200
        assert put(client, "n/l", 1) == 200


def killed_before_it_was_noted(server: Server) -> None:
    """A namespace that was closed, and in no journal, when the server was killed.

    Between the kill and the next write the server ends in peace, which makes up for nothing.
    """
    with client_of(server) as client:
        assert put(client, "one/k", 60_000) == 200
        assert put(client, "two/k", 30_000) == 200
        assert put(client, "two/l", 1) == 200
        deadline = time.monotonic() + 20
        while len(list(server.data.glob("tenants/*/*-wal"))) > 1:  # the first is closed
            assert time.monotonic() < deadline
    server.kill()
    [(noted,)] = query(server.data / "control.db", "SELECT sum(bytes) FROM namespaces")
    assert noted < 90_001  # else this tests nothing
    server.start()
    server.restart()
    with client_of(server) as client:
        assert put(client, "three/k", 20_000) == 429
        take_the_rest(client)
    assert held(server) == LIMIT


def test_after_a_kill_the_first_write_waits_for_what_is_held(make_server, tmp_path):
    root = planted(tmp_path, NOTES_LATE)
    killed_before_it_was_noted(limited(make_server, "--open-namespaces", "1", root=root))


def test_after_an_end_in_peace_nothing_is_looked_at(make_server):
    server = limited(make_server)
    with client_of(server) as client:
        assert put(client, "one/k", 60_000) == 200
    server.stop()
    control = server.data / "control.db"
    assert query(control, "SELECT value FROM facts WHERE name = 'settled'") == [("null",)]
    server.start()
    assert query(control, "SELECT value FROM facts WHERE name = 'settled'") == []
    with client_of(server) as client:
        take_the_rest(client)


def late_deletions_of_what_is_purged(tmp_path: Path) -> None:
    """They give no room that the purge gives too."""
    make_tenant(tmp_path / "data", "acme")

    async def run() -> None:
        directory = await DataDirectory.open(
            tmp_path / "data", durability="relaxed", clock=time.time, most_open=8
        )
        tenant = directory.registry.tenant("acme")
        assert tenant is not None
        limits = Limits(storage_bytes=1_000)
        opened = {}
        for name in ("going", "staying"):
            row = await directory.create(tenant, name, most=0)
            opened[name] = row, await directory.pool.open(row)
        row, going = opened["going"]
        await going.write(
            entries.put, await directory.rooms.within(tenant, limits), "k", b"1" * 900, size=900
        )
        await directory.registry.change(purges.bury_namespace, tenant.id, row.id, actor="test")
        directory.rooms.forget(tenant.id)
        within = await directory.rooms.within(tenant, limits)
        await going.delete(entries.delete, "k")
        with pytest.raises(QuotaExceeded):
            await opened["staying"][1].write(entries.put, within, "k", b"1" * 1_001, size=1_001)
        await opened["staying"][1].write(entries.put, within, "k", b"1" * 1_000, size=1_000)
        await directory.finish_purges()
        await directory.close()

    asyncio.run(run())


def test_late_deletions_of_what_is_purged_give_nothing(tmp_path):
    late_deletions_of_what_is_purged(tmp_path)


def leaves_no_empty_namespace(server: Any) -> None:
    with client_of(server) as client:
        assert put(client, "there/k", LIMIT - 10) == 200
        for number in range(5):
            assert put(client, f"new-{number}/k", 11) == 429
            assert put(client, f"new-{number}/k", 1, **{"If-Match": '"no"'}) == 412
            own = {"agent_id": f"new-{number}", "content": "It has no room.", "embedding": [1, 2]}
            assert client.post("/v1/memory/semantic", json=own).status_code == 429
    assert len(namespace_files(server.data)) == 1


def test_what_is_refused_leaves_no_empty_namespace(make_server):
    leaves_no_empty_namespace(limited(make_server))


def test_a_namespace_too_small_for_the_first_write_is_not_made(make_server):
    server = make_server("--max-namespace-bytes", "100")
    with httpx.Client(base_url=server.url) as client:
        for number in range(5):
            assert put(client, f"new-{number}/k", 100) == 429
            assert put(client, f"new-{number}/k", 10, **{"If-Match": "*"}) == 412
        assert namespace_files(server.data) == []
        assert put(client, "new/k", 99) == 200


def tries_do_not_see_each_other(office: Keyed) -> None:
    """Those of many tenants run in one place, at the same time."""
    keys = [office.tenant(f"tenant-{number}", tier="tight") for number in range(24)]

    def first(number: int) -> int:
        raw = request(
            "PUT",
            "/memory/same/k",
            b'{"value": "' + b"x" * 1_000 + b'"}',
            Authorization=f"Bearer {keys[number]}",
            If_None_Match="*",
        )
        return int(exchange(office.address, raw).split()[1])

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(first, range(24))) == [200] * 24


def test_tries_do_not_see_each_other(tmp_path):
    tiers(tmp_path / "data", more="writes_per_day = 1\n")
    with Keyed(tmp_path / "data") as office:
        tries_do_not_see_each_other(office)


def test_a_tier_that_begins_to_limit_counts_what_was_there_before(tmp_path):
    tiers(tmp_path / "data")
    with Keyed(tmp_path / "data", embedder="none") as office:
        client = office.client(office.tenant("acme"))
        assert put(client, "n/k", LIMIT - 5) == 200
        cli(office.data, "tenants", "set-tier", "acme", "tight")
        assert put(client, "n/l", 6) == 429
        assert put(client, "n/l", 5) == 200


FAULTS: dict[str, tuple[Callable[[Any], None], Fault]] = {
    "believes the registry": (
        killed_before_it_was_noted,
        Fault(
            "store/room.py", "known = [] if row is None else", "known = None if row is None else"
        ),
    ),
    "makes it first": (
        leaves_no_empty_namespace,
        Fault(
            "store/tenant.py",
            "                await self._directory.nowhere.write(",
            "                (lambda *_, **__: None)(",
        ),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_is_caught(make_server, tmp_path, name):
    check, fault = FAULTS[name]
    root = planted(tmp_path, NOTES_LATE, fault)
    server = limited(make_server, "--open-namespaces", "1", root=root)
    with pytest.raises(AssertionError):
        check(server)


def test_the_fault_of_tries_that_stay_is_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(Namespace, "_tried", Namespace._counted)
    tiers(tmp_path / "data", more="writes_per_day = 1\n")
    with Keyed(tmp_path / "data") as office, pytest.raises(AssertionError):
        tries_do_not_see_each_other(office)


def test_the_fault_that_counts_what_is_purged_is_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(DataDirectory, "_is_known", lambda *_: True)
    with pytest.raises(pytest.fail.Exception):
        late_deletions_of_what_is_purged(tmp_path)
