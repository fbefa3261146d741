"""What could grow for ever out of requests within the limits has an end that nobody meets."""

from __future__ import annotations

import httpx
import pytest
from serving import InProcess, namespace_files, query
from tenancy import Keyed, bearer, cli_json

from botwire_server.store import making, namespace, pool, purges


def put(client: httpx.Client, path: str, value: object = "v", **headers: str) -> int:
    return client.put(f"/memory/{path}", json={"value": value}, headers=headers).status_code


def rows(server: InProcess, table: str) -> int:
    [(count,)] = query(server.config.data_dir / "control.db", f"SELECT count(*) FROM {table}")
    return int(count)


def test_made_up_keys_cost_nothing_until_they_store_something(tmp_path):
    """Each once left a tenant, and a row of accounts for every day."""
    with (
        InProcess(tmp_path / "data", embedder="none") as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        for number in range(50):
            headers = bearer(f"made-up-{number}")
            for path in ("/memory/n/k", "/memory/n", "/v1/memory/a", "/v1/usage", "/stats/memory"):
                assert client.get(path, headers=headers).status_code in (200, 404), path
            assert client.delete("/memory/n/k", headers=headers).status_code == 404
            search = {"query": "anything"}
            answer = client.post("/v1/memory/search", json=search, headers=headers)
            assert answer.json()["data"]["count"] == 0
        client.get("/admin/v1/tenants")
        assert rows(server, "tenants") == 0
        assert len(server.app.directory.ledger._today) <= 1
        # And those that do are tenants of their own, counted as ever.
        for number in range(3):
            assert put(client, "n/k", number, **bearer(f"made-up-{number}")) == 200
        for number in range(3):
            headers = bearer(f"made-up-{number}")
            assert client.get("/memory/n/k", headers=headers).json()["value"] == number
            used = client.get("/v1/usage", headers=headers).json()["data"]
            assert (used["agents_count"], used["api_calls_today"]) == (1, 3)
        assert rows(server, "tenants") == 3


def test_sandboxes_have_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(making, "MOST_SANDBOXES", 5)
    with (
        InProcess(tmp_path / "data") as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        assert put(client, "n/k") == 200
        statuses = [put(client, "n/k", **bearer(f"made-up-{number}")) for number in range(8)]
        assert statuses == [200] * 5 + [429] * 3
        refused = client.put("/memory/n/k", json={"value": 1}, headers=bearer("one-more"))
        assert "sandboxes" in refused.json()["detail"]
        assert put(client, "n/more", **bearer("made-up-0")) == 200
        assert len(namespace_files(server.config.data_dir)) == 6
        assert len(list(server.config.data_dir.glob("tenants/*/*.new"))) == 0


def test_namespaces_have_an_end_for_everybody(tmp_path, monkeypatch):
    monkeypatch.setattr(making, "MOST_NAMESPACES", 5)
    with (
        InProcess(tmp_path / "data") as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        assert [put(client, f"n{number}/k") for number in range(7)] == [200] * 5 + [429] * 2
        assert client.delete("/memory/n0?confirm=n0").is_success
        assert [put(client, f"m{number}/k") for number in range(2)] == [200, 429]
        assert put(client, "n1/more") == 200
        told = query(server.config.data_dir / "control.db", "SELECT namespaces FROM tenants")
        assert told == [(5,)]


def test_receipts_of_what_a_tenant_purges_itself_have_an_end(tmp_path, monkeypatch):
    """Each purge once left a receipt, a tombstone and a line in the audit for good."""
    monkeypatch.setattr(purges, "MOST_RECEIPTS", 10)
    with Keyed(tmp_path / "data", embedder="none") as office:
        acme, globex = (office.client(office.tenant(name)) for name in ("acme", "globex"))
        for name in ("a", "b"):
            assert put(globex, f"{name}/k") == 200
            assert globex.delete(f"/memory/{name}?confirm={name}").is_success
        for number in range(25):
            assert put(acme, f"n{number}/k") == 200
            assert acme.delete(f"/v1/memory/n{number}").is_success
        assert [rows(office, table) for table in ("purges", "tombstones")] == [12, 12]
        lines = cli_json(office.data, "audit")
        assert sum(line["action"] == "purge namespace" for line in lines) == 12
        assert sum(line["action"] == "create tenant" for line in lines) == 2
        # What the operator purges is kept.
        assert put(acme, "last/k") == 200
        office.admin("DELETE", "/tenants/acme/namespaces?prefix=last")
        assert rows(office, "purges") == 13


def test_files_that_are_gone_are_not_remembered_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "MOST_REMOVED", 10)
    with (
        InProcess(tmp_path / "data") as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        for number in range(25):
            assert put(client, f"n{number}/k") == 200
            assert client.delete(f"/memory/n{number}?confirm=n{number}").is_success
        assert len(server.app.directory.pool._removed) == 10


@pytest.mark.parametrize("kind", ["keys", "states", "episodes"])
def test_names_of_nothing_do_not_fill_a_limited_tenants_disk(tmp_path, monkeypatch, kind):
    """An empty value counts no byte, whatever its key is."""
    monkeypatch.setattr(namespace, "DISK_MORE", 500_000)
    data = tmp_path / "data"
    data.mkdir()
    (data / "tiers.toml").write_text("[tiers.tight]\nstorage_bytes = 1000\n")
    with Keyed(data, embedder="none") as office:
        client = office.client(office.tenant("acme", tier="tight"))

        def store(number: int) -> int:
            name = f"{number:06}-{'n' * 240}"
            if kind == "keys":
                return put(client, f"n/{name}", "")
            if kind == "states":
                body = {"agent_id": "n", "session_id": name, "data": {}}
                return client.post("/v1/state", json=body).status_code
            body = {"agent_id": "n", "session_id": name, "type": "action", "content": ""}
            return client.post("/v1/memory/episodic", json=body).status_code

        statuses = [store(number) for number in range(1_500)]
        assert statuses[-1] == 429
        assert statuses.count(200) + statuses.count(201) > 100
        [file] = namespace_files(data)
        assert file.stat().st_size < 1_000_000
        assert client.get("/memory/n").status_code == 200
