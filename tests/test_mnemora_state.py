"""States: versions, expiry, sessions, and the rule for LangGraph checkpoints."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mnemora_server import data, fail
from serving import FakeClock, InProcess, namespace_files, query, until

from botwire_server.store import housekeeping

HOUR = 3600.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def served(tmp_path: Path, clock: FakeClock) -> Iterator[InProcess]:
    """A server that goes by `clock`."""
    with InProcess(tmp_path / "data", clock=clock) as server:
        yield server


@pytest.fixture
def timed(served: InProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url) as http:
        yield http


def store(http: httpx.Client, content: Any, **more: Any) -> dict[str, Any]:
    return data(http.post("/v1/state", json={"agent_id": "a", "data": content, **more}), 201)


def update(http: httpx.Client, content: Any, version: int, **more: Any) -> httpx.Response:
    return http.put("/v1/state/a", json={"data": content, "version": version, **more})


def test_storing_over_a_state_continues_its_version(timed: httpx.Client) -> None:
    assert store(timed, {"n": 1})["version"] == 1
    assert data(update(timed, {"n": 2}, 1))["version"] == 2
    assert store(timed, {"n": 3})["version"] == 3
    # Whoever read version 1 before the overwrite must learn of it.
    fail(update(timed, {"n": 4}, 1), 409, "VERSION_CONFLICT")
    assert data(timed.get("/v1/state/a"))["data"] == {"n": 3}


def test_created_at_stays_and_updated_at_moves(timed: httpx.Client, clock: FakeClock) -> None:
    first = store(timed, {})
    clock.advance(60)
    second = data(update(timed, {}, 1))
    clock.advance(60)
    third = store(timed, {})
    assert first["created_at"] == second["created_at"] == third["created_at"]
    assert first["updated_at"] < second["updated_at"] < third["updated_at"]


def test_an_expired_state_is_gone_at_once(timed: httpx.Client, clock: FakeClock) -> None:
    assert store(timed, {}, ttl_hours=2)["expires_at"] == "2026-09-21T16:13:20.000000+00:00"
    store(timed, {}, session_id="stays")
    clock.advance(2 * HOUR - 1)
    assert data(timed.get("/v1/state/a"))["version"] == 1
    clock.advance(1)
    fail(timed.get("/v1/state/a"), 404, "NOT_FOUND")
    fail(update(timed, {}, 1), 404, "NOT_FOUND")
    fail(timed.delete("/v1/state/a/default"), 404, "NOT_FOUND")
    assert data(timed.get("/v1/state/a/sessions"))["sessions"] == ["stays"]
    seen = data(timed.get("/v1/memory/a"))
    assert seen["state"]["session_id"] == "stays"
    assert seen["summary"]["state_count"] == 1
    assert data(timed.delete("/v1/memory/a"))["deleted"]["state"] == 1


def test_a_state_after_an_expired_one_begins_anew(timed: httpx.Client, clock: FakeClock) -> None:
    old = store(timed, {"old": True}, ttl_hours=1)
    clock.advance(HOUR)
    new = store(timed, {"new": True})
    assert (new["version"], new["expires_at"]) == (1, None)
    assert new["created_at"] > old["created_at"]


def test_an_update_keeps_the_expiry(timed: httpx.Client, clock: FakeClock) -> None:
    expires_at = store(timed, {}, ttl_hours=2)["expires_at"]
    clock.advance(HOUR)
    assert data(update(timed, {}, 1))["expires_at"] == expires_at
    moved = data(update(timed, {}, 2, ttl_hours=2))["expires_at"]
    assert moved > expires_at
    assert store(timed, {})["expires_at"] is None


def test_an_expired_state_is_erased(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for setting in ("NOTE_EVERY", "SWEEP_EVERY", "ERASE_EVERY"):
        monkeypatch.setattr(housekeeping, setting, 0.05)
    secret = "a secret that must not stay"
    with InProcess(tmp_path / "data", clock=clock) as server:
        with httpx.Client(base_url=server.url) as http:
            store(http, {"x": secret}, ttl_hours=1)
        [file] = namespace_files(server.config.data_dir)
        clock.advance(HOUR)
        until(lambda: query(file, "SELECT count(*) FROM states") == [(0,)], "it was swept")

        def erased() -> bool:
            return all(
                secret.encode() not in path.read_bytes()
                for path in server.config.data_dir.glob("tenants/**/*")
                if path.is_file()
            )

        until(erased, "it was erased")


def test_sessions_with_their_details(timed: httpx.Client, clock: FakeClock) -> None:
    store(timed, {}, session_id="s1", ttl_hours=1)
    clock.advance(1)
    store(timed, {}, session_id="s2")
    clock.advance(1)
    data(update(timed, {}, 1, session_id="s1"))
    answer = data(timed.get("/v1/state/a/sessions"))
    assert answer["agent_id"] == "a"
    assert answer["count"] == 2
    assert answer["sessions"] == ["s1", "s2"]  # the last written first
    first, second = answer["session_details"]
    assert (first["session_id"], first["version"]) == ("s1", 2)
    assert first["expires_at"] is not None and second["expires_at"] is None


def test_the_overview_shows_the_default_session(timed: httpx.Client, clock: FakeClock) -> None:
    store(timed, {"n": 1}, session_id="s1")
    assert data(timed.get("/v1/memory/a"))["state"]["session_id"] == "s1"
    store(timed, {"n": 2})
    clock.advance(1)
    store(timed, {"n": 3}, session_id="s2")
    assert data(timed.get("/v1/memory/a"))["state"]["session_id"] == "default"


# LangGraph's ids are UUIDs of version 6.
OLD, MID, NEW = (f"1ef0000{n}-0000-6000-8000-000000000000" for n in (1, 2, 3))


def checkpoint(id: str, **more: Any) -> dict[str, Any]:
    return {"checkpoint": {"id": id, "channel_values": {}}, "metadata": {}, **more}


def test_a_newer_checkpoint_is_accepted_whatever_its_version(timed: httpx.Client) -> None:
    store(timed, checkpoint(OLD))
    data(update(timed, checkpoint(MID), 1))
    stored = data(update(timed, checkpoint(NEW), 1))
    assert (stored["version"], stored["data"]) == (3, checkpoint(NEW))


def test_an_older_checkpoint_leaves_what_is_stored(timed: httpx.Client) -> None:
    store(timed, checkpoint(OLD))
    data(update(timed, checkpoint(NEW), 1))
    kept = data(update(timed, checkpoint(MID), 1))
    assert (kept["version"], kept["data"]) == (2, checkpoint(NEW))


def test_two_writes_of_one_checkpoint_are_united(timed: httpx.Client) -> None:
    store(timed, checkpoint(NEW))
    data(update(timed, checkpoint(NEW, pending_writes={"task-1": [["c", 1]]}), 1))
    united = data(update(timed, checkpoint(NEW, pending_writes={"task-2": [["c", 2]]}), 1))
    assert united["data"]["pending_writes"] == {"task-1": [["c", 1]], "task-2": [["c", 2]]}


@pytest.mark.parametrize("id", ["2", str(uuid.UUID(int=9, version=4)), 7, None])
def test_other_documents_are_compared_by_version_alone(timed: httpx.Client, id: Any) -> None:
    store(timed, {"checkpoint": {"id": "1"}})
    data(update(timed, {"checkpoint": {"id": id}}, 1))
    fail(update(timed, {"checkpoint": {"id": id}}, 1), 409, "VERSION_CONFLICT")


def test_a_checkpoint_does_not_replace_another_document(timed: httpx.Client) -> None:
    store(timed, {"n": 1})
    data(update(timed, {"n": 2}, 1))
    fail(update(timed, checkpoint(NEW), 1), 409, "VERSION_CONFLICT")


def test_the_checkpoint_rule_can_be_switched_off(tmp_path: Path) -> None:
    with (
        InProcess(tmp_path / "data", checkpoint_rule="version") as server,
        httpx.Client(base_url=server.url) as http,
    ):
        store(http, checkpoint(OLD))
        data(update(http, checkpoint(MID), 1))
        fail(update(http, checkpoint(NEW), 1), 409, "VERSION_CONFLICT")


def test_one_of_many_writers_with_the_same_version_wins(timed: httpx.Client) -> None:
    store(timed, {"n": 0})

    async def race() -> list[int]:
        async with httpx.AsyncClient(base_url=timed.base_url) as http:
            requests = (
                http.put("/v1/state/a", json={"data": {"n": n}, "version": 1}) for n in range(16)
            )
            return [answer.status_code for answer in await asyncio.gather(*requests)]

    statuses = asyncio.run(race())
    assert sorted(statuses) == [200] + [409] * 15
    assert data(timed.get("/v1/state/a"))["version"] == 2


def test_connections_are_closed_for_the_client_that_cannot_keep_them(timed: httpx.Client) -> None:
    old = {"User-Agent": "mnemora-sdk/0.1.1"}
    assert timed.get("/v1/state/a", headers=old).headers["connection"] == "close"
    assert timed.get("/v1/health", headers=old).headers["connection"] == "close"
    assert "connection" not in timed.get("/v1/health").headers
