"""/v1/memory: routing by shape, searching all kinds, the overview, and the purge."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from mnemora_server import data, fail, needs_semantic
from serving import InProcess, namespace_files

from botwire_server.errors import Unavailable
from botwire_server.store import archive, episodes, states
from botwire_server.store.directory import DataDirectory
from botwire_server.store.driver import connect
from botwire_server.store.migrations import NAMESPACE, template, write_new
from botwire_server.store.namespace import totals
from botwire_server.web.mnemora import semantic


def test_a_body_goes_where_its_shape_says(http: httpx.Client, ns: str) -> None:
    state = {"agent_id": ns, "session_id": "s", "data": {"n": 1}, "ttl_hours": 1}
    stored = data(http.post("/v1/memory", json=state), 201)
    assert (stored["memory_type"], stored["version"]) == ("state", 1)
    assert stored["expires_at"] is not None
    episode = {"agent_id": ns, "session_id": "s", "type": "action", "content": {"x": 1}}
    stored = data(http.post("/v1/memory", json=episode), 201)
    assert (stored["memory_type"], stored["content"]) == ("episodic", {"x": 1})
    both = {**episode, **state}
    assert data(http.post("/v1/memory", json=both), 201)["memory_type"] == "state"
    summary = data(http.get(f"/v1/memory/{ns}"))["summary"]
    assert (summary["state_count"], summary["episodic_count"]) == (1, 1)


@needs_semantic
def test_text_alone_is_a_memory(http: httpx.Client, ns: str) -> None:
    body = {"agent_id": ns, "content": "Refunds take five days"}
    stored = data(http.post("/v1/memory", json=body), 201)
    assert stored["memory_type"] == "semantic"
    merged = data(http.post("/v1/memory", json=body), 200)
    assert merged["deduplicated"] is True
    assert merged["id"] == stored["id"]


@needs_semantic
def test_the_overview_shows_the_newest_and_counts_all(http: httpx.Client, ns: str) -> None:
    facts = [f"The capital number {n} is called {name}" for n, name in enumerate("ABCDEFG")]
    for fact in facts:
        data(http.post("/v1/memory/semantic", json={"agent_id": ns, "content": fact}), 201)
    seen = data(http.get(f"/v1/memory/{ns}"))
    assert [memory["content"] for memory in seen["semantic"]] == facts[:1:-1]
    assert seen["summary"]["semantic_count"] == 7


class Found:
    """Stands in for semantic search where only how its results are joined matters."""

    def __init__(self, count: int) -> None:
        self._count = count

    async def find(self, request: Any, query: Any, agent: Any) -> tuple[list[dict[str, Any]], bool]:
        found = [{"id": str(n), "similarity_score": 1 - n / 100} for n in range(self._count)]
        return found[: query.limit], True


@pytest.mark.parametrize(
    ("meant", "said", "top_k", "expected"),
    [(10, 10, 10, (5, 5)), (10, 2, 10, (8, 2)), (2, 10, 10, (2, 8)), (0, 3, 10, (0, 3)),
     (3, 0, 10, (3, 0)), (1, 1, 1, (1, 0)), (0, 1, 1, (0, 1)), (2, 2, 3, (2, 1))],
)  # fmt: skip
def test_both_kinds_have_room_among_the_best(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    meant: int,
    said: int,
    top_k: int,
    expected: tuple[int, int],
) -> None:
    monkeypatch.setattr(semantic, "find", Found(meant).find)
    with InProcess(tmp_path / "data") as server, httpx.Client(base_url=server.url) as http:
        for n in range(said):
            episode = {"agent_id": "a", "session_id": "s", "type": "action", "content": f"word {n}"}
            data(http.post("/v1/memory/episodic", json=episode), 201)
        answer = data(http.post("/v1/memory/search", json={"query": "word", "top_k": top_k}))
        kinds = [hit["memory_type"] for hit in answer["results"]]
        assert kinds == ["semantic"] * expected[0] + ["episodic"] * expected[1]
        assert answer["count"] == len(kinds)


def fill(http: httpx.Client, agent: str) -> None:
    for n in range(3):
        data(
            http.post("/v1/state", json={"agent_id": agent, "session_id": f"{n}", "data": {}}), 201
        )
    batch = [
        {"agent_id": agent, "session_id": "s", "type": "action", "content": f"{n}"}
        for n in range(7)
    ]
    data(http.post("/v1/memory/episodic/batch", json={"items": batch}), 201)
    for n in range(2):
        http.put(f"/memory/{agent}/key-{n}", json={"value": "v"}).raise_for_status()


def test_a_purge_counts_exactly_and_leaves_nothing(tmp_path: Path) -> None:
    with InProcess(tmp_path / "data") as server, httpx.Client(base_url=server.url) as http:
        fill(http, "a")
        fill(http, "b")
        purged = data(http.delete("/v1/memory/a"))
        assert purged == {
            "agent_id": "a",
            "deleted": {"state": 3, "semantic": 0, "episodic": 7, "s3_objects": 0, "entries": 2},
        }
        assert len(namespace_files(server.config.data_dir)) == 1
        assert set(data(http.delete("/v1/memory/a"))["deleted"].values()) == {0}
        assert data(http.get("/v1/memory/b"))["summary"]["episodic_count"] == 7
        # The name begins anew.
        body = {"agent_id": "a", "session_id": "0", "data": {}}
        assert data(http.post("/v1/state", json=body), 201)["version"] == 1


def test_a_purge_that_fails_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with InProcess(tmp_path / "data") as server, httpx.Client(base_url=server.url) as http:
        fill(http, "a")
        with monkeypatch.context() as patched:

            async def broken(*_: object, **__: object) -> None:
                raise Unavailable("The disk does not answer.")

            patched.setattr(DataDirectory, "purge_namespace", broken)
            fail(http.delete("/v1/memory/a"), 503, "INTERNAL_ERROR")
        assert data(http.delete("/v1/memory/a"))["deleted"]["episodic"] == 7


def test_a_damaged_agent_can_be_purged_and_is_counted(tmp_path: Path) -> None:
    with InProcess(tmp_path / "data") as server, httpx.Client(base_url=server.url) as http:
        fill(http, "a")
        data(http.get("/v1/usage"))  # notes what there is
    [file] = namespace_files(server.config.data_dir)
    file.write_bytes(b"garbage" * 1000)
    with InProcess(tmp_path / "data") as server, httpx.Client(base_url=server.url) as http:
        fail(http.get("/v1/memory/a"), 503, "NAMESPACE_DAMAGED")
        deleted = data(http.delete("/v1/memory/a"))["deleted"]
        assert (deleted["state"], deleted["episodic"], deleted["entries"]) == (3, 7, 2)
        assert data(http.get("/v1/memory/a"))["summary"]["episodic_count"] == 0


def test_states_and_episodes_are_part_of_an_archive(tmp_path: Path) -> None:
    assert {"states", "episodes"} <= set(archive.KINDS)
    fresh = template(NAMESPACE, tmp_path)
    paths = [tmp_path / "from.db", tmp_path / "to.db"]
    for path in paths:
        write_new(path, fresh)
    source, target = map(connect, paths)
    for session in ("s", "t"):
        states.put(source, session, b'{"n":1}', ttl=1000)
        states.update(source, session, b'{"n":2}', version=1)
        for n in range(3):
            words = f"parcel {n}"
            episodes.append(source, session, "action", b'{"x":"parcel"}', b"{}", words)
    for kind in (states, episodes):
        kind.load(target, [orjson.loads(orjson.dumps(record)) for record in kind.dump(source)])
    assert states.get(target, "s") == states.get(source, "s")
    assert list(episodes.listing(target)) == list(episodes.listing(source))
    assert len(episodes.search(target, "parcels", limit=10)) == 6
    assert totals(target) == totals(source)
    assert totals(target).sessions == 2
    source.close()
    target.close()


def test_sessions_are_counted_once(tmp_path: Path) -> None:
    path = tmp_path / "one.db"
    write_new(path, template(NAMESPACE, tmp_path))
    connection = connect(path)

    def sessions() -> int:
        return totals(connection).sessions

    states.put(connection, "s", b"{}")
    states.put(connection, "s", b"{}")
    assert sessions() == 1
    episodes.append(connection, "s", "action", b'"x"', b"{}", "x")
    episodes.append(connection, "t", "action", b'"x"', b"{}", "x")
    episodes.append(connection, "t", "action", b'"x"', b"{}", "x")
    assert sessions() == 2
    states.put(connection, "u", b"{}")
    assert sessions() == 3
    states.delete(connection, "s")  # its episodes stay
    assert sessions() == 3
    states.delete(connection, "u")
    assert sessions() == 2
    connection.close()
