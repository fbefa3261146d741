"""What is refused on /v1: the status, the envelope, the field that is named, nothing stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from mnemora_server import data, fail, needs_semantic
from serving import InProcess, Server

from botwire_server.store import states

EPISODE = {"agent_id": "a", "session_id": "s", "type": "action", "content": "x"}
STATE = {"agent_id": "a", "data": {}}
MEMORY = {"agent_id": "a", "content": "x"}

# method, path, body or what replaces a field of a good one, the field that is named
BAD: list[tuple[str, str, dict[str, Any], str]] = [
    ("POST", "/v1/state", {"data": {}}, "agent_id"),
    ("POST", "/v1/state", {**STATE, "agent_id": ""}, "agent_id"),
    ("POST", "/v1/state", {**STATE, "agent_id": 7}, "agent_id"),
    ("POST", "/v1/state", {**STATE, "agent_id": None}, "agent_id"),
    ("POST", "/v1/state", {**STATE, "agent_id": "a#b"}, "agent_id"),
    ("POST", "/v1/state", {**STATE, "agent_id": "a\x00b"}, "agent_id"),
    ("POST", "/v1/state", {**STATE, "agent_id": "a\nb"}, "agent_id"),
    ("POST", "/v1/state", {**STATE, "agent_id": "a" * 257}, "agent_id"),
    ("POST", "/v1/state", {**STATE, "session_id": "s#"}, "session_id"),
    ("POST", "/v1/state", {**STATE, "session_id": ""}, "session_id"),
    ("POST", "/v1/state", {**STATE, "session_id": 3}, "session_id"),
    ("POST", "/v1/state", {"agent_id": "a"}, "data"),
    ("POST", "/v1/state", {**STATE, "data": [1]}, "data"),
    ("POST", "/v1/state", {**STATE, "data": "text"}, "data"),
    ("POST", "/v1/state", {**STATE, "ttl_hours": 0}, "ttl_hours"),
    ("POST", "/v1/state", {**STATE, "ttl_hours": 8761}, "ttl_hours"),
    ("POST", "/v1/state", {**STATE, "ttl_hours": "2"}, "ttl_hours"),
    ("POST", "/v1/state", {**STATE, "ttl_hours": True}, "ttl_hours"),
    ("PUT", "/v1/state/a", {"data": {}}, "version"),
    ("PUT", "/v1/state/a", {"data": {}, "version": 0}, "version"),
    ("PUT", "/v1/state/a", {"data": {}, "version": 1.5}, "version"),
    ("PUT", "/v1/state/a", {"data": {}, "version": "1"}, "version"),
    ("PUT", "/v1/state/a", {"version": 1}, "data"),
    ("PUT", "/v1/state/a%23b", {"data": {}, "version": 1}, "agent_id"),
    ("PUT", "/v1/state/a?b", {"data": {}, "version": 1}, "query"),
    ("DELETE", "/v1/state/a/s%23", {}, "session_id"),
    ("DELETE", "/v1/state/a/s?x", {}, "query"),
    ("GET", "/v1/state/a?session_id=", {}, "session_id"),
    ("GET", "/v1/state/a?session_id=x&session_id=y", {}, "session_id"),
    ("POST", "/v1/memory/episodic", {**EPISODE, "agent_id": "#"}, "agent_id"),
    ("POST", "/v1/memory/episodic", {**EPISODE, "session_id": None}, "session_id"),
    ("POST", "/v1/memory/episodic", {**EPISODE, "type": "dance"}, "type"),
    ("POST", "/v1/memory/episodic", {**EPISODE, "type": ["action"]}, "type"),
    ("POST", "/v1/memory/episodic", {**EPISODE, "content": None}, "content"),
    ("POST", "/v1/memory/episodic", {**EPISODE, "content": [1]}, "content"),
    ("POST", "/v1/memory/episodic", {**EPISODE, "content": 7}, "content"),
    ("POST", "/v1/memory/episodic", {**EPISODE, "metadata": "x"}, "metadata"),
    ("POST", "/v1/memory/episodic/batch", {}, "items"),
    ("POST", "/v1/memory/episodic/batch", {"items": []}, "items"),
    ("POST", "/v1/memory/episodic/batch", {"items": [EPISODE] * 1001}, "items"),
    ("POST", "/v1/memory/episodic/batch", {"items": [EPISODE, "x"]}, "items[1]"),
    (
        "POST",
        "/v1/memory/episodic/batch",
        {"items": [EPISODE, {**EPISODE, "type": "dance"}]},
        "items[1]: type",
    ),
    (
        "POST",
        "/v1/memory/episodic/batch",
        {"items": [EPISODE, {**EPISODE, "agent_id": "b"}]},
        "agent_id",
    ),
    ("GET", "/v1/memory/episodic/a?type=dance", {}, "type"),
    ("GET", "/v1/memory/episodic/a?limit=0", {}, "limit"),
    ("GET", "/v1/memory/episodic/a?limit=501", {}, "limit"),
    ("GET", "/v1/memory/episodic/a?limit=ten", {}, "limit"),
    ("GET", "/v1/memory/episodic/a?from=yesterday", {}, "from"),
    ("GET", "/v1/memory/episodic/a?to=2026-13-01", {}, "to"),
    ("GET", "/v1/memory/episodic/a?cursor=7", {}, "cursor"),
    ("POST", "/v1/memory/episodic/a/summarize", {"num_episodes": 0}, "num_episodes"),
    ("POST", "/v1/memory/episodic/a/summarize", {"num_episodes": 501}, "num_episodes"),
    ("POST", "/v1/memory/episodic/a/summarize", {"target_length": 49}, "target_length"),
    ("POST", "/v1/memory/episodic/a/summarize", {"target_length": 5001}, "target_length"),
    ("POST", "/v1/memory", {"data": {}, "session_id": "s"}, "agent_id"),
    ("POST", "/v1/memory", {**STATE, "session_id": "s#"}, "session_id"),
    ("POST", "/v1/memory", {"agent_id": "a", "content": "x", "type": "action"}, "session_id"),
    ("POST", "/v1/memory", {**EPISODE, "type": "dance"}, "type"),
    ("POST", "/v1/memory", {"content": "x"}, "agent_id"),
    ("POST", "/v1/memory/search", {}, "query"),
    ("POST", "/v1/memory/search", {"query": "  "}, "query"),
    ("POST", "/v1/memory/search", {"query": 7}, "query"),
    ("POST", "/v1/memory/search", {"query": "x", "top_k": 0}, "top_k"),
    ("POST", "/v1/memory/search", {"query": "x", "top_k": 101}, "top_k"),
    ("POST", "/v1/memory/search", {"query": "x", "threshold": 2}, "threshold"),
    ("POST", "/v1/memory/search", {"query": "x", "agent_id": "a#"}, "agent_id"),
    ("GET", "/v1/memory/a%23", {}, "agent_id"),
    ("DELETE", "/v1/memory/a%23", {}, "agent_id"),
    ("DELETE", "/v1/memory/a?b", {}, "query"),
    ("DELETE", "/v1/memory/", {}, "agent_id"),
]

BAD_SEMANTIC: list[tuple[str, str, dict[str, Any], str]] = [
    ("POST", "/v1/memory/semantic", {**MEMORY, "agent_id": "#"}, "agent_id"),
    ("POST", "/v1/memory/semantic", {**MEMORY, "content": ""}, "content"),
    ("POST", "/v1/memory/semantic", {**MEMORY, "content": {"a": 1}}, "content"),
    ("POST", "/v1/memory/semantic", {**MEMORY, "namespace": "n" * 129}, "namespace"),
    ("POST", "/v1/memory/semantic", {**MEMORY, "metadata": [1]}, "metadata"),
    ("POST", "/v1/memory/semantic/search", {"query": "x", "top_k": 0}, "top_k"),
    ("POST", "/v1/memory/semantic/search", {"query": "x", "top_k": 101}, "top_k"),
    ("POST", "/v1/memory/semantic/search", {"query": ""}, "query"),
    ("POST", "/v1/memory/semantic/search", {"query": "x", "metadata_filter": 3}, "metadata_filter"),
]


def refuse(server: Server, method: str, path: str, body: dict[str, Any], field: str) -> None:
    with httpx.Client(base_url=server.url, headers={"Authorization": "Bearer bad"}) as http:
        response = http.request(method, path, json=body if method in ("POST", "PUT") else None)
        assert field in fail(response, 400, "VALIDATION_ERROR")
        for agent in ("a", "b"):
            seen = data(http.get(f"/v1/memory/{agent}"))
            assert seen["state"] is None
            assert seen["episodic"] == seen["semantic"] == []
        assert data(http.get("/v1/usage"))["agents_count"] == 0


@pytest.mark.parametrize(("method", "path", "body", "field"), BAD)
def test_a_bad_request_names_the_field_and_stores_nothing(
    server: Server, method: str, path: str, body: dict[str, Any], field: str
) -> None:
    refuse(server, method, path, body, field)


@needs_semantic
@pytest.mark.parametrize(("method", "path", "body", "field"), BAD_SEMANTIC)
def test_a_bad_memory_names_the_field_and_stores_nothing(
    server: Server, method: str, path: str, body: dict[str, Any], field: str
) -> None:
    refuse(server, method, path, body, field)


@pytest.mark.parametrize("body", [b"{", b"", b"[1]", b'"x"', b"null", b"\xff", b'{"a": NaN}'])
@pytest.mark.parametrize("path", ["/v1/state", "/v1/memory", "/v1/memory/episodic"])
def test_a_body_that_is_no_json_object(http: httpx.Client, path: str, body: bytes) -> None:
    response = http.post(path, content=body, headers={"Content-Type": "application/json"})
    if body in (b"", b"[1]", b'"x"', b"null"):
        code = "UNROUTABLE_PAYLOAD" if body == b"" and path == "/v1/memory" else "VALIDATION_ERROR"
    else:
        code = "INVALID_JSON"
    fail(response, 400, code)


@pytest.mark.parametrize(
    "body",
    [
        {"agent_id": "a"},
        {"agent_id": "a", "data": {"x": 1}},
        {"agent_id": "a", "session_id": "s"},
        {"agent_id": "a", "content": {"x": 1}},
        {"agent_id": "a", "type": "action"},
        {"agent_id": "a", "content": None, "data": None},
    ],
)
def test_a_shape_that_is_no_memory(http: httpx.Client, body: dict[str, Any]) -> None:
    fail(http.post("/v1/memory", json=body), 400, "UNROUTABLE_PAYLOAD")


def test_a_body_without_a_json_content_type(http: httpx.Client) -> None:
    response = http.post("/v1/state", content=b"{}", headers={"Content-Type": "text/plain"})
    fail(response, 415, "VALIDATION_ERROR")


@pytest.mark.parametrize("size", [400 * 1024 + 1, 600_000, 2_000_000])
def test_a_state_over_400_kb(http: httpx.Client, ns: str, size: int) -> None:
    http.post("/v1/state", json={"agent_id": ns, "data": {}})
    empty = len(b'{"agent_id":"","data":{"x":""},"session_id":"default","version":1}') + len(ns)
    for method, path in (("POST", "/v1/state"), ("PUT", f"/v1/state/{ns}"), ("POST", "/v1/memory")):
        body = {"agent_id": ns, "session_id": "default", "version": 1, "data": {"x": "y" * size}}
        fail(http.request(method, path, json=body), 413, "PAYLOAD_TOO_LARGE")
    stored = data(http.get(f"/v1/state/{ns}"))
    assert (stored["data"], stored["version"]) == ({}, 1)
    fits = {"agent_id": ns, "data": {"x": "y" * (400 * 1024 - empty)}}
    data(http.post("/v1/state", json=fits), 201)


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "NOT_FOUND"),
        ("GET", "/v1/", 404, "NOT_FOUND"),
        ("PATCH", "/v1/state/a", 405, "VALIDATION_ERROR"),
        ("GET", "/v1/state", 405, "VALIDATION_ERROR"),
        ("DELETE", "/v1/state/a", 405, "VALIDATION_ERROR"),
        ("POST", "/v1/usage", 405, "VALIDATION_ERROR"),
        ("PUT", "/v1/memory/search", 405, "VALIDATION_ERROR"),
        ("GET", "/v1/state/%ff", 400, "VALIDATION_ERROR"),
    ],
)
def test_paths_that_do_not_exist_answer_in_the_envelope(
    http: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    response = http.request(method, path)
    fail(response, status, code)
    assert (status == 405) == ("allow" in response.headers)


def test_a_fault_of_ours_answers_in_the_envelope(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a secret of the implementation")

    monkeypatch.setattr(states, "get", broken)
    with InProcess(tmp_path / "data") as server, httpx.Client(base_url=server.url) as http:
        message = fail(http.get("/v1/state/a"), 500, "INTERNAL_ERROR")
        assert "secret" not in message
        assert data(http.get("/v1/health"))["status"] == "ok"


def test_health_needs_no_key(http: httpx.Client) -> None:
    answer = data(http.get("/v1/health"))
    assert answer["status"] == "ok"
    assert set(answer) >= {"status", "version", "timestamp"}


def test_a_tenant_id_in_a_request_is_ignored(http: httpx.Client, ns: str) -> None:
    body = {"agent_id": ns, "data": {"n": 1}, "tenant_id": "somebody-else"}
    data(http.post("/v1/state?tenant_id=other", json=body), 201)
    assert data(http.get(f"/v1/state/{ns}?tenant_id=other"))["data"] == {"n": 1}
    assert data(http.delete(f"/v1/memory/{ns}?tenant_id=other"))["deleted"]["state"] == 1
