"""/v1/memory/semantic against a real server."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from mnemora_server import data, fail, tenant_key
from serving import Server, namespace_files, query

ROUTE = "/v1/memory/semantic"

_agents = itertools.count(1)


@pytest.fixture
def agent() -> str:
    """An agent nobody else uses."""
    return f"semantic-{next(_agents)}"


@pytest.fixture
def store(http: httpx.Client, agent: str) -> Callable[..., dict[str, Any]]:
    """Stores a memory of the agent; its record."""

    def store(content: str, *, status: int = 201, **more: Any) -> dict[str, Any]:
        body = {"agent_id": agent, "content": content, **more}
        record: dict[str, Any] = data(http.post(ROUTE, json=body), status)
        return record

    return store


@pytest.fixture
def search(http: httpx.Client, agent: str) -> Callable[..., list[dict[str, Any]]]:
    """Searches the agent's memories; the results."""

    def search(text: str, **more: Any) -> list[dict[str, Any]]:
        answer = data(http.post(f"{ROUTE}/search", json={"agent_id": agent, "query": text, **more}))
        assert answer["count"] == len(answer["results"])
        results: list[dict[str, Any]] = answer["results"]
        return results

    return search


def test_a_record_has_the_contracts_fields(
    http: httpx.Client, store: Any, search: Any, agent: str
) -> None:
    record = store("Ann plays chess", metadata={"a": [1]}, namespace="games", session_id="s 1")
    assert record == {
        "id": record["id"],
        "agent_id": agent,
        "content": "Ann plays chess",
        "namespace": "games",
        "session_id": "s 1",
        "metadata": {"a": [1]},
        "similarity_score": None,
        "created_at": record["created_at"],
        "updated_at": record["created_at"],
        "deduplicated": False,
    }
    assert data(http.get(f"{ROUTE}/{record['id']}")) == record
    [hit] = search("chess")
    assert hit == {**record, "similarity_score": 1.0}


def test_the_same_again_answers_200_and_keeps_what_it_replaced(
    http: httpx.Client, store: Any
) -> None:
    first = store("The user likes dark mode", metadata={"a": 1, "b": 1})
    merged = store("the user likes dark mode!", metadata={"b": 2}, status=200)
    assert merged["id"] == first["id"]
    assert merged["deduplicated"] is True
    assert merged["metadata"] == {"a": 1, "b": 2}
    assert merged["updated_at"] > first["updated_at"] == merged["created_at"]
    past = data(http.get(f"{ROUTE}/{first['id']}/history"))
    assert past["count"] == 1
    assert past["current"]["content"] == "the user likes dark mode!"
    [replaced] = past["history"]
    assert replaced["content"] == "The user likes dark mode"
    assert replaced["metadata"] == {"a": 1, "b": 1}
    assert replaced["replaced_at"] == merged["updated_at"]


def test_facts_that_look_alike_are_two(store: Any, search: Any) -> None:
    for text in (
        "Invoice 1043 for $500 was paid by Acme on May 3",
        "Invoice 1044 for $500 was paid by Acme on May 3",
        "The user likes dark mode",
        "The user does not like dark mode",
    ):
        store(text)
    assert len(search("invoice paid by Acme", mode="keyword")) == 2
    assert len(search("dark mode", mode="keyword")) == 2


def test_a_memory_is_removed_for_good(http: httpx.Client, store: Any, search: Any) -> None:
    record = store("Ann plays chess")
    response = http.delete(f"{ROUTE}/{record['id']}")
    assert (response.status_code, response.content) == (204, b"")
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/history")):
        fail(http.request(method, f"{ROUTE}/{record['id']}{path}"), 404, "NOT_FOUND")
    assert search("chess") == []


