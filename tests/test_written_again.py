"""What is stored and answered grows no faster than what was sent, whatever is written again.

Every operation that takes a body is found in the OpenAPI document and sent again and again, each
time with other keys in all its free objects: whatever is merged, appended or kept as history grows
then. A new operation, or a new free object in an old one, is tried with the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import orjson
import pytest
from serving import InProcess

from botwire_server.store import merging

# Requests after which it is looked at.
LOOKS = (32, 64, 128)
VALUE = "x" * 4_000
ITEMS = 8
# What is sent twice as often may store and answer so many times as much; quadratic is four times.
DOUBLING = 2.6
# A sum of less than this says nothing.
SOMETHING = 200_000
CHECKPOINT = {"id": "1ef00001-0000-6000-8000-000000000000"}

Schema = dict[str, Any]


class Written(NamedTuple):
    """An operation with the schema of its body and an example of it."""

    method: str
    path: str
    schema: Schema
    example: dict[str, Any]


def operations(document: Schema) -> Iterator[Written]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if "requestBody" in operation and not path.startswith("/admin/"):
                content = operation["requestBody"]["content"]["application/json"]
                for schema in content["schema"].get("anyOf", [content["schema"]]):
                    yield Written(method, path, schema, content["example"])


def is_free(schema: Schema) -> bool:
    """Whether this is an object in which anything may stand, or any JSON at all."""
    kinds = schema.get("type", ["object"])
    return "object" in ([kinds] if isinstance(kinds, str) else kinds) and "properties" not in schema


def body_of(written: Written, number: int, shape: str) -> dict[str, Any]:
    """A body whose free objects have keys that none before had."""
    body = copy.deepcopy(written.example)
    properties = written.schema.get("properties", {})
    for name, schema in properties.items():
        if is_free(schema):
            body[name] = free(number, shape)
    if "version" in properties:
        body["version"] = 1_000_000  # stale
    if "session_id" in properties:
        body["session_id"] = "s"
    if "type" in properties:
        body |= {"type": "action"}
    if "items" in properties:
        [item] = written.example["items"]
        of = Written(written.method, written.path, properties["items"]["items"], item)
        body["items"] = [body_of(of, number * ITEMS + part, shape) for part in range(ITEMS)]
    return body


def free(number: int, shape: str) -> dict[str, Any]:
    if shape == "keys":
        return {f"key-{number}": VALUE}
    if shape == "nested":
        return {"deep": {"er": {f"key-{number}": VALUE}}, "n": number}
    return {"checkpoint": CHECKPOINT, "pending_writes": {f"task-{number}": [["c", VALUE]]}}


def grown(client: httpx.Client, written: Written, shape: str) -> tuple[list[int], ...]:
    """What was sent, stored and answered at each look."""
    path = written.path
    for name in ("agent_id", "namespace", "key"):
        path = path.replace(f"{{{name}}}", "a").replace(f"{{{name}:path}}", "a")
    first = {"agent_id": "a", "session_id": "s", "data": free(-1, shape)}
    assert client.post("/v1/state", json=first).is_success
    said = {"agent_id": "a", "session_id": "s", "type": "action", "content": "It is said."}
    assert client.post("/v1/memory/episodic", json=said).is_success
    sent = answered = 0
    looks: tuple[list[int], ...] = ([], [], [])
    accepted = 0
    for number in range(LOOKS[-1]):
        body = orjson.dumps(body_of(written, number, shape))
        answer = client.request(
            written.method, path, content=body, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code < 500, answer.text
        accepted += answer.is_success
        sent += len(body)
        answered += len(answer.content)
        if number + 1 in LOOKS:
            used = client.get("/v1/usage").json()["data"]["storage"]["total_bytes"]
            for look, value in zip(looks, (sent, used, answered), strict=True):
                look.append(value)
    assert accepted or shape != "keys" or "version" in written.schema["properties"], written
    return looks


def require_growth(written: Written, shape: str, what: str, looks: list[int]) -> None:
    first, second, third = looks
    if third - second > SOMETHING:
        said = f"{written.method} {written.path} ({shape}): {what} {looks}"
        assert third - second <= DOUBLING * max(second - first, SOMETHING / 2), said


def every_operation(tmp_path: Any) -> None:
    with (
        InProcess(tmp_path / "data", embedder="none") as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        found = list(operations(client.get("/openapi.json").json()))
        assert len(found) > 8
        for number, written in enumerate(found):
            for shape in ("keys", "nested", "checkpoint"):
                client.headers["X-API-Key"] = f"{number}-{shape}"  # a tenant of its own
                _, stored, answered = grown(client, written, shape)
                require_growth(written, shape, "stored", stored)
                require_growth(written, shape, "answered", answered)


def test_nothing_grows_faster_than_what_is_sent(tmp_path):
    every_operation(tmp_path)


def test_the_fault_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(merging, "METADATA_BYTES", 10**9)
    monkeypatch.setattr(merging, "METADATA_KEYS", 10**9)
    monkeypatch.setattr(merging, "HISTORY_BYTES", 10**12)
    with pytest.raises(AssertionError, match="semantic"):
        every_operation(tmp_path)
