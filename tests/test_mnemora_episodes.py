"""Episodes: order, bounds, filters, replay, batches, and finding them by keyword."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mnemora_server import data, fail
from serving import FakeClock, InProcess

START = "2026-09-21T14:13:20"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def timed(tmp_path: Path, clock: FakeClock) -> Iterator[httpx.Client]:
    """A client of a server that goes by `clock`."""
    with (
        InProcess(tmp_path / "data", clock=clock) as server,
        httpx.Client(base_url=server.url) as http,
    ):
        yield http


def episode(content: Any, **more: Any) -> dict[str, Any]:
    return {"agent_id": "a", "session_id": "s", "type": "action", "content": content, **more}


def append(http: httpx.Client, content: Any, **more: Any) -> dict[str, Any]:
    return data(http.post("/v1/memory/episodic", json=episode(content, **more)), 201)


def contents(http: httpx.Client, path: str = "/v1/memory/episodic/a", **params: Any) -> list[Any]:
    answer = data(http.get(path, params=params))
    assert answer["count"] == len(answer["episodes"])
    return [found["content"] for found in answer["episodes"]]


def found(http: httpx.Client, query: str, **more: Any) -> list[Any]:
    answer = data(http.post("/v1/memory/search", json={"query": query, **more}))
    assert answer["count"] == len(answer["results"])
    return [hit["content"] for hit in answer["results"] if hit["memory_type"] == "episodic"]


def test_the_order_is_kept_within_one_moment(timed: httpx.Client) -> None:
    ids = [append(timed, f"step {n}")["id"] for n in range(30)]
    assert contents(timed) == [f"step {n}" for n in range(30)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 30
    overview = data(timed.get("/v1/memory/a"))["episodic"]
    assert [each["content"] for each in overview] == [f"step {n}" for n in range(20, 30)]


def test_the_order_survives_a_clock_that_is_set_back(timed: httpx.Client, clock: FakeClock) -> None:
    append(timed, "first")
    clock.advance(-3600)
    append(timed, "second")
    assert contents(timed) == ["first", "second"]


def test_bounds_are_inclusive(timed: httpx.Client, clock: FakeClock) -> None:
    stamps = []
    for n in range(4):
        stamps.append(append(timed, str(n))["timestamp"])
        clock.advance(0.123457)
    assert contents(timed, **{"from": stamps[1], "to": stamps[2]}) == ["1", "2"]
    assert contents(timed, **{"from": stamps[3]}) == ["3"]
    assert contents(timed, to=stamps[0]) == ["0"]
    assert contents(timed, **{"from": f"{START}Z"}) == ["0", "1", "2", "3"]
    assert contents(timed, **{"from": "2026-09-21T16:13:20+02:00"}) == ["0", "1", "2", "3"]
    assert contents(timed, to=f"{START}.2") == ["0", "1"]
    assert contents(timed, to="2026-09-21") == ["0", "1", "2", "3"]
    assert contents(timed, **{"from": "2026-09-22"}) == []
    # A + that was not quoted.
    [last] = data(timed.get(f"/v1/memory/episodic/a?from={stamps[3]}"))["episodes"]
    assert last["content"] == "3"


def test_filters_and_pages(timed: httpx.Client) -> None:
    for n in range(60):
        append(timed, f"{n}", type=("action", "observation")[n % 2], session_id=f"s{n % 3}")
    assert contents(timed) == [f"{n}" for n in range(50)]
    assert contents(timed, type="observation", limit=2) == ["1", "3"]
    assert contents(timed, session_id="s2", limit=2) == ["2", "5"]
    assert contents(timed, session_id="s2", type="action", limit=2) == ["2", "8"]
    page = data(timed.get("/v1/memory/episodic/a", params={"limit": 25}))
    seen = page["episodes"]
    while "cursor" in page:
        params = {"limit": 25, "cursor": page["cursor"]}
        page = data(timed.get("/v1/memory/episodic/a", params=params))
        seen += page["episodes"]
    assert [each["content"] for each in seen] == [f"{n}" for n in range(60)]


def test_a_replay_is_whole_and_of_one_agent(timed: httpx.Client) -> None:
    batch = [episode(f"{n}") for n in range(600)]
    data(timed.post("/v1/memory/episodic/batch", json={"items": batch}), 201)
    append(timed, "of another session", session_id="t")
    append(timed, "of another agent", agent_id="b")
    path = "/v1/memory/episodic/a/sessions/s"
    assert contents(timed, path) == [f"{n}" for n in range(600)]
    assert data(timed.get(path))["session_id"] == "s"
    assert contents(timed, "/v1/memory/episodic/b/sessions/s") == ["of another agent"]
    assert contents(timed, "/v1/memory/episodic/c/sessions/s") == []


def test_a_batch_answers_in_order(timed: httpx.Client) -> None:
    batch = [episode({"n": n}, metadata={"of": n}) for n in range(1000)]
    answer = data(timed.post("/v1/memory/episodic/batch", json={"items": batch}), 201)
    assert answer["count"] == 1000
    assert [item["content"]["n"] for item in answer["items"]] == list(range(1000))
    assert [item["metadata"]["of"] for item in answer["items"]] == list(range(1000))


def test_a_bad_item_spoils_the_whole_batch(timed: httpx.Client) -> None:
    batch = [episode("good"), episode("bad", type="dance"), episode("good")]
    answer = timed.post("/v1/memory/episodic/batch", json={"items": batch})
    assert "items[1]" in fail(answer, 400, "VALIDATION_ERROR")
    assert contents(timed) == []


def test_content_comes_back_as_it_was(timed: httpx.Client) -> None:
    for content in ("", " text\n", "😀", {}, {"a": [1, None, {"b": 1.5}], "ü": "é"}):
        assert append(timed, content)["content"] == content
    assert contents(timed) == ["", " text\n", "😀", {}, {"a": [1, None, {"b": 1.5}], "ü": "é"}]


def test_search_finds_words_newest_first(timed: httpx.Client, clock: FakeClock) -> None:
    for content in ("A refund was asked for", "It rained", {"tool": "refunds", "order": 1043}):
        append(timed, content)
        clock.advance(1)
    assert found(timed, "refund") == [{"tool": "refunds", "order": 1043}, "A refund was asked for"]
    assert found(timed, "1043") == [{"tool": "refunds", "order": 1043}]
    assert found(timed, "REFUND", top_k=1) == [{"tool": "refunds", "order": 1043}]
    assert found(timed, "snow") == []
    # All the words where an episode has them all, else some of them.
    assert found(timed, "refund asked") == ["A refund was asked for"]
    assert found(timed, "did it rain or snow?") == ["It rained"]


def test_search_covers_the_tenants_agents(timed: httpx.Client, clock: FakeClock) -> None:
    for number in range(20):
        append(timed, f"parcel {number}", agent_id=f"agent-{number}")
        clock.advance(1)
    assert found(timed, "parcel", top_k=5) == [f"parcel {n}" for n in (19, 18, 17, 16, 15)]
    assert found(timed, "parcel", agent_id="agent-3") == ["parcel 3"]
    assert found(timed, "parcel", agent_id="nobody") == []


HOSTILE = [
    '"',
    '""',
    "'",
    "a AND",
    "NOT",
    "NEAR(a b, 2)",
    "a OR OR b",
    "text:a",
    "{text}: a",
    "a*",
    "^a",
    "(a",
    "a)",
    "a + b",
    "-a",
    "*",
    "\\",
    "a;DROP TABLE episodes",
    "\x00a",
    "😀",
    "%_",
    "日本語",
    "a-b.c@d:e/f",
    "_" * 100,
    "word " * 5000,
]


@pytest.mark.parametrize("query", HOSTILE)
def test_no_text_is_query_syntax(http: httpx.Client, ns: str, query: str) -> None:
    stored = {**episode(query), "agent_id": ns}
    data(http.post("/v1/memory/episodic", json=stored), 201)
    hits = found(http, query, agent_id=ns)
    assert hits == ([query] if any(character.isalnum() for character in query) else [])