def test_collections_filters_and_times(store: Any, search: Any) -> None:
    one = store("Ann plays chess", collection="a", metadata={"n": {"x": 1}})
    two = store("Ann plays go", namespace="b", metadata={"n": {"x": 2}})
    assert {hit["id"] for hit in search("Ann plays")} == {one["id"], two["id"]}
    for more, wanted in (
        ({"collection": "a"}, [one]),
        ({"namespace": "b"}, [two]),
        ({"metadata_filter": {"n": {"x": 2}}}, [two]),
        ({"metadata_filter": {"n": {"x": 3}}}, []),
        ({"created_after": two["created_at"]}, [two]),
        ({"created_before": one["created_at"]}, [one]),
        ({"created_after": "2999-01-01"}, []),
        ({"top_k": 1, "metadata_filter": {"n": {"x": 1}}}, [one]),
    ):
        assert [hit["id"] for hit in search("Ann plays", **more)] == [r["id"] for r in wanted], more


def test_modes_and_explanations(store: Any, search: Any) -> None:
    store("A dog barked in the yard")
    store("The parliament passed a law on taxes")
    [hit, *_] = search("hound in the yard", explain=True, threshold=0)
    assert set(hit["explanation"]) == {"vector", "keyword", "combined", "score"}
    assert hit["explanation"]["keyword"] == 1.0
    assert hit["similarity_score"] == hit["explanation"]["score"] >= hit["explanation"]["vector"]
    assert search("canine animals", mode="keyword") == []
    assert search("canine animals", mode="vector", threshold=0)[0]["content"].startswith("A dog")
    assert "explanation" not in search("yard")[0]


def test_an_answer_says_how_it_was_found(http: httpx.Client, store: Any, agent: str) -> None:
    store("Ann plays chess")
    for mode in ("hybrid", "vector", "keyword"):
        body = {"query": "chess", "agent_id": agent, "mode": mode}
        meta = http.post(f"{ROUTE}/search", json=body).json()["meta"]
        assert meta["mode"] == mode
        assert "notice" not in meta


def test_neighbours_in_a_session_come_in(store: Any, search: Any) -> None:
    store("Where did you hide the treasure?", session_id="s")
    answer = store("Beneath an oak.", session_id="s")
    store("Beneath a beech.")
    hits = search("Where is the treasure hidden?", mode="keyword", explain=True)
    assert [hit["id"] for hit in hits][1] == answer["id"]
    assert hits[1]["explanation"]["combined"] == 0 < hits[1]["similarity_score"]
    assert len(search("Where is the treasure hidden?", mode="keyword", context=0)) == 1


def test_without_an_agent_all_of_the_tenant_are_searched(
    make_server: Callable[..., Server],
) -> None:
    server = make_server()
    ours, theirs = (tenant_key(server, name) for name in ("ours", "theirs"))
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for number in range(30):
            body = {"agent_id": f"agent {number}", "content": f"Note {number} on the weather"}
            data(client.post(ROUTE, json=body, headers=_key(ours)), 201)
        body = {"agent_id": "agent 7", "content": "Quetzals live in cloud forests"}
        wanted = data(client.post(ROUTE, json=body, headers=_key(ours)), 201)
        for key, found in ((ours, wanted["id"]), (theirs, None)):
            body = {"query": "where do quetzals live", "threshold": 0.5}
            hits = data(client.post(f"{ROUTE}/search", json=body, headers=_key(key)))["results"]
            assert [hit["id"] for hit in hits[:1]] == ([found] if found else [])
        hits = data(
            client.post(
                f"{ROUTE}/search", json={"query": "note weather", "top_k": 100}, headers=_key(ours)
            )
        )["results"]
        assert {hit["agent_id"] for hit in hits} == {f"agent {number}" for number in range(30)}
        # Another tenant's id is no id.
        missing = fail(
            client.get(f"{ROUTE}/{wanted['id']}", headers=_key(theirs)), 404, "NOT_FOUND"
        )
        nothing = fail(client.get(f"{ROUTE}/no-such-id", headers=_key(theirs)), 404, "NOT_FOUND")
        fail(client.delete(f"{ROUTE}/{wanted['id']}", headers=_key(theirs)), 404, "NOT_FOUND")
        assert missing == nothing
        assert data(client.get(f"{ROUTE}/{wanted['id']}", headers=_key(ours))) == wanted


