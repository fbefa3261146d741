"""Entries that expire, with a clock the test moves."""

from __future__ import annotations

import httpx
import pytest
from serving import FakeClock, InProcess, namespace_files, query, until

from botwire_server.store import housekeeping


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def served(tmp_path, clock):
    with (
        InProcess(tmp_path, clock=clock) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        yield client


def test_an_entry_lives_for_its_ttl_and_no_longer(served, clock):
    served.put("/memory/ns/k", json={"value": "v", "ttl_seconds": 60})
    served.put("/memory/ns/stays", json={"value": "v"})
    body = served.get("/memory/ns/k").json()
    assert body["expires_at"] == clock.now + 60
    assert "expires_at" not in served.get("/memory/ns/stays").json()
    clock.advance(59.9)
    assert served.get("/memory/ns/k").status_code == 200
    clock.advance(0.1)
    assert served.get("/memory/ns/k").status_code == 404
    assert served.get("/memory/ns").json()["keys"] == ["stays"]
    assert served.delete("/memory/ns/k").status_code == 404


def test_writing_again_sets_the_ttl_anew(served, clock):
    served.put("/memory/ns/k", json={"value": "v", "ttl_seconds": 60})
    clock.advance(50)
    served.put("/memory/ns/k", json={"value": "v", "ttl_seconds": 60})
    clock.advance(50)
    served.put("/memory/ns/k", json={"value": "v"})
    clock.advance(10_000)
    assert "expires_at" not in served.get("/memory/ns/k").json()


def test_an_entry_that_expired_is_created_anew(served, clock):
    served.put("/memory/ns/k", json={"value": "old", "ttl_seconds": 1})
    old = served.get("/memory/ns/k")
    clock.advance(2)
    stored = served.put("/memory/ns/k", json={"value": "new"}, headers={"If-None-Match": "*"})
    assert stored.status_code == 200
    new = served.get("/memory/ns/k")
    assert new.json()["created_at"] == clock.now != old.json()["created_at"]
    assert new.headers["etag"] != old.headers["etag"]


def test_an_expired_entry_matches_no_condition(served, clock):
    etag = served.put("/memory/ns/k", json={"value": "v", "ttl_seconds": 1}).headers["etag"]
    clock.advance(2)
    refused = served.put("/memory/ns/k", json={"value": "w"}, headers={"If-Match": etag})
    assert refused.status_code == 412


@pytest.mark.parametrize("ttl", [0, -1, "60", True, [1], 1e12])
def test_a_ttl_is_a_positive_number(served, ttl):
    answer = served.put("/memory/ns/k", json={"value": "v", "ttl_seconds": ttl})
    assert answer.status_code == 400
    assert "ttl_seconds" in answer.json()["detail"]
    assert served.get("/memory/ns/k").status_code == 404


def test_a_ttl_of_null_is_none_and_a_fraction_counts(served, clock):
    served.put("/memory/ns/k", json={"value": "v", "ttl_seconds": None})
    assert "expires_at" not in served.get("/memory/ns/k").json()
    served.put("/memory/ns/k", json={"value": "v", "ttl_seconds": 0.5})
    assert served.get("/memory/ns/k").json()["expires_at"] == clock.now + 0.5


def test_what_expired_is_erased_from_the_disk_by_itself(tmp_path, clock, monkeypatch):
    for constant in ("NOTE_EVERY", "SWEEP_EVERY", "ERASE_EVERY"):
        monkeypatch.setattr(housekeeping, constant, 0.05)
    secrets = (b"Zanzibar-value", b"zanzibar-key")
    with (
        InProcess(tmp_path, clock=clock) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        path = f"/memory/ns/{secrets[1].decode()}"
        client.put(path, json={"value": secrets[0].decode() * 500, "ttl_seconds": 5})
        client.put("/memory/ns/other", json={"value": "stays"})
        [file] = namespace_files(tmp_path)
        assert all(secret in everything(tmp_path) for secret in secrets)
        clock.advance(10)
        until(lambda: query(file, "SELECT count(*) FROM entries") == [(1,)], "the sweep")
        until(lambda: not any(secret in everything(tmp_path) for secret in secrets), "the erasure")
        assert client.get("/memory/ns").json()["keys"] == ["other"]
        stats = client.get("/stats/memory").json()
        assert (stats["total_entries"], stats["total_bytes"]) == (1, 5)


def test_what_was_deleted_or_replaced_is_erased_from_the_disk_by_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(housekeeping, "ERASE_EVERY", 0.05)
    with (
        InProcess(tmp_path) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        client.put("/memory/ns/mombasa-key", json={"value": "Mombasa-value"})
        client.put("/memory/ns/k", json={"value": "Nairobi-value" * 900})
        client.delete("/memory/ns/mombasa-key")
        client.put("/memory/ns/k", json={"value": "short"})
        words = (b"ombasa", b"Nairobi")
        until(lambda: not any(word in everything(tmp_path) for word in words), "the erasure")
        assert client.get("/memory/ns/k").json()["value"] == "short"


def test_a_namespace_nobody_has_open_is_swept_too(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(housekeeping, "NOTE_EVERY", 0.05)
    with InProcess(tmp_path, clock=clock) as server:
        httpx.put(
            f"{server.url}/memory/ns/k",
            json={"value": "Zanzibar-value", "ttl_seconds": 5},
        )
    clock.advance(10)
    monkeypatch.setattr(housekeeping, "SWEEP_EVERY", 0.05)
    [file] = namespace_files(tmp_path)
    with InProcess(tmp_path, clock=clock):
        until(lambda: query(file, "SELECT count(*) FROM entries") == [(0,)], "the sweep")


def everything(directory) -> bytes:
    found = []
    for file in directory.rglob("*"):
        try:
            found.append(file.read_bytes() if file.is_file() else b"")
        except FileNotFoundError:
            continue
    return b"".join(found)
