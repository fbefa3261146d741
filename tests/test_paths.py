"""Names in paths: what is the same, what is different, what is refused."""

from __future__ import annotations

import pytest
from serving import exchange, query, request, status_of


def put(server, path: str, value: str = "v") -> int:
    return status_of(
        exchange(server.address, request("PUT", path, b'{"value":"%s"}' % value.encode()))
    )


def get(server, path: str) -> tuple[int, bytes]:
    answer = exchange(server.address, request("GET", path))
    return status_of(answer), answer


def test_leading_slashes_are_one(server, ns):
    assert put(server, f"//memory/{ns}/k") == 200
    for path in (f"/memory/{ns}/k", f"//memory/{ns}/k", f"///memory/{ns}/k"):
        assert get(server, path)[0] == 200


def test_slashes_inside_a_key_stay(server, http, ns):
    for key in ("a/b", "a//b", "a///b", "/a", "a/"):
        assert put(server, f"/memory/{ns}/{key}", key) == 200
    assert sorted(http.get(f"/memory/{ns}").json()["keys"]) == sorted(
        ["a/b", "a//b", "a///b", "/a", "a/"]
    )
    assert get(server, f"/memory/{ns}/a//b")[1].count(b'"a//b"') == 2


def test_an_encoded_slash_in_a_key_is_a_slash(server, ns):
    assert put(server, f"/memory/{ns}/a%2Fb", "one") == 200
    assert b'"one"' in get(server, f"/memory/{ns}/a/b")[1]


@pytest.mark.parametrize(
    "path",
    ["/memory/a%2Fb/k", "/memory/a%2fb", "/memory/%2F/k", "/memory/%2F%2F", "//memory/a%2Fb/k"],
)
def test_an_encoded_slash_in_a_namespace_is_refused(server, path):
    for method in ("GET", "DELETE", "PUT"):
        body = b'{"value":"v"}' if method == "PUT" else b""
        answer = exchange(server.address, request(method, path, body))
        assert status_of(answer) in (400, 404, 405), (method, path)
    assert not {"a", "", "/"} & set(namespaces(server))


@pytest.mark.parametrize(
    "path",
    ["/memory%2Fns", "/memory%2Fns/k", "/memory%2Fns%2Fk", "/%2Fmemory/ns/k", "%2Fmemory/ns"],
)
def test_an_encoded_slash_elsewhere_is_no_fault_of_ours(server, path):
    for method in ("GET", "PUT", "DELETE"):
        body = b'{"value":"v"}' if method == "PUT" else b""
        answer = exchange(server.address, request(method, path, body))
        assert 400 <= status_of(answer) < 500, (method, path, answer)


@pytest.mark.parametrize(
    "path",
    [
        "/memory/{ns}/%ff",
        "/memory/{ns}/%c3%28",
        "/memory/%fe/k",
        "/memory/{ns}/%ed%a0%80",
        "/memory/{ns}/%c0%af",
        "/memory/{ns}/ok%80",
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_bytes_that_are_no_utf8_are_400(server, ns, method, path):
    body = b'{"value":"v"}' if method == "PUT" else b""
    answer = exchange(server.address, request(method, path.format(ns=ns), body))
    assert status_of(answer) == 400
    assert b'{"detail":"' in answer


@pytest.mark.parametrize("code", ["%00", "%0A", "%1F", "%7F", "%C2%80", "%C2%9F"])
def test_control_characters_are_400(server, ns, code):
    for path in (
        f"{ns}/a{code}b",
        f"{ns}/a{code}",
        f"{ns}/{code}a",
        f"{ns}{code}/k",
        f"{ns}{code}",
    ):
        assert put(server, f"/memory/{path}") in (400, 405)
    assert b'"keys":[]' in get(server, f"/memory/{ns}")[1]
    assert get(server, f"/memory/{ns}{code}")[0] == 400


@pytest.mark.parametrize(("length", "status"), [(1, 200), (512, 200), (513, 400)])
def test_the_length_of_a_key_is_counted_in_characters(server, ns, length, status):
    assert put(server, f"/memory/{ns}/{'k' * length}") == status
    assert put(server, f"/memory/{ns}/{'%F0%9F%99%82' * length}") == status


@pytest.mark.parametrize(("length", "status"), [(1, 200), (256, 200), (257, 400)])
def test_the_length_of_a_namespace_is_counted_in_characters(server, length, status):
    assert put(server, f"/memory/{'%C3%BC' * length}/k") == status


@pytest.mark.parametrize("extra", ["x=1", "x", "=", "confirm=ns", "%3F"])
def test_an_unexpected_query_on_a_write_is_400(server, ns, extra):
    assert put(server, f"/memory/{ns}/k", "kept") == 200
    assert put(server, f"/memory/{ns}/k?{extra}", "lost") == 400
    assert status_of(exchange(server.address, request("DELETE", f"/memory/{ns}/k?{extra}"))) == 400
    assert b'"kept"' in get(server, f"/memory/{ns}/k")[1]


def test_an_encoded_question_mark_belongs_to_the_key(server, http, ns):
    assert put(server, f"/memory/{ns}/k%3Fx=1") == 200
    assert http.get(f"/memory/{ns}").json()["keys"] == ["k?x=1"]


def test_names_that_look_like_sql_or_paths_are_just_names(server, http):
    names = ["'; DROP TABLE entries; --", "..", "../../etc/passwd", "a\\b", "file:x?mode=rw", "CON"]
    for name in names:
        quoted = "".join(f"%{byte:02X}" for byte in name.encode())
        if "/" not in name:
            assert put(server, f"/memory/{quoted}/k", "v") == 200
            assert b'"keys":["k"]' in get(server, f"/memory/{quoted}")[1]
        assert put(server, f"/memory/names/{quoted}") == 200
    assert http.get("/memory/names").json()["keys"] == names[::-1]
    files = {str(file.relative_to(server.data)) for file in server.data.rglob("*")}
    assert not any(".." in file or "passwd" in file for file in files)


def namespaces(server) -> list[str]:
    return [name for [name] in query(server.data / "control.db", "SELECT name FROM namespaces")]
