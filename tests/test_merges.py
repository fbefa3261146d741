"""What is merged has the limits of what is sent, and nothing of it is lost.

Each growth is one that a few requests within their limits once made: the figures in the names of
the tests are those of a server without the limits.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from mnemora_server import data, fail
from semantic_store import Store, draft, number
from serving import InProcess, Server, namespace_files, query

from botwire_server.limits import STATE
from botwire_server.store import memories, merging
from harness.planted import Fault, planted

ROUTE = "/v1/memory/semantic"
TEXT = "The customer prefers e-mail."
MEGABYTE = 1_000_000


@pytest.fixture
def served(tmp_path: Path) -> Iterator[httpx.Client]:
    with (
        InProcess(tmp_path / "data", embedder="none") as server,
        httpx.Client(base_url=server.url, timeout=120) as http,
    ):
        yield http


def item(metadata: dict[str, Any], content: str = TEXT) -> dict[str, Any]:
    return {"agent_id": "a", "content": content, "metadata": metadata}


def stored_bytes(http: httpx.Client) -> int:
    return int(data(http.get("/v1/usage"))["storage"]["total_bytes"])


def everything(http: httpx.Client, ids: set[str]) -> list[dict[str, Any]]:
    """All metadata that these memories have and had."""
    found = []
    for id in ids:
        past = data(http.get(f"{ROUTE}/{id}/history"))
        found += [past["current"]["metadata"], *(one["metadata"] for one in past["history"])]
    return found


def test_a_batch_of_one_text_that_stored_and_answered_326_mb(served: httpx.Client) -> None:
    items = [item({f"key-{n}": "x" * 1_300}) for n in range(700)]
    body = orjson.dumps({"items": items})
    assert 0.9 * MEGABYTE < len(body) < MEGABYTE
    answer = served.post(
        f"{ROUTE}/batch", content=body, headers={"Content-Type": "application/json"}
    )
    made = data(answer, 201)["items"]
    assert len(made) == 700
    assert len(answer.content) < 3 * len(body)
    assert stored_bytes(served) < 30 * MEGABYTE
    # All of it is there, in as few memories as the limit allows.
    ids = {one["id"] for one in made}
    assert len(ids) < 20
    assert {key for one in everything(served, ids) for key in one} == {
        f"key-{n}" for n in range(700)
    }
    assert [one["deduplicated"] for one in made].count(False) == len(ids)


def test_posts_of_one_text_whose_history_was_435_mb(served: httpx.Client) -> None:
    as_it_was = served.post(ROUTE, json=item({"key": "x" * 1_000_000}))
    assert "metadata" in fail(as_it_was, 400, "VALIDATION_ERROR")
    ids = set()
    for n in range(129):
        answer = served.post(ROUTE, json=item({f"key-{n}": "x" * 60_000}))
        assert answer.status_code in (200, 201)
        ids.add(answer.json()["data"]["id"])
    assert stored_bytes(served) < 2 * 129 * 60_000
    for id in ids:
        past = served.get(f"{ROUTE}/{id}/history")
        assert len(past.content) < 2 * merging.HISTORY_BYTES
    assert {key for one in everything(served, ids) for key in one} == {
        f"key-{n}" for n in range(129)
    }


def test_a_long_text_in_many_writings_has_a_history_within_its_limit(served: httpx.Client) -> None:
    """Nothing is refused either: what has no room in a history is a memory."""
    words = ["a" * 9_000] * 100
    ids = []
    for n in range(12):
        written = (" " * (n + 1)).join(words)  # a space more or less says the same
        ids.append(served.post(ROUTE, json=item({"n": n}, written)).json()["data"]["id"])
    for id in set(ids):
        past = data(served.get(f"{ROUTE}/{id}/history"))["history"]
        assert sum(len(one["content"]) for one in past) <= merging.HISTORY_BYTES
    assert sorted(one["n"] for one in everything(served, set(ids))) == list(range(12))
    assert served.post(ROUTE, json=item({"n": 11}, written)).json()["data"]["id"] == ids[-1]


CHECKPOINT = "1ef00001-0000-6000-8000-000000000000"


def checkpoint(task: str, writes: str) -> dict[str, Any]:
    return {"checkpoint": {"id": CHECKPOINT}, "pending_writes": {task: [["c", writes]]}}


def test_a_checkpoint_put_60_times_at_a_stale_version_that_grew_to_24_mb(
    served: httpx.Client,
) -> None:
    sent = {"agent_id": "a", "session_id": "s", "data": checkpoint("first", "x" * 390_000)}
    data(served.post("/v1/state", json=sent), 201)
    for n in range(60):
        body = {"session_id": "s", "version": 7, "data": checkpoint(f"task-{n}", "x" * 390_000)}
        answer = served.put("/v1/state/a", json=body)
        message = fail(answer, 413, "PAYLOAD_TOO_LARGE")
        assert str(STATE) in message
    state = data(served.get("/v1/state/a?session_id=s"))
    assert (state["version"], state["data"]) == (1, sent["data"])
    # Small ones go on being united, up to the limit and not beyond it.
    small = {"agent_id": "a", "session_id": "t", "data": checkpoint("first", "x")}
    data(served.post("/v1/state", json=small), 201)
    statuses = []
    for n in range(60):
        body = {"session_id": "t", "version": 1_000, "data": checkpoint(f"task-{n}", "x" * 10_000)}
        statuses.append(served.put("/v1/state/a", json=body).status_code)
    assert 35 < statuses.count(200) <= 40
    assert statuses.count(200) + statuses.count(413) == 60
    whole = data(served.get("/v1/state/a?session_id=t"))["data"]
    assert len(whole["pending_writes"]) == statuses.count(200) + 1
    assert len(orjson.dumps(whole)) <= STATE
    # At the right version it is replaced as ever.
    body = {"session_id": "t", "version": statuses.count(200) + 1, "data": {"n": 1}}
    assert data(served.put("/v1/state/a", json=body))["data"] == {"n": 1}


def test_a_checkpoint_that_grew_before_there_was_a_limit(tmp_path: Path) -> None:
    """It is not looked through, and can be written whole."""
    with (
        InProcess(tmp_path / "data", embedder="none") as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        data(http.post("/v1/state", json={"agent_id": "a", "data": {}}), 201)
        grown = orjson.dumps(checkpoint("old", "x" * 5 * MEGABYTE))
        [(_, namespace)] = server.app.directory.pool.opened()
        connection = namespace._connection
        connection.execute("UPDATE states SET data = ?, bytes = ?, crc = NULL", (grown, len(grown)))
        stale = {"version": 7, "data": checkpoint("new", "y")}
        fail(http.put("/v1/state/a", json=stale), 409, "VERSION_CONFLICT")
        assert data(http.put("/v1/state/a", json={**stale, "version": 1}))["version"] == 2


def test_a_repeat_that_changes_nothing_writes_no_history(served: httpx.Client) -> None:
    metadata = {"a": {"x": 1, "y": [{"p": 1, "q": 2}]}, "b": 2}
    first = data(served.post(ROUTE, json=item(metadata)), 201)
    other_order = {"b": 2, "a": {"y": [{"q": 2, "p": 1}], "x": 1}}
    for repeat in (metadata, other_order, {}, {"a": {}}, {"b": 2}):
        assert data(served.post(ROUTE, json=item(repeat)))["metadata"] == metadata
    assert data(served.get(f"{ROUTE}/{first['id']}/history"))["history"] == []
    assert data(served.post(ROUTE, json=item({"b": 2.5})))["metadata"] == {**metadata, "b": 2.5}
    assert data(served.get(f"{ROUTE}/{first['id']}/history"))["count"] == 1


def test_a_history_is_paged(served: httpx.Client) -> None:
    for n in range(8):
        id = served.post(ROUTE, json=item({"n": n})).json()["data"]["id"]
    whole = data(served.get(f"{ROUTE}/{id}/history"))
    assert [one["metadata"]["n"] for one in whole["history"]] == list(range(7))
    assert "cursor" not in whole
    pages, cursor = [], {}
    while True:
        page = data(served.get(f"{ROUTE}/{id}/history", params={"limit": 3, **cursor}))
        assert (page["count"], page["current"]) == (len(page["history"]), whole["current"])
        pages.append(page["history"])
        if "cursor" not in page:
            break
        cursor = {"cursor": page["cursor"]}
    assert [len(page) for page in pages] == [3, 3, 1]
    assert [one for page in pages for one in page] == whole["history"]
    rest = data(served.get(f"{ROUTE}/{id}/history", params={"cursor": "h5"}))
    assert rest["history"] == whole["history"][5:]
    for wrong in ({"limit": 0}, {"limit": 501}, {"limit": "x"}, {"cursor": "e5"}, {"cursor": "h"}):
        fail(served.get(f"{ROUTE}/{id}/history", params=wrong), 400, "VALIDATION_ERROR")


def test_what_has_no_room_is_a_memory_of_its_own_that_goes_on(tmp_path: Path) -> None:
    store = Store(tmp_path)
    big = {f"key-{n}": "x" * 60 for n in range(900)}
    [first] = store.put(TEXT, metadata=big)
    [second] = store.put(TEXT.upper(), metadata={f"more-{n}": 0 for n in range(200)})
    assert second.id != first.id
    assert orjson.loads(second.metadata) == {f"more-{n}": 0 for n in range(200)}
    [third] = store.put(TEXT, metadata={"n": 1})
    assert third.id == second.id
    assert store.run(memories.get, number(first)) == first
    store.check()
    # And so it is in another place.
    copy = Store(tmp_path)
    copy.run(
        memories.load, [orjson.loads(orjson.dumps(one)) for one in memories.dump(store.connection)]
    )
    copy.check()
    assert copy.put(TEXT, metadata={"n": 2})[0].id == second.id
    assert copy.totals() == store.totals()


def test_any_history_of_merges_loses_nothing_and_stays_within_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small limits, so that they are met often."""
    monkeypatch.setattr(merging, "METADATA_BYTES", 400)
    monkeypatch.setattr(merging, "METADATA_KEYS", 25)
    monkeypatch.setattr(merging, "HISTORY_BYTES", 3_000)
    for seed in range(8):
        chance = random.Random(seed)
        store = Store(tmp_path)
        sent: set[tuple[str, int]] = set()
        for turn in range(60):
            batch = []
            for part in range(chance.randint(1, 6)):
                pair = (f"key-{chance.randint(0, 30)}", turn * 10 + part)
                sent.add(pair)
                metadata: dict[str, Any] = dict([pair])
                if chance.random() < 0.3:
                    metadata = {"deep": metadata}
                metadata[f"pad-{chance.randint(0, 9)}"] = "é" * chance.choice([0, 3, 40])
                written = chance.choice([TEXT, TEXT.upper(), f"  {TEXT}", "Something else."])
                batch.append(draft(written, metadata=metadata))
            store.run(memories.put_all, batch)
        store.check()
        found: set[tuple[str, Any]] = set()
        rows = store.connection.execute("SELECT id, content, metadata, bytes FROM memories")
        for id, content, text, held in rows.fetchall():
            current = store.run(memories.get, id) or pytest.fail("it is gone")
            replaced = list(memories.history(store.connection, id))
            assert held - len(content.encode()) - len(text.encode()) <= merging.HISTORY_BYTES
            for encoded in [current.metadata, *(one.metadata for one in replaced)]:
                parsed = orjson.loads(encoded)
                assert len(encoded) <= 400
                assert merging.keys_of(parsed) <= 25
                found |= {*parsed.pop("deep", {}).items(), *parsed.items()}
        assert sent <= found


