"""The HTTP shapes of the BotWire contract, exactly, without any client library's help."""

from __future__ import annotations

import time

import pytest
from serving import exchange, request, status_of


def test_put_says_what_it_stored(http, ns):
    answer = http.put(f"/memory/{ns}/k", json={"value": "Grüße"})
    assert answer.status_code == 200
    assert answer.json() == {"namespace": ns, "key": "k", "stored": True, "bytes": 7}
    assert answer.headers["content-type"] == "application/json"


def test_get_has_five_fields_and_times_in_unix_seconds(http, ns):
    before = time.time()
    http.put(f"/memory/{ns}/k", json={"value": "one"})
    between = time.time()
    http.put(f"/memory/{ns}/k", json={"value": "two"})
    answer = http.get(f"/memory/{ns}/k")
    body = answer.json()
    assert answer.status_code == 200
    assert set(body) == {"namespace", "key", "value", "created_at", "updated_at"}
    assert (body["namespace"], body["key"], body["value"]) == (ns, "k", "two")
    assert isinstance(body["created_at"], float)
    assert before - 0.01 <= body["created_at"] <= between + 0.01 <= body["updated_at"] + 0.02


def test_delete_is_true_once(http, ns):
    http.put(f"/memory/{ns}/k", json={"value": "v"})
    answer = http.delete(f"/memory/{ns}/k")
    assert (answer.status_code, answer.json()) == (
        200,
        {"deleted": True, "namespace": ns, "key": "k"},
    )
    again = http.delete(f"/memory/{ns}/k")
    assert again.status_code == 404
    assert_is_detail(again)


def test_a_missing_entry_is_404(http, ns):
    http.put(f"/memory/{ns}/k", json={"value": "v"})
    for path in (f"/memory/{ns}/other", f"/memory/{ns}-other/k"):
        answer = http.get(path)
        assert answer.status_code == 404
        assert_is_detail(answer)


def test_listing_keys_with_their_details(http, ns):
    http.put(f"/memory/{ns}/a", json={"value": "12345"})
    http.put(f"/memory/{ns}/b/c", json={"value": "é"})
    body = http.get(f"/memory/{ns}").json()
    assert set(body) == {"namespace", "count", "keys", "entries"}
    assert (body["namespace"], body["count"], body["keys"]) == (ns, 2, ["b/c", "a"])
    updated_at = http.get(f"/memory/{ns}/a").json()["updated_at"]
    assert body["entries"][1] == {"key": "a", "bytes": 5, "updated_at": updated_at}
    assert (body["entries"][0]["key"], body["entries"][0]["bytes"]) == ("b/c", 2)


def test_reading_what_was_never_written_creates_nothing(make_server):
    server = make_server()
    for method, path, status in [
        ("GET", "/memory/never", 200),
        ("GET", "/memory/never/k", 404),
        ("DELETE", "/memory/never/k", 404),
        ("DELETE", "/memory/never?confirm=never", 404),
    ]:
        answer = exchange(server.address, request(method, path))
        assert status_of(answer) == status, (method, path)
    empty = exchange(server.address, request("GET", "/memory/never"))
    assert empty.endswith(b'{"namespace":"never","count":0,"keys":[],"entries":[]}')
    assert not (server.data / "tenants").exists()
    stats = exchange(server.address, request("GET", "/stats/memory"))
    assert stats.endswith(b'{"total_entries":0,"total_namespaces":0,"total_bytes":0}')


def test_stats_count_entries_namespaces_and_bytes(make_server):
    server = make_server()
    for path, value in [("a/k", b'"12345"'), ("a/l", b'"1"'), ("b/k", b'"123"')]:
        exchange(server.address, request("PUT", f"/memory/{path}", b'{"value":%s}' % value))
    exchange(server.address, request("DELETE", "/memory/a/l"))
    stats = exchange(server.address, request("GET", "/stats/memory"))
    assert stats.endswith(b'{"total_entries":2,"total_namespaces":2,"total_bytes":8}')


def test_health(http):
    answer = http.get("/health")
    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/memory/{ns}", "DELETE, GET"),
        ("POST", "/memory/{ns}", "DELETE, GET"),
        ("POST", "/memory/{ns}/k", "DELETE, GET, PUT"),
        ("PATCH", "/memory/{ns}/k", "DELETE, GET, PUT"),
        ("OPTIONS", "/memory/{ns}/k", "DELETE, GET, PUT"),
        ("PUT", "/health", "GET"),
        ("DELETE", "/stats/memory", "GET"),
        ("DELETE", "/memory/{ns}", "GET"),
    ],
)
def test_405_names_the_methods_that_exist(http, ns, method, path, allowed):
    answer = http.request(method, path.format(ns=ns))
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    assert_is_detail(answer)


@pytest.mark.parametrize(
    "path",
    ["/", "/memory", "/memory/", "/memory//k", "/nothing", "/identity/register", "/MEMORY/a/k"],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
def test_404_has_the_shape_of_the_dialect(http, method, path):
    answer = http.request(method, path)
    assert answer.status_code in (404, 405)
    assert_is_detail(answer)


def test_nothing_is_redirected(server):
    for path in ("/health/", "/memory", "/memory/", "/memory/ns/", "/stats/memory/", "//", "/v1"):
        for method in ("GET", "PUT", "DELETE"):
            answer = exchange(server.address, request(method, path))
            assert 400 <= status_of(answer) < 500, (method, path)


def test_a_slash_at_the_end_is_no_namespace(http, ns):
    """It asks for the empty key, so it must not list, empty or remove a namespace."""
    http.put(f"/memory/{ns}/k", json={"value": "v"})
    for method in ("GET", "PUT", "DELETE"):
        answer = http.request(method, f"/memory/{ns}/")
        assert answer.status_code == 400, method
        assert_is_detail(answer)
    assert http.get(f"/memory/{ns}").json()["keys"] == ["k"]


def test_head_is_get_without_a_body(server, http, ns):
    http.put(f"/memory/{ns}/k", json={"value": "v"})
    got = http.get(f"/memory/{ns}/k")
    head = exchange(server.address, request("HEAD", f"/memory/{ns}/k"))
    assert status_of(head) == 200
    assert head.endswith(b"\r\n\r\n")
    assert f"content-length: {len(got.content)}".encode() in head
    assert status_of(exchange(server.address, request("HEAD", f"/memory/{ns}/no"))) == 404


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "JSON"),
        (b"{", "JSON"),
        (b"not json", "JSON"),
        (b'{"value": "a" "b"}', "JSON"),
        (b"[]", "object"),
        (b'"text"', "object"),
        (b"null", "object"),
        (b"{}", "value"),
        (b'{"val": "v"}', "value"),
    ],
)
def test_a_body_of_the_wrong_shape_is_400(http, ns, body, what):
    answer = http.put(f"/memory/{ns}/k", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert what in answer.json()["detail"]
    assert_is_detail(answer)
    assert http.get(f"/memory/{ns}/k").status_code == 404


def test_every_answer_carries_its_request_id(http, ns):
    ids = [
        http.request(method, path).headers["x-request-id"]
        for method, path in [
            ("GET", "/health"),
            ("GET", f"/memory/{ns}/no"),
            ("GET", "/nothing"),
            ("POST", f"/memory/{ns}"),
        ]
    ]
    assert len(set(ids)) == 4


def assert_is_detail(answer) -> None:
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json()) == {"detail"}
    assert isinstance(answer.json()["detail"], str)
    assert answer.json()["detail"].endswith(".")