def _key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_batch_is_stored_whole_and_in_order(http: httpx.Client, agent: str, search: Any) -> None:
    contents = [f"Fact number {number} about tea" for number in range(1_000)]
    items = [{"agent_id": agent, "content": content} for content in contents]
    answer = data(http.post(f"{ROUTE}/batch", json={"items": items}), 201)
    assert [record["content"] for record in answer["items"]] == contents
    assert answer["count"] == 1_000
    again = data(http.post(f"{ROUTE}/batch", json={"items": items[:2] * 2}), 201)
    assert [record["deduplicated"] for record in again["items"]] == [True] * 4
    assert search("number 512")[0]["content"] == contents[512]


def test_a_filter_of_a_thousand_pairs(http: httpx.Client, agent: str, search: Any) -> None:
    metadata = {f"n{number}": {"x": number} for number in range(1_000)}
    record = data(
        http.post(ROUTE, json={"agent_id": agent, "content": "tea", "metadata": metadata}), 201
    )
    [hit] = search("tea", metadata_filter=metadata)
    assert hit["id"] == record["id"]
    assert search("tea", metadata_filter={**metadata, "n7": {"x": 8}}) == []


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({"content": ""}, "content"),
        ({"content": "x", "metadata": []}, "metadata"),
        ({"content": "x", "agent_id": "other"}, "agent_id"),
        ({"content": "x", "agent_id": "a#b"}, "agent_id"),
        ({"content": "x", "embedding": [0] * 256}, "embedding"),
        ({"content": "x", "session_id": ""}, "session_id"),
        ("x", "items[1]"),
    ],
)
def test_a_batch_with_a_fault_stores_nothing(
    http: httpx.Client, agent: str, search: Any, item: Any, field: str
) -> None:
    good = {"agent_id": agent, "content": "tea"}
    bad = {"agent_id": agent, **item} if isinstance(item, dict) else item
    message = fail(
        http.post(f"{ROUTE}/batch", json={"items": [good, bad]}), 400, "VALIDATION_ERROR"
    )
    assert field in message
    assert search("tea") == []


@pytest.mark.parametrize("items", [None, [], {}, [{}] * 1_001])
def test_a_batch_has_1_to_1000_items(http: httpx.Client, items: Any) -> None:
    message = fail(http.post(f"{ROUTE}/batch", json={"items": items}), 400, "VALIDATION_ERROR")
    assert "items" in message


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"content": None}, "content"),
        ({"content": " \n"}, "content"),
        ({"content": 5}, "content"),
        ({"agent_id": "a#b"}, "agent_id"),
        ({"agent_id": None}, "agent_id"),
        ({"session_id": "a#b"}, "session_id"),
        ({"session_id": 5}, "session_id"),
        ({"metadata": "x"}, "metadata"),
        ({"namespace": ""}, "namespace"),
        ({"namespace": "x" * 129}, "namespace"),
        ({"collection": 5}, "collection"),
        ({"namespace": "a", "collection": "b"}, "collection"),
        ({"embedding": []}, "embedding"),
        ({"embedding": [0.0] * 256}, "embedding"),
        ({"embedding": [1.0] * 255}, "embedding"),
        ({"embedding": ["1"] * 256}, "embedding"),
        ({"embedding": [None] * 256}, "embedding"),
        ({"embedding": "x"}, "embedding"),
    ],
)
def test_what_cannot_be_stored_is_named(
    http: httpx.Client, agent: str, search: Any, fields: dict[str, Any], field: str
) -> None:
    body = {"agent_id": agent, "content": "tea", **fields}
    assert field in fail(http.post(ROUTE, json=body), 400, "VALIDATION_ERROR")
    assert search("tea") == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(http: httpx.Client, agent: str, number: str) -> None:
    body = (
        f'{{"agent_id": "{agent}", "content": "tea", "embedding": [{", ".join([number] * 256)}]}}'
    )
    headers = {"Content-Type": "application/json"}
    response = http.post(ROUTE, content=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["code"] in ("INVALID_JSON", "VALIDATION_ERROR")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"query": ""}, "query"),
        ({"query": None}, "query"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 101}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"threshold": 1.1}, "threshold"),
        ({"threshold": "x"}, "threshold"),
        ({"context": -0.1}, "context"),
        ({"mode": "fuzzy"}, "mode"),
        ({"mode": ["hybrid"]}, "mode"),
        ({"metadata_filter": []}, "metadata_filter"),
        ({"created_after": "yesterday"}, "created_after"),
        ({"created_before": 5}, "created_before"),
        ({"explain": "yes"}, "explain"),
        ({"embedding": [1.0] * 3}, "embedding"),
        ({"agent_id": "a#b"}, "agent_id"),
        ({"namespace": ""}, "namespace"),
    ],
)
def test_what_cannot_be_asked_is_named(
    http: httpx.Client, agent: str, fields: dict[str, Any], field: str
) -> None:
    body = {"agent_id": agent, "query": "tea", **fields}
    assert field in fail(http.post(f"{ROUTE}/search", json=body), 400, "VALIDATION_ERROR")


