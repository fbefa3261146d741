"""Deleting, overwriting and expiry erase: within a minute nothing finds the bytes any more."""

from __future__ import annotations

import time

import httpx
import pytest
from serving import FakeClock, InProcess, namespace_files, until
from tenancy import files_with, operator_of

from botwire_server.store import housekeeping

# A needle in the way somebody would look for it.
KEY, VALUE, KEPT = "quokka-key", "wombat-text", "kept-text"


@pytest.fixture
def soon(monkeypatch):
    """Housekeeping that has little patience."""
    monkeypatch.setattr(housekeeping, "ERASE_EVERY", 0.2)
    monkeypatch.setattr(housekeeping, "SWEEP_EVERY", 0.2)
    monkeypatch.setattr(housekeeping, "NOTE_EVERY", 0.2)


def put(client, key, value, **more):
    assert client.put(f"/memory/n/{key}", json={"value": value, **more}).status_code == 200


def delete(client, clock):
    assert client.delete(f"/memory/n/{KEY}").status_code == 200


def overwrite(client, clock):
    put(client, KEY, KEPT)


def expire(client, clock):
    clock.advance(61)


def overwrite_with_a_lower_value(client, clock):
    put(client, KEY, "x")


def purge(client, clock):
    assert client.delete("/memory/n?confirm=n").status_code == 200


@pytest.mark.parametrize(
    ("end", "needles"),
    [
        (delete, [KEY, VALUE]),
        (overwrite, [VALUE]),
        (overwrite_with_a_lower_value, [VALUE]),
        (expire, [KEY, VALUE]),
        (purge, [KEY, VALUE]),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_what_ended_is_erased_while_the_namespace_stays_open(tmp_path, soon, end, needles):
    clock = FakeClock()
    data = tmp_path / "data"
    with InProcess(data, clock=clock) as server, httpx.Client(base_url=server.url) as client:
        put(client, "other", KEPT)
        for number in range(20):
            put(client, KEY if number == 7 else f"more-{number}", VALUE, ttl_seconds=60)
            if number != 7:
                assert client.delete(f"/memory/n/more-{number}").status_code == 200
        assert list(files_with(data, KEY)) and list(files_with(data, VALUE))
        end(client, clock)
        until(lambda: not list(files_with(data, *needles)), "it was erased", seconds=10)
        if end is not purge:
            assert client.get("/memory/n/other").json()["value"] == KEPT
            assert list(files_with(data, KEPT))


def test_what_replaces_an_expired_entry_before_the_sweep(tmp_path, soon, monkeypatch):
    """It is created anew, and looks as if nothing had been there."""
    monkeypatch.setattr(housekeeping, "SWEEP_EVERY", 1_000)
    clock = FakeClock()
    data = tmp_path / "data"
    with InProcess(data, clock=clock) as server, httpx.Client(base_url=server.url) as client:
        put(client, KEY, VALUE, ttl_seconds=60)
        clock.advance(61)
        put(client, KEY, KEPT)
        until(lambda: not list(files_with(data, VALUE)), "it was erased", seconds=10)


def test_nothing_is_erased_too_early(tmp_path, soon):
    data = tmp_path / "data"
    with InProcess(data) as server, httpx.Client(base_url=server.url) as client:
        put(client, KEY, VALUE)
        time.sleep(0.6)
        assert client.get(f"/memory/n/{KEY}").json()["value"] == VALUE
        assert list(files_with(data, VALUE))


@pytest.mark.parametrize("ended", ["kill", "stop"])
def test_what_was_deleted_just_before_the_end_is_erased(make_server, ended):
    """A kill leaves the WAL as it is, and nobody may ever write to this namespace again."""
    server = make_server()
    with httpx.Client(base_url=server.url) as client:
        put(client, "other", KEPT)
        put(client, KEY, VALUE)
        assert client.delete(f"/memory/n/{KEY}").status_code == 200
    if ended == "stop":
        server.stop()
        assert list(files_with(server.data, KEY, VALUE)) == []
        return
    server.kill()
    assert list(files_with(server.data, VALUE))
    # The one test that waits as long as the real intervals are.
    server.start()
    until(lambda: not list(files_with(server.data, KEY, VALUE)), "it was erased", seconds=60)
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/memory/n/other").json()["value"] == KEPT


STATE = {"agent_id": "n", "session_id": "session-quokka", "data": {"text": "wombat"}}
EPISODE = {"agent_id": "n", "session_id": "session-quokka", "type": "action", "content": "wombat"}
MEMORY = {"agent_id": "n", "content": "The wombat of quokka."}


def test_states_memories_and_episodes_are_erased_with_their_terms(tmp_path, soon):
    data = tmp_path / "data"
    with InProcess(data) as server, httpx.Client(base_url=server.url, timeout=30) as client:

        def gone(*needles):
            until(lambda: not list(files_with(data, *needles)), "it was erased", seconds=10)

        put(client, "other", KEPT)
        assert client.post("/v1/state", json=STATE).status_code == 201
        update = {**STATE, "data": {"text": "ocelot"}, "version": 1}
        assert client.put("/v1/state/n", json=update).status_code == 200
        gone("wombat")
        assert client.delete("/v1/state/n/session-quokka").status_code == 200
        gone("quokka", "ocelot")
        assert client.post("/v1/memory/semantic", json={**MEMORY, "content": KEPT}).is_success
        made = client.post("/v1/memory/semantic", json=MEMORY).json()["data"]
        assert list(files_with(data, "wombat"))
        assert client.delete(f"/v1/memory/semantic/{made['id']}").status_code == 204
        gone("wombat", "quokka")
        assert client.post("/v1/memory/episodic", json=EPISODE).status_code == 201
        assert client.post("/v1/state", json=STATE).status_code == 201
        assert client.post("/v1/memory/semantic", json=MEMORY).status_code == 201
        assert client.delete("/v1/memory/n").status_code == 200
        gone("wombat", "quokka", KEPT)


def test_names_in_the_registry_are_erased_too(tmp_path, soon):
    """Those of tenants and labels of keys, in its file and its WAL."""
    data = tmp_path / "data"
    with InProcess(data) as server, httpx.Client(base_url=server.url) as client:
        operator_of(data, lambda it: it.create_tenant("zebra"))
        operator_of(data, lambda it: it.create_key("zebra", label="label-lemur"))
        key = operator_of(data, lambda it: it.create_key(None))["key"]
        assert list(files_with(data, "zebra")) and list(files_with(data, "label-lemur"))
        headers = {"X-API-Key": key}
        answer = client.delete("/admin/v1/tenants/zebra?confirm=zebra", headers=headers)
        assert answer.status_code == 200
        assert list(files_with(data, "zebra", "label-lemur")) == []


def test_a_file_that_is_closed_is_erased_as_well(tmp_path, soon):
    """With more namespaces than open files, those that were closed have no WAL."""
    data = tmp_path / "data"
    with (
        InProcess(data, open_namespaces=2) as server,
        httpx.Client(base_url=server.url) as client,
    ):
        for number in range(8):
            assert client.put(f"/memory/n{number}/k", json={"value": VALUE}).is_success
            assert client.delete(f"/memory/n{number}/k").is_success
        until(lambda: not list(files_with(data, VALUE)), "it was erased", seconds=10)
        assert len(namespace_files(data)) == 8
