"""Tiers and what they limit; usage, for the bill."""

from __future__ import annotations

import asyncio
import calendar
import email.utils
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from serving import FakeClock, InProcess, query, until
from tenancy import Keyed, bearer, cli, cli_json, make_tenant, operator_of

from botwire_server import tiers
from botwire_server.errors import QuotaExceeded, Unusable
from botwire_server.store import entries
from botwire_server.store.directory import DataDirectory
from botwire_server.store.namespace import Limits
from botwire_server.tiers import BUILT_IN, UNLIMITED, Tier

DAY = 86_400
# 2026-11-20 10:00 UTC.
NOW = float(calendar.timegm((2026, 11, 20, 10, 0, 0)))

# The same limit stands before every handler of every dialect.
CALLS = ["/memory/n/k", "/memory/n", "/stats/memory", "/nowhere"]
CALLS += ["/v1/state/n", "/v1/memory/n", "/v1/usage", "/v1/nowhere"]


@pytest.fixture
def clock():
    return FakeClock(NOW)


@pytest.fixture
def office(tmp_path, clock):
    with Keyed(tmp_path / "data", clock=clock) as office:
        yield office


def statuses(client, count, path="/memory/n/k"):
    return [client.get(path).status_code for _ in range(count)]


# Calls a day.


def test_free_refuses_call_501_and_recovers_at_midnight(office, clock):
    client = office.client(office.tenant("acme", tier="free"))
    assert statuses(client, 500) == [404] * 500
    midnight = NOW - NOW % DAY + DAY
    for path in CALLS:
        refused = client.get(path)
        assert refused.status_code == 429
        if path.startswith("/v1/"):
            assert refused.json()["error"]["code"] == "RATE_LIMITED"
            assert refused.json()["meta"]["request_id"] == refused.headers["x-request-id"]
            said = refused.json()["error"]["message"]
        else:
            said = refused.json()["detail"]
        assert "500 calls" in said
        assert refused.headers["x-ratelimit-limit"] == "500"
        assert refused.headers["x-ratelimit-remaining"] == "0"
        assert refused.headers["x-ratelimit-reset"] == str(int(midnight))
        # A date: clients sleep through seconds.
        retry = email.utils.parsedate_to_datetime(refused.headers["retry-after"])
        assert retry.timestamp() == midnight
    assert client.put("/memory/n/k", json={"value": "v"}).status_code == 429
    assert client.post("/v1/state", json={"agent_id": "n", "data": {}}).status_code == 429
    assert client.get("/health").status_code == client.get("/v1/health").status_code == 200
    clock.now = midnight - 0.001
    assert statuses(client, 1) == [429]
    clock.now = midnight
    assert statuses(client, 500) == [404] * 500
    assert statuses(client, 2) == [429] * 2


def test_a_refused_call_is_not_billed(office):
    client = office.client(office.tenant("acme", tier="free"))
    statuses(client, 510)
    assert office.admin("GET", "/tenants/acme/usage")["api_calls_today"] == 500


def test_all_keys_of_a_tenant_share_its_calls_and_others_have_their_own(office):
    one = office.client(office.tenant("acme", tier="free"))
    two = office.client(office.key("acme")["key"])
    other = office.client(office.tenant("globex", tier="free"))
    statuses(one, 300)
    assert statuses(two, 201) == [404] * 200 + [429]
    assert statuses(one, 1) == [429]
    assert statuses(other, 1) == [404]


def test_32_clients_never_get_one_more(office):
    key = office.tenant("acme", tier="free")

    def work(_):
        with httpx.Client(base_url=office.url, headers=bearer(key), timeout=30) as client:
            return statuses(client, 20)

    with ThreadPoolExecutor(32) as pool:
        answered = [status for part in pool.map(work, range(32)) for status in part]
    assert len(answered) == 640
    assert answered.count(404) == 500
    assert answered.count(429) == 140


def test_the_count_survives_a_restart(tmp_path, clock):
    data = tmp_path / "data"
    key = make_tenant(data, "acme", tier="free")
    for expected in ([404] * 300, [404] * 200 + [429] * 100):
        with (
            InProcess(data, clock=clock) as server,
            httpx.Client(base_url=server.url, headers=bearer(key)) as client,
        ):
            assert statuses(client, 300) == expected