def test_searching_makes_no_agent(make_server: Callable[..., Server]) -> None:
    server = make_server()
    with httpx.Client(base_url=server.url) as client:
        body = {"agent_id": "nobody", "query": "tea"}
        assert data(client.post(f"{ROUTE}/search", json=body))["results"] == []
        assert data(client.post(f"{ROUTE}/search", json={"query": "tea"}))["results"] == []
    assert namespace_files(server.data) == []


def test_a_request_may_bring_its_own_vector(store: Any, search: Any) -> None:
    one, two = [1.0] + [0.0] * 255, [0.0] * 255 + [2.0]
    store("first", embedding=one)
    wanted = store("second", embedding=two)
    [hit, *_] = search("?", embedding=two, mode="vector", threshold=0.9)
    assert (hit["id"], hit["similarity_score"]) == (wanted["id"], pytest.approx(1.0))


def test_a_long_text_is_one_memory(http: httpx.Client, store: Any, search: Any, agent: str) -> None:
    filler = "The weather in the valley was fair and the harvest was good. " * 200
    record = store(f"{filler} The treasure is buried under the old fig tree. {filler}")
    hits = search("Where is the treasure buried?")
    assert [hit["id"] for hit in hits] == [record["id"]]
    assert http.delete(f"{ROUTE}/{record['id']}").status_code == 204
    assert search("treasure") == []


def test_what_is_stored_survives_a_kill(make_server: Callable[..., Server]) -> None:
    server = make_server()
    with httpx.Client(base_url=server.url) as client:
        stored = [
            data(client.post(ROUTE, json={"agent_id": "a", "content": f"Fact {n}"}), 201)
            for n in range(20)
        ]
    server.kill()
    server.start()
    with httpx.Client(base_url=server.url) as client:
        for record in stored:
            assert data(client.get(f"{ROUTE}/{record['id']}")) == record
    server.stop()
    [file] = namespace_files(server.data)
    assert query(file, "SELECT memories, vectors FROM totals") == [(20, 20)]
    for table in ("memories", "vectors", "memory_text_docsize", "memory_bits_rowids"):
        assert query(file, f"SELECT count(*) FROM {table}") == [(20,)]


def test_the_first_call_does_not_wait_for_the_model(make_server: Callable[..., Server]) -> None:
    server = make_server()
    with httpx.Client(base_url=server.url) as client:
        response = client.post(ROUTE, json={"agent_id": "a", "content": "first of all"})
    data(response, 201)
    # Generous: other work shares the machine. Quiet, it is well under a second.
    assert response.elapsed.total_seconds() < 5
