"""What this server adds to the hosted contract: paging, any JSON value, conditions, purging."""

from __future__ import annotations

import threading

import httpx
import pytest
from serving import namespace_files


@pytest.mark.parametrize(
    "value",
    [42, -1.5, True, False, None, "text", [], {}, [1, "2", None], {"a": {"b": [True]}}, 0, ""],
    ids=repr,
)
def test_any_json_value_keeps_its_type(http, ns, value):
    stored = http.put(f"/memory/{ns}/k", json={"value": value})
    assert stored.status_code == 200
    back = http.get(f"/memory/{ns}/k").json()["value"]
    assert (type(back), back) == (type(value), value)


def test_bytes_are_those_of_the_json_or_of_the_string_itself(http, ns):
    def size(value):
        return http.put(f"/memory/{ns}/k", json={"value": value}).json()["bytes"]

    assert size("é") == 2
    assert size({"é": 1}) == 8
    assert size(None) == 4


def test_pages_follow_each_other_and_nothing_is_missed(http, ns):
    for number in range(25):
        http.put(f"/memory/{ns}/k{number:02}", json={"value": "v"})
    pages, cursor = [], {}
    while True:
        body = http.get(f"/memory/{ns}", params={"limit": 10, **cursor}).json()
        assert body["count"] == len(body["keys"]) == len(body["entries"])
        pages.append(body["keys"])
        if len(pages) == 1:  # what is written meanwhile is newer than every page to come
            http.put(f"/memory/{ns}/new", json={"value": "v"})
        if "cursor" not in body:
            break
        cursor = {"cursor": body["cursor"]}
    assert [len(page) for page in pages] == [10, 10, 5]
    assert [key for page in pages for key in page] == [
        f"k{number:02}" for number in range(24, -1, -1)
    ]


def test_the_last_full_page_is_followed_by_nothing(http, ns):
    for number in range(4):
        http.put(f"/memory/{ns}/k{number}", json={"value": "v"})
    body = http.get(f"/memory/{ns}?limit=4").json()
    if "cursor" in body:
        after = http.get(f"/memory/{ns}?limit=4&cursor={body['cursor']}").json()
        assert (after["keys"], "cursor" in after) == ([], False)


@pytest.mark.parametrize(
    ("prefix", "keys"),
    [
        ("chat-", ["chat-2", "chat-1"]),
        ("chat", ["chat", "chat-2", "chat-1"]),
        ("Chat", []),
        ("é", ["é/1"]),
        ("%", ["%"]),
        ("_", ["_x"]),
        ("\U0010ffff", ["\U0010ffff!"]),
        ("\ud7ff", ["\ud7ffx"]),
        ("", ["\ud7ffx", "\U0010ffff!", "_x", "%", "é/1", "other", "chat", "chat-2", "chat-1"]),
    ],
)
def test_prefix(http, ns, prefix, keys):
    for key in ["chat-1", "chat-2", "chat", "other", "é/1", "%25", "_x", "\U0010ffff!", "\ud7ffx"]:
        http.put(f"/memory/{ns}/{key}", json={"value": "v"})
    assert http.get(f"/memory/{ns}", params={"prefix": prefix}).json()["keys"] == keys
    pages = http.get(f"/memory/{ns}", params={"prefix": prefix, "limit": 1}).json()
    assert pages["keys"] == keys[:1]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=10001", "limit=x", "limit=-1", "limit=1&limit=2", "cursor=5", "cursor=r",
     "cursor=r-1", "cursor=", "prefix=%ff"],
)  # fmt: skip
def test_a_query_that_makes_no_sense_is_400(http, ns, query):
    assert http.get(f"/memory/{ns}?{query}").status_code == 400


def test_an_etag_changes_with_every_write_and_only_then(http, ns):
    path = f"/memory/{ns}/k"
    first = http.put(path, json={"value": "v"}).headers["etag"]
    assert http.get(path).headers["etag"] == http.get(path).headers["etag"] == first
    second = http.put(path, json={"value": "v"}).headers["etag"]
    assert second != first
    http.delete(path)
    assert http.put(path, json={"value": "v"}).headers["etag"] not in (first, second)


def test_get_with_if_none_match(http, ns):
    path = f"/memory/{ns}/k"
    etag = http.put(path, json={"value": "v"}).headers["etag"]
    for header in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = http.get(path, headers={"If-None-Match": header})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
    assert http.get(path, headers={"If-None-Match": '"x"'}).status_code == 200


