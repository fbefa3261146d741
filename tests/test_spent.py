"""Writes of the day survive a purge: a name that is made again goes on counting, till midnight."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import FakeClock, InProcess, Server, query, until
from tenancy import Keyed, cli, files_with

from botwire_server.store import housekeeping, usage
from harness.planted import Fault, planted

DAY = 86_400
LIMIT = 5
# Commands go by the real clock.
TODAY = int(time.time() // DAY)


def put(client: httpx.Client, name: str = "quokka") -> int:
    return client.put(f"/memory/{name}/k", json={"value": "v"}).status_code


def purge(client: httpx.Client, name: str = "quokka") -> None:
    assert client.delete(f"/memory/{name}", params={"confirm": name}).is_success


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(TODAY * DAY + 3_600)


def goes_on(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=30) as client:
        assert [put(client) for _ in range(3)] == [200] * 3
        purge(client)
        assert put(client) == 200
        assert client.delete("/v1/memory/quokka").is_success
        assert [put(client) for _ in range(3)] == [200, 429, 429]
        purge(client)
        assert put(client) == 429
        assert [put(client, "other") for _ in range(6)] == [200] * 5 + [429]
    server.kill()
    server.start()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        assert put(client) == 429
        purge(client, "other")
    server.restart()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        assert put(client, "other") == put(client) == 429
    server.stop()
    # And what was refused has not made them again.
    assert list(files_with(server.data, "other", "quokka")) == []


def test_a_name_that_is_made_again_goes_on(make_server):
    goes_on(make_server("--daily-writes", str(LIMIT)))


def test_what_others_purge_counts_too(tmp_path, clock):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tiers.toml").write_text("[tiers.slow]\nwrites_per_day = 2\n")
    with Keyed(tmp_path / "data", clock=clock) as office:
        acme = office.client(office.tenant("acme", tier="slow"))
        globex = office.client(office.tenant("globex", tier="slow"))
        for how in ("command", "api", "prefix"):
            assert put(acme, how) == 200
            if how == "command":
                cli(office.data, "namespaces", "purge", "acme", how, "--yes")
            elif how == "api":
                office.admin("DELETE", f"/tenants/acme/namespaces?name={how}")
            else:
                office.admin("DELETE", f"/tenants/acme/namespaces?prefix={how}")
            assert [put(acme, how), put(acme, how)] == [200, 429], how
            assert put(globex, how) == 200
        clock.advance(DAY)
        assert [put(acme, "command") for _ in range(3)] == [200, 200, 429]


def test_at_midnight_it_is_over_and_erased(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(housekeeping, "NOTE_EVERY", 0.1)
    monkeypatch.setattr(housekeeping, "ERASE_EVERY", 0.1)
    monkeypatch.setattr(usage, "SLOW_EVERY", 0.1)
    data = tmp_path / "data"
    control = data / "control.db"
    with (
        InProcess(data, clock=clock, daily_writes=LIMIT) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        assert [put(client) for _ in range(6)] == [200] * 5 + [429]
        purge(client)
        assert list(files_with(data, "quokka")) == []
        [(secret,)] = query(control, "SELECT secret FROM day_secret")
        [(mark, writes)] = query(control, "SELECT mark, writes FROM spent")
        assert writes == 5 and _holding(data, secret) and _holding(data, mark)
        clock.now = (TODAY + 1) * DAY - 0.5
        assert put(client) == 429
        clock.now = (TODAY + 1) * DAY + 1.0
        until(lambda: not _holding(data, secret) and not _holding(data, mark), "it was erased")
        assert query(control, "SELECT count(*) FROM spent") == [(0,)]
        assert [put(client) for _ in range(6)] == [200] * 5 + [429]
        clock.advance(-10)  # a clock that is set back does not begin a day anew
        purge(client)
        assert put(client) == 429


def _holding(data: Path, needle: bytes) -> bool:
    return any(needle in path.read_bytes() for path in data.rglob("*") if path.is_file())


def test_a_backup_does_not_keep_it(tmp_path):
    data = tmp_path / "data"
    with (
        InProcess(data, daily_writes=LIMIT) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        put(client)
        put(client, "stays")
        purge(client)
        [(secret,)] = query(data / "control.db", "SELECT secret FROM day_secret")
        cli(data, "backup", str(tmp_path / "copies"))
    assert _holding(tmp_path / "copies", b"stays")
    assert not _holding(tmp_path / "copies", secret)


def never_one_more(server: Server, *, seconds: float = 3.0) -> None:
    """Writers, and who purges all the while."""
    accepted: list[int] = []
    ended = threading.Event()

    def write(_: int) -> None:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            while not ended.is_set():
                status = put(client)
                accepted.append(status)
                time.sleep(0.002)

    def remove() -> None:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            while not ended.is_set():
                client.delete("/memory/quokka?confirm=quokka")
                time.sleep(0.03)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    threads.append(threading.Thread(target=remove))
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    ended.set()
    for thread in threads:
        thread.join()
    assert set(accepted) <= {200, 429, 503}
    assert accepted.count(200) == 300


def test_never_one_more_whoever_purges_meanwhile(make_server):
    never_one_more(make_server("--daily-writes", "300"), seconds=6.0)


# What makes a fault show sooner.
SLOWLY_RETIRED = Fault(
    "store/removals.py",
    "            return await self._pool.retired(row)\n",
    "            await asyncio.sleep(0.1)\n            return await self._pool.retired(row)\n",
)
FAULTS: dict[str, tuple[Any, Fault]] = {
    "a new file begins anew": (
        goes_on,
        Fault(
            "store/pool.py",
            "written=lambda: self._written(row.tenant_id, row.name)",
            "written=lambda: (0, 0)",
        ),
    ),
    "nobody waits for what is counted": (
        never_one_more,
        Fault("store/tenant.py", "counted=bool(self._limits.daily_writes)", "counted=False"),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_fault_is_caught(make_server, tmp_path, name):
    check, fault = FAULTS[name]
    root = planted(tmp_path, fault, SLOWLY_RETIRED)
    limit = LIMIT if check is goes_on else 300
    with pytest.raises(AssertionError):
        check(make_server("--daily-writes", str(limit), root=root))