FAULTS = {
    "merged without a limit": Fault(
        "store/merging.py",
        "    if len(text.encode()) > METADATA_BYTES or keys_of(both) > METADATA_KEYS:\n"
        "        return None\n",
        "",
    ),
    "a history without a limit": Fault(
        "store/memories.py",
        "        if held > merging.HISTORY_BYTES:\n            return None\n",
        "",
    ),
    "an answer that grows": Fault(
        "store/memories.py",
        "        if before is not None:\n            own",
        "        if before is None:\n            pass\n        elif False:\n            own",
    ),
    "what has no room is dropped": Fault(
        "store/memories.py",
        "        _retire(connection, same)\n    with_vectors",
        "        return _memory(connection, checked), True\n    with_vectors",
    ),
}


@pytest.mark.parametrize("fault", [None, *FAULTS])
def test_the_faults_are_caught(make_server: Any, tmp_path: Path, fault: str | None) -> None:
    if fault is None:
        _within_limits(make_server("--embedder", "none"))
        return
    root = planted(tmp_path, FAULTS[fault])
    with pytest.raises(AssertionError):
        _within_limits(make_server("--embedder", "none", root=root))


def _within_limits(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        items = [item({f"key-{n}": "x" * 1_000}) for n in range(150)]
        answer = http.post(f"{ROUTE}/batch", json={"items": items})
        assert len(answer.content) < 1 * MEGABYTE
        ids = {one["id"] for one in answer.json()["data"]["items"]}
        for n in range(9):
            body = item({"n": n}, (" " * (n + 1)).join(["a" * 9_000] * 100))
            made = http.post(ROUTE, json=body)
            assert made.is_success
            ids.add(made.json()["data"]["id"])
        found = everything(http, ids)
    assert {key for one in found for key in one} >= {f"key-{n}" for n in range(150)}
    [file] = namespace_files(server.data)
    longest = query(file, "SELECT max(octet_length(metadata)) FROM memories")[0][0]
    assert longest <= merging.METADATA_BYTES
    of_history = query(
        file,
        """SELECT max(total) FROM (SELECT sum(octet_length(content) + octet_length(metadata)) total
        FROM memory_history GROUP BY memory_id)""",
    )[0][0]
    assert of_history <= merging.HISTORY_BYTES