def test_put_with_conditions(http, ns):
    path = f"/memory/{ns}/k"

    def put(value: str, **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return http.put(path, json={"value": value}, headers=named)

    assert put("v", If_Match="*").status_code == 412
    assert put("v", If_Match='"x"').status_code == 412
    assert http.get(path).status_code == 404
    created = put("one", If_None_Match="*")
    assert created.status_code == 200
    refused = put("two", If_None_Match="*")
    assert refused.status_code == 412
    assert set(refused.json()) == {"detail"}
    changed = put("two", If_Match=created.headers["etag"])
    assert changed.status_code == 200
    assert put("three", If_Match=created.headers["etag"]).status_code == 412
    assert put("three", If_Match="W/" + changed.headers["etag"]).status_code == 412
    assert put("three", If_Match=f'"x", {changed.headers["etag"]}').status_code == 200
    assert http.get(path).json()["value"] == "three"


def test_delete_with_conditions(http, ns):
    path = f"/memory/{ns}/k"
    old = http.put(path, json={"value": "one"}).headers["etag"]
    new = http.put(path, json={"value": "two"}).headers["etag"]
    assert http.delete(path, headers={"If-Match": old}).status_code == 412
    assert http.delete(path, headers={"If-None-Match": "*"}).status_code == 412
    assert http.get(path).json()["value"] == "two"
    assert http.delete(path, headers={"If-Match": new}).status_code == 200
    assert http.delete(path, headers={"If-Match": new}).status_code == 412


def test_of_two_racing_writers_exactly_one_wins(server, http, ns):
    path = f"/memory/{ns}/k"
    etag = http.put(path, json={"value": "0"}).headers["etag"]
    turns = 30
    ready, answered = (threading.Barrier(3, timeout=30) for _ in range(2))
    answers: dict[str, httpx.Response] = {}

    def race(who: str) -> None:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            client.get("/health")
            for turn in range(turns):
                ready.wait()
                answers[who] = client.put(
                    path, json={"value": f"{turn}-{who}"}, headers={"If-Match": etag}
                )
                answered.wait()

    threads = [threading.Thread(target=race, args=(who,), daemon=True) for who in "ab"]
    for thread in threads:
        thread.start()
    for turn in range(turns):
        ready.wait()
        answered.wait()
        statuses = {who: answer.status_code for who, answer in answers.items()}
        assert sorted(statuses.values()) == [200, 412]
        [winner] = [who for who, status in statuses.items() if status == 200]
        assert http.get(path).json()["value"] == f"{turn}-{winner}"
        etag = answers[winner].headers["etag"]
    for thread in threads:
        thread.join()


def test_a_counter_kept_with_conditions_loses_no_step(server, ns):
    path = f"/memory/{ns}/counter"

    def count() -> None:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for _ in range(10):
                while True:
                    seen = client.get(path)
                    if seen.status_code == 404:
                        value, condition = 0, {"If-None-Match": "*"}
                    else:
                        value, condition = seen.json()["value"], {"If-Match": seen.headers["etag"]}
                    done = client.put(path, json={"value": value + 1}, headers=condition)
                    if done.status_code == 200:
                        break

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert httpx.get(server.url + path).json()["value"] == 40


def test_deleting_a_namespace_needs_its_name_twice(make_server):
    server = make_server()
    with httpx.Client(base_url=server.url) as client:
        for key in ("a", "b"):
            client.put(f"/memory/going/{key}", json={"value": "12345"})
        client.put("/memory/staying/k", json={"value": "v"})
        for query in ("", "?confirm=", "?confirm=Going", "?confirm=going%20", "?confirm=staying"):
            refused = client.delete(f"/memory/going{query}")
            assert refused.status_code == 405, query
            assert set(refused.json()) == {"detail"}
        assert client.delete("/memory/going?confirm=going&force=1").status_code == 400
        assert client.get("/memory/going").json()["count"] == 2

        answer = client.delete("/memory/going?confirm=going")
        assert answer.status_code == 200
        body = answer.json()
        assert (body["deleted"], body["namespace"]) == (True, "going")
        assert (body["entries"], body["bytes"]) == (2, 10)
        assert [file.name.rsplit("-", 1)[0] for file in namespace_files(server.data)] == ["staying"]
        assert client.get("/memory/going").json()["keys"] == []
        assert client.delete("/memory/going?confirm=going").status_code == 404
        client.put("/memory/going/c", json={"value": "v"})
        assert client.get("/memory/going").json()["keys"] == ["c"]
        assert client.get("/memory/staying/k").status_code == 200