def test_a_tier_is_changed_while_the_server_runs(office):
    client = office.client(office.tenant("acme", tier="free"))
    statuses(client, 500)
    assert statuses(client, 1) == [429]
    cli(office.data, "tenants", "set-tier", "acme", "starter")
    assert statuses(client, 1) == [404]
    office.admin("PATCH", "/tenants/acme", tier="free")
    assert statuses(client, 1) == [429]
    office.admin("PATCH", "/tenants/acme", tier="gold", expect=400)
    assert statuses(client, 1) == [429]


# What is stored.


def test_agents(office):
    client = office.client(office.tenant("acme", tier="free"))
    assert client.put("/memory/one/k", json={"value": "v"}).status_code == 200
    refused = client.put("/memory/two/k", json={"value": "v"})
    assert refused.status_code == 429
    assert "agents" in refused.json()["detail"]
    assert "retry-after" not in refused.headers  # only deleting helps
    assert client.put("/memory/one/more", json={"value": "v"}).status_code == 200
    assert client.get("/memory/two").json()["count"] == 0
    assert client.delete("/memory/one?confirm=one").status_code == 200
    assert client.put("/memory/two/k", json={"value": "v"}).status_code == 200


def test_32_clients_never_get_one_agent_more(office):
    key = office.tenant("acme", tier="starter")

    def work(number):
        with httpx.Client(base_url=office.url, headers=bearer(key), timeout=30) as client:
            return client.put(f"/memory/agent-{number}/k", json={"value": "v"}).status_code

    with ThreadPoolExecutor(32) as pool:
        answered = list(pool.map(work, range(32)))
    assert sorted(answered) == [200] * 10 + [429] * 22
    assert len(office.admin("GET", "/tenants/acme/namespaces")["namespaces"]) == 10
    assert len(list(office.data.glob("tenants/*/*.new"))) == 0


def test_storage(tmp_path, clock):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tiers.toml").write_text("[tiers.tiny]\nstorage_bytes = 1000\n")
    with Keyed(tmp_path / "data", clock=clock) as office:
        client = office.client(office.tenant("acme", tier="tiny"))
        for number in range(4):
            answer = client.put(f"/memory/n{number}/k", json={"value": "x" * 250})
            assert answer.status_code == 200
        refused = client.put("/memory/n0/more", json={"value": "x"})
        assert refused.status_code == 429
        assert "1000 bytes" in refused.json()["detail"]
        assert client.get("/memory/n0/k").status_code == 200
        assert client.delete("/memory/n1/k").status_code == 200
        assert client.put("/memory/n0/more", json={"value": "x"}).status_code == 200
        assert client.delete("/memory/n2?confirm=n2").status_code == 200
        assert client.put("/memory/n3/k", json={"value": "x" * 750}).status_code == 429
        assert client.put("/memory/n3/k", json={"value": "x" * 749}).status_code == 200
        assert client.put("/memory/n3/more", json={"value": "x"}).status_code == 429
        assert client.put("/memory/n3/k", json={"value": "x" * 748}).status_code == 200
        assert client.put("/memory/new/k", json={"value": "xx"}).status_code == 429
        assert client.get("/memory/n3/k").json()["value"] == "x" * 748
        shown = office.admin("GET", "/tenants/acme/namespaces")["namespaces"]
        assert {one["namespace"] for one in shown} == {"n0", "n1", "n3"}


