"""The hostile corpus against every route of a running server.

Every case is one or more requests of which none may be answered with 5xx or with what stands in a
file outside; a value that is accepted must read back as it was sent. Routes, their bodies and
their parameters are taken from the server's own document, so that a new route is asked too.
"""

from __future__ import annotations

import http.client
import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote

from fuzzing.inputs import BODIES, PIECES, QUERIES, RAW_VALUES, VALUES, texts

Case = Callable[[], object]


class Raw(http.client.HTTPConnection):
    """A connection that sends any path."""

    def _validate_path(self, url: str) -> None:
        pass

    def _encode_request(self, request: str) -> bytes:
        return request.encode("latin-1")


@dataclass
class Target:
    """A server with its keys; it notes what is wrong with its answers."""

    port: int
    key: str
    operator: str
    secret: bytes
    problems: list[str] = field(default_factory=list)
    requests: int = 0
    accepted: int = 0
    read_back: int = 0

    def __post_init__(self) -> None:
        self._connection = Raw("127.0.0.1", self.port, timeout=60)

    def ask(
        self, method: str, path: str | bytes, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """One request; status 0 where no answer came, which is a problem as 5xx is."""
        shown = path if isinstance(path, str) else path.decode("latin-1")
        key = self.operator if shown.startswith(("/admin", "/metrics")) else self.key
        sent = {"Authorization": f"Bearer {key}"}
        if body is not None:
            sent["Content-Type"] = "application/json"
        self.requests += 1
        try:
            self._connection.request(method, shown, body=body, headers=sent | headers)
            response = self._connection.getresponse()
            status, answer = response.status, response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            # A body over the limit is answered before it is sent whole.
            if not isinstance(error, (BrokenPipeError, ConnectionResetError)) or not body:
                self.blame(method, shown, body, f"no answer ({type(error).__name__})")
            return 0, b""
        if status >= 500:
            self.blame(method, shown, body, f"answers {status}")
        if self.secret in answer:
            self.blame(method, shown, body, "tells what stands in a file outside")
        return status, answer

    def blame(self, method: str, path: str, body: bytes | None, what: str) -> None:
        """Note a problem."""
        given = "" if body is None else f" with {body[:80]!r}"
        self.problems.append(f"{method} {path[:120]!r}{given}: {what}")

    def data(self, method: str, path: str, body: Any = None) -> Any:
        """A /v1 request's data, None where it was refused."""
        raw = None if body is None else body if isinstance(body, bytes) else dump(body)
        status, answer = self.ask(method, path, raw)
        return json.loads(answer)["data"] if 200 <= status < 300 and answer else None

    def same(self, found: Any, sent: Any, what: str) -> None:
        """Note a problem unless both are the same JSON, types included."""
        self.read_back += 1
        if canonical(found) != canonical(sent):
            self.problems.append(f"{what}: {short(sent)} reads back as {short(found)}")


def dump(value: Any) -> bytes:
    """JSON as clients write it."""
    return json.dumps(value).encode()


def canonical(value: Any) -> str:
    """A text that differs where two JSON values do, -0.0 and 0 and 0.0 among them."""
    return json.dumps(value, sort_keys=True)


def short(value: Any) -> str:
    """Something to show of it."""
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "..."


def storing(target: Target, outside: str, *, hosted: bool) -> Iterator[Case]:
    """What stores a value or under a name, and reads it back; a text is tried as both."""
    names = texts(outside)
    for number, value in enumerate([*names, *VALUES]):
        yield partial(entry_value, target, f"k{number}", dump(value), value)
    for number, text in enumerate(RAW_VALUES):
        yield partial(entry_value, target, f"raw{number}", text.encode(), ...)
    for name in names:
        yield partial(entry_name, target, "names", name)
        yield partial(entry_name, target, name, "k")
    if not hosted:
        yield from mnemora_cases(target, names)


def entry_value(target: Target, key: str, text: bytes, value: Any) -> None:
    """Store a value under a key and read it."""
    path = f"/memory/values/{key}"
    status, _ = target.ask("PUT", path, b'{"value":' + text + b"}")
    if status == 200:
        target.accepted += 1
        status, answer = target.ask("GET", path)
        sent = json.loads(text) if value is ... else value
        if status != 200:
            target.blame("GET", path, None, f"was stored, and answers {status}")
        else:
            target.same(json.loads(answer)["value"], sent, f"PUT {path}")


def entry_name(target: Target, namespace: str, key: str) -> None:
    """Store under a name, read it, and find it listed."""
    place = f"/memory/{quote(namespace, safe='')}"
    path = f"{place}/{quote(key, safe='')}"
    status, _ = target.ask("PUT", path, dump({"value": key}))
    if status == 200:
        target.accepted += 1
        status, answer = target.ask("GET", path)
        found = json.loads(answer)
        target.same([found.get(name) for name in ("namespace", "key", "value")],
                    [namespace, key, key], f"PUT {path[:100]}")  # fmt: skip
        _, answer = target.ask("GET", place)
        listed = [
            each if isinstance(each, str) else each["key"] for each in json.loads(answer)["keys"]
        ]
        if key not in listed:
            target.problems.append(f"PUT {path[:100]}: its key is not listed")
    target.ask("DELETE", path)


def mnemora_cases(target: Target, names: list[str]) -> Iterator[Case]:
    """The same values and names in the other dialect."""
    for number, value in enumerate([*names, *VALUES]):
        yield partial(state, target, "values", f"s{number}", value)
        yield partial(episode, target, "values", f"s{number}", value)
        yield partial(memory, target, f"Fact number {number}.", value)
        yield partial(search, target, value)
    for name in names:
        yield partial(state, target, name, "s", 1)
        yield partial(state, target, "names", name, 1)
        yield partial(episode, target, name, "s", 1)
        yield partial(episode, target, "names", name, 1)
        yield partial(memory, target, name, 1)


def state(target: Target, agent: str, session: str, value: Any) -> None:
    """A state that holds the value as a value and, where it is a text, as a name."""
    data = {"v": value, **({value: 1} if isinstance(value, str) else {})}
    body = {"agent_id": agent, "session_id": session, "data": data}
    if target.data("POST", "/v1/state", body) is not None:
        target.accepted += 1
        query = f"session_id={quote(session, safe='')}"
        found = target.data("GET", f"/v1/state/{quote(agent, safe='')}?{query}")
        target.same(found, {**(found or {}), **body}, "POST /v1/state")


def episode(target: Target, agent: str, session: str, value: Any) -> None:
    """An episode, read by replaying its session."""
    content = value if isinstance(value, (str, dict)) else {"v": value}
    body = {"agent_id": agent, "session_id": session, "type": "action", "content": content,
            "metadata": {"m": value}}  # fmt: skip
    if target.data("POST", "/v1/memory/episodic", body) is not None:
        target.accepted += 1
        place = f"{quote(agent, safe='')}/sessions/{quote(session, safe='')}"
        found = target.data("GET", f"/v1/memory/episodic/{place}")
        last = found["episodes"][-1] if found and found["episodes"] else {}
        target.same(last, {**last, **body}, "POST /v1/memory/episodic")


def memory(target: Target, content: str, value: Any) -> None:
    """A memory with the value in its metadata, read by its id."""
    body = {"agent_id": "values", "content": content, "metadata": {"m": value}}
    stored = target.data("POST", "/v1/memory/semantic", body)
    if stored is not None:
        target.accepted += 1
        found = target.data("GET", f"/v1/memory/semantic/{stored['id']}")
        target.same(found, {**(found or {}), **body}, "POST /v1/memory/semantic")


def search(target: Target, value: Any) -> None:
    """Search for it, by every mode and as a filter."""
    sought = value if isinstance(value, str) else json.dumps(value)[:500]
    for mode in ("hybrid", "keyword"):
        body = {
            "agent_id": "values",
            "query": sought,
            "mode": mode,
            "metadata_filter": {"m": value},
        }
        target.data("POST", "/v1/memory/semantic/search", body)
    target.data("POST", "/v1/memory/search", {"query": sought})
    if isinstance(value, str):
        target.ask("GET", f"/memory/values?prefix={quote(value, safe='')[:6_000]}")


def asking(target: Target, document: dict[str, Any], outside: str) -> Iterator[Case]:
    """Every route with bad bodies, fields, queries and paths."""
    names = texts(outside)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if spared(path, method):
                continue
            yield from ways(target, path, method.upper(), operation, names)


def spared(path: str, method: str) -> bool:
    """What would take away the keys that this runs with."""
    return path.startswith("/admin/v1/keys/{id}")


def ways(
    target: Target, path: str, method: str, operation: dict[str, Any], names: list[str]
) -> Iterator[Case]:
    """The cases of one operation."""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    plain = filled(path, itertools.repeat("fuzz-none"))
    valid = None if content is None else dump(content["example"])
    for query in QUERIES:
        yield partial(target.ask, method, f"{plain}?{query}", valid)
    if "{" in path:
        for piece in [*PIECES, *(quote(name, safe="").encode() for name in names)]:
            at = filled(path, itertools.repeat(piece.decode("latin-1")))
            yield partial(target.ask, method, at, valid)
    if content is None:
        return
    for body in BODIES:
        yield partial(target.ask, method, plain, body)
    for type in ("text/plain", "", "application/json; charset=utf-16", "a" * 5_000):
        yield partial(target.ask, method, plain, valid, **{"Content-Type": type})
    rest = dump(content["example"])[1:]
    shapes = content["schema"].get("anyOf", [content["schema"]])
    for name in sorted({name for shape in shapes for name in shape["properties"]}):
        for value in [*VALUES, *names[:60]]:
            changed = dump({**content["example"], name: value})
            yield partial(target.ask, method, plain, changed)
        for text in RAW_VALUES:
            field = dump(name) + b":" + text.encode() + (b"," if rest != b"}" else b"")
            yield partial(target.ask, method, plain, b"{" + field + rest)


def filled(path: str, values: Iterator[str]) -> str:
    """A path with something in place of its parameters."""
    return re.sub(r"{\w+}", lambda _: next(values), path)
