"""`--profile hosted`: code that passes here passes at the hosted service."""

from __future__ import annotations

import httpx
import pytest


def test_keys_are_objects_and_a_hundred_of_them(hosted, ns):
    for number in range(130):
        assert hosted.put(f"/memory/{ns}/k{number}", json={"value": "v"}).status_code == 200
    body = hosted.get(f"/memory/{ns}").json()
    assert set(body) == {"namespace", "count", "keys"}
    assert body["count"] == len(body["keys"]) == 100
    assert [entry["key"] for entry in body["keys"]] == [f"k{n}" for n in range(129, 29, -1)]
    assert set(body["keys"][0]) == {"key", "bytes", "updated_at"}
    assert len(hosted.get(f"/memory/{ns}?limit=1000").json()["keys"]) == 130
    assert len(hosted.get(f"/memory/{ns}?limit=3").json()["keys"]) == 3


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "1.5", ""])
def test_limit_is_1_to_1000(hosted, ns, limit):
    assert_is_list(hosted.get(f"/memory/{ns}?limit={limit}"), ["query", "limit"])


@pytest.mark.parametrize("name", ["a.b", "a b", "ü", "a:b", "n" * 65])
def test_namespaces_are_narrow(hosted, name):
    answer = hosted.put(f"/memory/{name}/k", json={"value": "v"})
    assert answer.status_code == 400
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("key", ["a/b", "a b", "ü", "user:42", "a@b", "k" * 129, "a%0A"])
def test_keys_are_narrow(hosted, ns, key):
    answer = hosted.put(f"/memory/{ns}/{key}", json={"value": "v"})
    assert answer.status_code == 400
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("key", ["a", "A-b_c.9", "k" * 128, "...x"])
def test_keys_within_the_rules(hosted, ns, key):
    assert hosted.put(f"/memory/{ns}/{key}", json={"value": "v"}).status_code == 200
    assert hosted.get(f"/memory/{ns}/{key}").json()["value"] == "v"


def test_the_longest_value(hosted, ns):
    assert hosted.put(f"/memory/{ns}/k", json={"value": "é" * 100_000}).status_code == 200
    answer = hosted.put(f"/memory/{ns}/k", json={"value": "x" * 100_001})
    assert answer.status_code == 400
    assert isinstance(answer.json()["detail"], str)


@pytest.mark.parametrize("body", [{}, {"value": 1}, {"value": None}, {"value": ["v"]}])
def test_a_body_of_the_wrong_shape_is_a_422_list(hosted, ns, body):
    assert_is_list(hosted.put(f"/memory/{ns}/k", json=body), ["body", "value"])


@pytest.mark.parametrize("body", [b"", b"{", b"[]"])
def test_a_body_that_is_no_object_is_a_422_list(hosted, ns, body):
    answer = hosted.put(
        f"/memory/{ns}/k", content=body, headers={"Content-Type": "application/json"}
    )
    assert_is_list(answer, ["body"])


def test_the_extensions_are_off(hosted, ns):
    hosted.put(f"/memory/{ns}/k", json={"value": "v", "ttl_seconds": 1})
    assert "expires_at" not in hosted.get(f"/memory/{ns}/k").json()
    answer = hosted.delete(f"/memory/{ns}?confirm={ns}")
    assert answer.status_code == 405
    stored = hosted.put(f"/memory/{ns}/k", json={"value": "w"}, headers={"If-None-Match": "*"})
    assert stored.status_code == 200


def test_a_thousand_writes_a_day(make_server):
    server = make_server("--profile", "hosted", "--durability", "relaxed")
    with httpx.Client(base_url=server.url) as client:
        statuses = [
            client.put("/memory/ns/k", json={"value": str(number)}).status_code
            for number in range(1_001)
        ]
        assert statuses == [200] * 1_000 + [429]
        assert client.get("/memory/ns/k").json()["value"] == "999"
        assert client.put("/memory/other/k", json={"value": "v"}).status_code == 200


def assert_is_list(answer, where: list[str]) -> None:
    assert answer.status_code == 422
    [detail] = answer.json()["detail"]
    assert set(detail) == {"type", "loc", "msg"}
    assert detail["loc"] == where