def test_agents_and_vectors_in_the_other_dialect(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tiers.toml").write_text("[tiers.tiny]\nvectors = 2\nagents = 1\n")
    with Keyed(tmp_path / "data") as office:
        client = office.client(office.tenant("acme", tier="tiny"))

        def remember(agent, content):
            answer = client.post(
                "/v1/memory/semantic", json={"agent_id": agent, "content": content}
            )
            return answer.status_code

        assert remember("one", "Ada likes tea.") == 201
        assert remember("two", "Ada likes tea.") == 429
        assert client.post("/v1/state", json={"agent_id": "two", "data": {}}).status_code == 429
        assert remember("one", "Bob likes coffee.") == 201
        assert remember("one", "Eve likes water.") == 429
        # Nor with a vector of one's own, which nobody has to make.
        own = {"agent_id": "one", "content": "Eve.", "embedding": [1.0] * 256}
        assert client.post("/v1/memory/semantic", json=own).status_code == 429
        assert client.post("/v1/memory/semantic/batch", json={"items": [own]}).status_code == 429
        assert client.put("/memory/one/k", json={"value": "v"}).status_code == 200
        usage = client.get("/v1/usage").json()["data"]
        assert usage["agents_count"] == 1
        assert office.admin("GET", "/tenants/acme/usage")["vectors_stored"] == 2
        assert client.delete("/v1/memory/one").status_code == 200
        assert remember("two", "Eve likes water.") == 201


def test_32_clients_never_get_one_vector_more(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tiers.toml").write_text("[tiers.tiny]\nvectors = 10\n")
    with Keyed(tmp_path / "data") as office:
        key = office.tenant("acme", tier="tiny")

        def work(number):
            with httpx.Client(base_url=office.url, headers=bearer(key), timeout=60) as client:
                body = {"agent_id": "one", "content": f"Customer {number} bought {number * 7}."}
                return client.post("/v1/memory/semantic", json=body).status_code

        with ThreadPoolExecutor(32) as pool:
            answered = list(pool.map(work, range(32)))
        assert sorted(answered) == [201] * 10 + [429] * 22


def test_vectors(tmp_path):
    """Checked before a text is embedded; whoever asks at once may not get past it together."""
    make_tenant(tmp_path / "data", "acme")

    async def run():
        directory = await DataDirectory.open(
            tmp_path / "data", durability="full", clock=time.time, most_open=8
        )
        tenant = directory.registry.tenant("acme")
        limits = Limits(vectors=10)
        await directory.require_room(tenant, limits, vectors=10)
        with pytest.raises(QuotaExceeded):
            await directory.require_room(tenant, limits, vectors=11)
        for name in ("one", "two"):
            row = await directory.create(tenant, name, most=0)
            namespace = await directory.pool.open(row)
            await namespace.transact(lambda it: it.execute("UPDATE totals SET vectors = 4"))
        await directory.require_room(tenant, limits, vectors=2)
        with pytest.raises(QuotaExceeded) as refused:
            await directory.require_room(tenant, limits, vectors=3)
        assert (refused.value.limit, refused.value.resets_at) == (10, None)
        await directory.require_room(tenant, Limits(), vectors=1_000)
        await directory.purge_namespace(row, actor="test")
        await directory.require_room(tenant, limits, vectors=6)
        await directory.close()

    asyncio.run(run())


def test_what_is_held_is_right_from_the_first_look_on(tmp_path):
    """What is written while the registry is asked for the sum is neither missed nor added twice."""
    make_tenant(tmp_path / "data", "acme")

    async def run():
        for _ in range(20):
            directory = await DataDirectory.open(
                tmp_path / "data", durability="relaxed", clock=time.time, most_open=8
            )
            tenant = directory.registry.tenant("acme")
            row = await directory.create(tenant, "n", most=0)
            namespace = await directory.pool.open(row)

            async def write(number, namespace=namespace):
                await namespace.write(entries.put, Limits(), f"{number}", b"1", size=1)

            async def look(directory=directory, tenant=tenant):
                await directory.require_room(tenant, Limits(storage_bytes=10**9))

            await asyncio.gather(
                *(write(number) if number % 3 else look() for number in range(30)),
                directory.note_changes(),
                *(write(number) for number in range(100, 110)),
            )
            await look()
            room = (await directory.rooms.within(tenant, Limits(storage_bytes=1))).room
            assert room._bytes == namespace.totals.bytes
            await directory.close()

    asyncio.run(run())


def test_writes_a_day_in_a_namespace(tmp_path, clock):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tiers.toml").write_text("[tiers.slow]\nwrites_per_day = 3\n")
    with Keyed(tmp_path / "data", clock=clock) as office:
        client = office.client(office.tenant("acme", tier="slow"))

        def put(namespace):
            return client.put(f"/memory/{namespace}/k", json={"value": "v"}).status_code

        assert [put("one") for _ in range(4)] == [200, 200, 200, 429]
        assert put("two") == 200
        clock.advance(DAY)
        assert put("one") == 200


# The file.


def test_tiers_are_changed_and_added_by_a_file(tmp_path):
    file = tmp_path / "tiers.toml"
    file.write_text("[tiers.free]\ncalls_per_day = 7\n\n[tiers.team]\nagents = 20\nvectors = 0\n")
    loaded = tiers.load(file)
    assert loaded["free"].calls_per_day == 7
    assert loaded["free"].agents == BUILT_IN["free"].agents
    assert loaded["team"] == Tier(agents=20)
    assert loaded["pro"] == BUILT_IN["pro"]
    assert tiers.load(tmp_path / "missing.toml") == BUILT_IN


def test_the_built_in_tiers_are_those_of_the_contract():
    assert {name: tier.calls_per_day for name, tier in BUILT_IN.items()} == {
        "free": 500,
        "starter": 5_000,
        "pro": 25_000,
        "scale": 50_000,
        "unlimited": 0,
    }
    mb = 1_000_000
    assert [tier.storage_bytes for tier in BUILT_IN.values()] == [
        *(50 * mb, 500 * mb, 5_000 * mb, 10_000 * mb, 0)
    ]
    assert [tier.vectors for tier in BUILT_IN.values()] == [5_000, 50_000, 250_000, 500_000, 0]
    assert [tier.agents for tier in BUILT_IN.values()] == [1, 10, 50, 0, 0]
    assert BUILT_IN[UNLIMITED] == Tier()


WRONG = {
    "calls_a_day": "[tiers.free]\ncalls_a_day = 5\n",
    "agents of tier free": "[tiers.free]\nagents = -1\n",
    "vectors of tier free": '[tiers.free]\nvectors = "many"\n',
    "writes_per_day of tier x": "[tiers.x]\nwrites_per_day = true\n",
    "storage_bytes of tier x": "[tiers.x]\nstorage_bytes = 1.5\n",
    "called tier": "[tier.free]\nagents = 5\n",
    "tier free must be a table": "tiers.free = 5\n",
    "tiers must be tables": "tiers = 5\n",
    "cannot be read as TOML": "[tiers\n",
}


@pytest.mark.parametrize("said", WRONG)
def test_a_wrong_file_is_refused_naming_the_field(tmp_path, said):
    file = tmp_path / "tiers.toml"
    file.write_text(WRONG[said])
    with pytest.raises(Unusable, match=said):
        tiers.load(file)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "tiers.toml").write_bytes(b"\xff\xfe[tiers.free]")
    with pytest.raises(Unusable, match="cannot be read as TOML"):
        tiers.load(tmp_path / "tiers.toml")


def test_a_wrong_file_stops_server_and_commands_with_a_sentence(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tiers.toml").write_text(WRONG["calls_a_day"])
    for arguments in (["serve", "--port", "0"], ["tenants", "list"]):
        done = cli(tmp_path / "data", *arguments, expect=1, process=True)
        assert "calls_a_day" in done.stderr
        assert len(done.stderr.splitlines()) == 1
    missing = cli(tmp_path / "data", "tenants", "list", "--tiers", "/no/such.toml", expect=2)
    assert "/no/such.toml" in missing.stderr


def test_a_tier_that_is_gone_is_said(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "tiers.toml").write_text("[tiers.team]\n")
    key = make_tenant(data, "acme", tier="team")
    (data / "tiers.toml").unlink()
    with InProcess(data) as server:
        answer = httpx.get(server.url + "/memory/n", headers=bearer(key))
        assert answer.status_code == 503
        assert "tier" in answer.json()["detail"]


# The bill.


def test_usage_by_key_tenant_day_and_month(office, clock):
    clock.now = float(calendar.timegm((2026, 11, 29, 12, 0, 0)))
    one = office.key("acme", label="web") if office.tenant("acme") else None
    two = office.key("acme", label="batch")
    other = office.client(office.tenant("globex"))
    expected: dict[str, list[int]] = {}
    for day in ("2026-11-29", "2026-11-30", "2026-12-01", "2026-12-02"):
        calls = 3 + int(day[-1])
        for key, count in ((one, calls), (two, 2)):
            statuses(office.client(key["key"]), count)
        statuses(other, 1)
        expected[day] = [calls, 2]
        if day != "2026-12-02":
            office.admin("GET", "/usage")
            clock.advance(DAY)
    usage = office.admin("GET", "/tenants/acme/usage")
    assert {row["day"]: row["api_calls"] for row in usage["days"]} == {
        day: sum(counts) for day, counts in expected.items()
    }
    assert usage["api_calls_today"] == sum(expected["2026-12-02"])
    december = [expected["2026-12-01"], expected["2026-12-02"]]
    assert usage["api_calls_month"] == sum(map(sum, december))
    assert usage["billing_period"] == "2026-12"
    by_label = {row["label"]: row for row in usage["keys"]}
    assert by_label["web"]["api_calls_today"] == expected["2026-12-02"][0]
    assert by_label["web"]["api_calls_month"] == sum(each[0] for each in december)
    assert by_label["batch"]["api_calls_month"] == 4
    assert by_label[""]["api_calls_month"] == 0
    everybody = {row["tenant"]: row for row in office.admin("GET", "/usage")["usage"]}
    assert everybody["acme"] == usage
    assert everybody["globex"]["api_calls_month"] == 2
    assert cli_json(office.data, "usage", "acme")["keys"][0]["id"] == usage["keys"][0]["id"]


def test_what_was_held_day_by_day(office, clock):
    client = office.client(office.tenant("acme"))
    client.put("/memory/one/k", json={"value": "x" * 100})
    client.put("/memory/two/k", json={"value": "x" * 50})

    def today():
        [*_, row] = office.admin("GET", "/tenants/acme/usage")["days"] or [{}]
        return row.get("namespaces"), row.get("storage_bytes")

    clock.advance(61)
    until(lambda: today() == (2, 150), "the holdings were noted")
    clock.advance(DAY)
    client.delete("/memory/one?confirm=one")
    client.delete("/memory/two?confirm=two")
    clock.advance(61)
    # Nothing any more: not what it held when it last held something.
    until(lambda: today() == (0, 0), "the holdings were noted")
    days = office.admin("GET", "/tenants/acme/usage")["days"]
    assert [row["storage_bytes"] for row in days] == [150, 0]


def test_90_days_are_kept(office, clock):
    client = office.client(office.tenant("acme"))
    for _ in range(95):
        statuses(client, 1)
        office.admin("GET", "/tenants/acme/usage")
        clock.advance(DAY)
    statuses(client, 1)
    calls = "SELECT count(DISTINCT day) FROM calls"
    until(lambda: query(office.data / "control.db", calls) == [(90,)], "old days were dropped")
    days = office.admin("GET", "/tenants/acme/usage")["days"]
    assert len(days) == 90
    assert days[-1]["day"] == time.strftime("%Y-%m-%d", time.gmtime(clock.now))


def test_counts_are_flushed_every_second_and_at_the_end(make_server):
    server = make_server(started=False)
    key = make_tenant(server.data, "acme")
    server.start()

    def counted():
        usage = operator_of(server.data, lambda it: it.usage("acme"))
        return usage[0]["api_calls_today"]

    with httpx.Client(base_url=server.url, headers=bearer(key)) as client:
        statuses(client, 30)
        until(lambda: counted() == 30, "they were flushed", seconds=5)
        statuses(client, 7)
        assert server.stop() in (0, -15)
    assert counted() == 37
    server.start()
    with httpx.Client(base_url=server.url, headers=bearer(key)) as client:
        statuses(client, 10)
        time.sleep(2.5)  # more than the second that may be missing, on a busy machine
        statuses(client, 5)
        server.kill()
    assert 47 <= counted() <= 52


def test_reading_costs_no_write(make_server):
    """Calls are counted in memory: many of them between two flushes are one transaction."""
    server = make_server(started=False)
    key = make_tenant(server.data, "acme")
    server.start()
    with httpx.Client(base_url=server.url, headers=bearer(key)) as client:
        statuses(client, 1)
        wal = server.data / "control.db-wal"
        before = wal.stat().st_size
        started = time.monotonic()
        statuses(client, 1_000)
        flushes = time.monotonic() - started + 2
        assert wal.stat().st_size - before < flushes * 20 * 4_200
