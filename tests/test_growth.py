"""No text freezes the server: what strangers sent, and what of it must never come back.

The campaign over all fields and shapes is `scripts/growth`; here stand the requests that once held
everybody up for seconds, the bounds that answer them, and a search for expressions that backtrack.
Processor time is compared with bounds that only another order of growth exceeds.
"""

from __future__ import annotations

import ast
import re
import time
import unicodedata
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from re._parser import SubPattern, parse  # type: ignore[import-not-found]
from typing import Any

import httpx
import orjson
import pytest
from mnemora_server import data, fail
from serving import Server

import botwire_server
from botwire_server import limits
from botwire_server.store import filters, sameness, terms
from botwire_server.store.episodes import searchable
from botwire_server.store.sameness import canonical, fingerprint
from botwire_server.web.body import MOST_PARAMETERS, parse_json
from botwire_server.web.http.head import LARGEST_HEAD

ROOT = Path(botwire_server.__file__).parent
SEMANTIC = "/v1/memory/semantic"
MEGABYTE = 1_000_000
# All of these took seconds to minutes.
PROMPT = 0.5


def spent(work: Callable[[], Any]) -> float:
    """Processor seconds of this thread, the least of two."""
    taken = []
    for _ in range(2):
        began = time.thread_time()
        work()
        taken.append(time.thread_time() - began)
    return min(taken)


# Expressions.

METHODS = ("match", "fullmatch", "search", "sub", "subn", "findall", "finditer", "split")
ANCHORED = ("match", "fullmatch")


def patterns() -> Iterator[tuple[str, re.Pattern[Any], set[str]]]:
    """Every compiled expression of the package, and every literal one, with how each is used."""
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
        if name.endswith("__main__"):
            continue
        tree = ast.parse(path.read_text())
        used: dict[str, set[str]] = {}
        for node in ast.walk(tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            method, whose = node.func.attr, ast.unparse(node.func.value)
            if method not in METHODS:
                continue
            used.setdefault(whose, set()).add(method)
            if whose == "re" and isinstance(node.args[0], ast.Constant):
                yield f"{name}:{node.lineno}", re.compile(node.args[0].value), {method}
        module = import_module(name)
        for variable, value in vars(module).items():
            for pattern in value if isinstance(value, tuple) else (value,):
                if isinstance(pattern, re.Pattern):
                    # Where nobody sees how it is used, in every way.
                    yield f"{name}.{variable}", pattern, used.get(variable) or set(METHODS)
    for name, pattern in _of_fields():
        yield name, pattern, {"fullmatch"}
    yield "marks", re.compile(f"[\u0300\u0301]{{{sameness.MOST_MARKS}}}"), {"sub"}


def _of_fields() -> Iterator[tuple[str, re.Pattern[str]]]:
    from botwire_server.config import Config
    from botwire_server.web.app import create_app

    for dialect in create_app(Config()).dialects:
        for resource in dialect.routes:
            yield f"route {resource.path}", resource.path_regex


def alphabet(pattern: re.Pattern[Any]) -> list[str]:
    """Characters that an expression tells apart, and some that mean something to most."""
    found: list[str] = []

    def look_at(node: Any) -> None:
        if isinstance(node, tuple) and len(node) == 2 and str(node[0]) in ("LITERAL", "RANGE"):
            found.append(chr(node[1] if isinstance(node[1], int) else node[1][0]))
        elif isinstance(node, list | tuple | SubPattern):
            for inner in node:
                look_at(inner)

    look_at(parse(pattern.pattern))
    return [*[*dict.fromkeys([*found, "a", "0", " "])][:6], "\n", "'", "/"]


def trying(pattern: re.Pattern[Any], method: str, text: str) -> float:
    given: Any = text if isinstance(pattern.pattern, str) else text.encode()
    arguments = (type(given)(), given) if method in ("sub", "subn") else (given,)
    began = time.thread_time()
    found = getattr(pattern, method)(*arguments)
    if method == "finditer":
        for _ in found:
            pass
    return time.thread_time() - began


def backtracks(pattern: re.Pattern[Any], used: set[str]) -> str | None:
    """A text with which an expression takes longer than any linear one could, if there is one."""
    signs = alphabet(pattern)
    pieces = [*signs, *(a + b for a in signs[:5] for b in signs[:5] if a != b)]
    ways = {"fullmatch" if method in ANCHORED else "search" for method in used}
    for method in ways:
        for piece in pieces:
            for before, behind in (("", ""), ("", "\x00"), ("a", "x")):
                # From few on, for the worst would not end; what is linear takes a tenth of that.
                for times in (20, 32, 40, 200, 600, 2_000):
                    text = before + piece * times + behind
                    if trying(pattern, method, text) > 0.01 and all(
                        trying(pattern, method, text) > 0.01 for _ in range(3)
                    ):
                        return f"{method} over {times} times {piece!r}"
    return None


@pytest.mark.parametrize(
    ("name", "pattern", "used"),
    sorted(patterns(), key=lambda found: found[0]),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_no_expression_backtracks(name: str, pattern: re.Pattern[Any], used: set[str]) -> None:
    assert backtracks(pattern, used) is None, name


@pytest.mark.parametrize("bad", [r"[.!?]*\?[.!?]*$", r"(a+)+$", r"\s+$", r"(?:a|aa)*b", r"a*a*b"])
def test_those_that_do_are_found(bad: str) -> None:
    assert backtracks(re.compile(bad), {"search"}) is not None


# Texts.

PIECES = [
    *("a", "?", ".", ". ", "A ", "Aa Bb ", "ab, cd ", "A-", '"', "Σ'", "น้ำ", "🇩"),
    *("\u0301", "\u0301\u0323", "\u0f73", "a\u0301\u0323", "\u200d", "\u202e"),
    "\u1100\u1161\u11a8",
]


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("ends", [("", ""), ("a", "x")])
def test_texts_are_compared_in_linear_time(piece: str, ends: tuple[str, str]) -> None:
    text = ends[0] + piece * (200_000 // len(piece)) + ends[1]
    assert spent(lambda: canonical(text)) < PROMPT


def test_a_text_with_many_marks_is_the_same_as_itself_only() -> None:
    marks = "\u0301\u0323" * 40
    assert canonical("a" + marks) == canonical("a" + marks)
    others = [
        "a" + marks[:-1],
        "a" + marks + "\u0301",
        "b" + marks,
        marks,
        "a" + marks[:-1] + "\u0301",
    ]
    assert len({fingerprint("c", None, text) for text in ["a" + marks, *others]}) == 6


def test_what_unicode_calls_stream_safe_is_normalised_as_ever() -> None:
    for text in ("e\u0301", "a\u0323\u0301" * 50, "q" + "\u0301\u0323" * 14, "각", "\u0f73x"):
        assert canonical(text) == unicodedata.normalize("NFC", text).split()


def test_a_word_has_an_end() -> None:
    apart = terms.terms("a'b" * 300_000)
    assert len(apart) <= terms.MOST and max(map(len, apart)) <= terms.LONGEST + 1
    [long] = terms.terms("x" * MEGABYTE)
    assert terms.quoted(long) == f'"{"x" * terms.LONGEST}"*'
    assert terms.terms("rock'n'roll isn't dead") == ["rock'n'roll", "dead"]


def test_a_list_is_looked_for_in_one_look_at_each() -> None:
    many = list(range(6_000))
    assert spent(lambda: filters.contains(many[::-1], many)) < PROMPT / 10
    assert not filters.contains(many, [*many, 6_000])
    assert filters.contains([1.0, "a", None, True, {"x": 1, "y": 2}, [3]], [1, {"x": 1}, [3.0]])
    assert not filters.contains([1, 0], [True])
    assert not filters.contains([True], [1])
    assert filters.contains({"a": [{"b": [1, 2]}]}, {"a": [{"b": [2]}]})
    assert not filters.contains({"a": [[1, 2], [3]]}, {"a": [[2, 3]]})


def test_what_can_be_searched_is_found_in_one_look_at_a_list() -> None:
    numbers = {"a": list(range(200_000)), "b": [True, None, "x", 1.5, [2], {"c": "y"}]}
    assert searchable(numbers).splitlines()[-5:] == ["199999", "x", "1.5", "2", "y"]
    assert spent(lambda: searchable(numbers)) < PROMPT


def test_one_big_integer_does_not_have_all_looked_at_one_by_one() -> None:
    body = b'{"a":[1234567890123456789' + b",1" * 500_000 + b"]}"
    assert spent(lambda: parse_json(body)) < PROMPT / 3


# The server.


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("growth"))
    try:
        yield server.start()
    finally:
        server.end()


@pytest.fixture
def http(started: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=started.url, timeout=60) as client:
        client.post(SEMANTIC, json={"agent_id": "warm", "content": "Loads the model."})
        yield client


def cost(server: Server, ask: Callable[[], httpx.Response]) -> tuple[float, httpx.Response]:
    """Processor seconds of the server for a request."""
    clock = (~server.process.pid << 3) | 2  # of that process
    before = time.clock_gettime(clock)
    answer = ask()
    return time.clock_gettime(clock) - before, answer


@pytest.mark.parametrize(
    "text",
    ["a" + "?" * 2_400 + "x", "a" + "." * 20_000 + "x", "a" + "\u0301\u0323" * 100_000],
    ids=["question marks", "dots", "marks"],
)
def test_texts_that_held_everybody_up(started: Server, http: httpx.Client, text: str) -> None:
    body = {"agent_id": "a", "content": text, "metadata": {}}
    for route, sent in ((SEMANTIC, body), (f"{SEMANTIC}/batch", {"items": [body]})):
        taken, answer = cost(started, lambda route=route, sent=sent: http.post(route, json=sent))
        assert answer.status_code in (200, 201)
        assert taken < 2 * PROMPT
    assert data(http.post(SEMANTIC, json=body))["deduplicated"]


def test_a_filter_of_6000_elements(started: Server, http: httpx.Client) -> None:
    tags = list(range(6_000))
    for each in range(3):
        item = {"agent_id": "f", "content": f"Tea {each}", "metadata": {"tags": tags[::-1]}}
        data(http.post(SEMANTIC, json=item), 201)
    sought = {"agent_id": "f", "query": "tea", "metadata_filter": {"tags": tags}}
    taken, answer = cost(started, lambda: http.post(f"{SEMANTIC}/search", json=sought))
    assert data(answer)["count"] == 3
    assert taken < PROMPT


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"query": "tea", "metadata_filter": {"tags": [*range(150_000)]}}, "metadata_filter"),
        ({"query": "tea", "metadata_filter": {"tags": [[]] * 17}}, "metadata_filter"),
        ({"query": "a'b" * 300_000}, "query"),
        ({"query": "tea", "created_after": "2" * MEGABYTE}, "created_after"),
        ({"query": "tea", "namespace": "x" * MEGABYTE}, "namespace"),
        ({"query": "tea", "embedding": [1] * 400_000}, "embedding"),
    ],
)
def test_a_search_over_its_bounds(
    started: Server, http: httpx.Client, body: dict[str, Any], field: str
) -> None:
    sent = {"agent_id": "a", **body}
    taken, answer = cost(started, lambda: http.post(f"{SEMANTIC}/search", json=sent))
    assert field in fail(answer, 400, "VALIDATION_ERROR")
    assert taken < PROMPT


def test_a_query_at_its_bound_without_a_space(started: Server, http: httpx.Client) -> None:
    text = ("a'b'" * limits.QUERY)[: limits.QUERY]
    data(http.post(SEMANTIC, json={"agent_id": "q", "content": text}), 201)
    before = started.rss
    for route in (f"{SEMANTIC}/search", "/v1/memory/search"):
        sent = {"agent_id": "q", "query": text}
        taken, answer = cost(started, lambda route=route, sent=sent: http.post(route, json=sent))
        assert data(answer)["count"] >= 1
        assert taken < PROMPT
    assert started.rss - before < 50 * MEGABYTE


def test_what_is_over_its_bound_stores_nothing(http: httpx.Client) -> None:
    big = {"k": "x" * limits.METADATA}
    item = {"agent_id": "none", "content": "tea", "metadata": big}
    assert "metadata" in fail(http.post(SEMANTIC, json=item), 400, "VALIDATION_ERROR")
    batch = {"items": [{**item, "metadata": {}}, item]}
    message = fail(http.post(f"{SEMANTIC}/batch", json=batch), 400, "VALIDATION_ERROR")
    assert "items[1]: metadata" in message
    episode = {"agent_id": "none", "session_id": "s", "type": "action", "content": "tea"}
    route = "/v1/memory/episodic"
    refused = http.post(route, json={**episode, "metadata": big})
    assert "metadata" in fail(refused, 400, "VALIDATION_ERROR")
    names = http.get("/v1/memory/none").json()["data"]["summary"]
    assert names["semantic_count"] == names["episodic_count"] == 0


def test_an_episode_of_a_megabyte_of_numbers(started: Server, http: httpx.Client) -> None:
    content = b'{"n":[1' + b",2" * 500_000 + b"]}"
    body = b'{"agent_id":"n","session_id":"s","type":"tool_call","content":' + content + b"}"
    headers = {"Content-Type": "application/json"}
    sent = lambda: http.post("/v1/memory/episodic", content=body, headers=headers)  # noqa: E731
    taken, answer = cost(started, sent)
    assert answer.status_code == 201
    assert taken < 2 * PROMPT
    found = http.post("/v1/memory/search", json={"agent_id": "n", "query": "2"})
    assert data(found)["count"] == 1


def test_headers_and_queries_over_their_bounds(http: httpx.Client) -> None:
    http.put("/memory/h/k", json={"value": 1})
    tags = {"If-Match": '"a",' * 2_000}
    answer = http.put("/memory/h/k", json={"value": 2}, headers=tags)
    assert answer.status_code == 400 and "If-Match" in answer.json()["detail"]
    answer = http.get("/memory/h/k", headers={"If-None-Match": '"a",' * 2_000})
    assert answer.status_code == 400 and "If-None-Match" in answer.json()["detail"]
    answer = http.get("/memory/h", params={"prefix": "x" * 513})
    assert answer.status_code == 400 and "prefix" in answer.json()["detail"]
    answer = http.get("/memory/h?" + "&".join(f"p{n}=" for n in range(65)))
    assert answer.status_code == 400 and "64 parameters" in answer.json()["detail"]


def test_no_bound_is_left_out_of_the_document(http: httpx.Client) -> None:
    """What `scripts/growth` asks of every field before it measures: something bounds it."""
    document = orjson.loads(http.get("/openapi.json").content)
    bounds = {"maxLength", "x-max-bytes", "maxItems", "maximum", "enum", "const"}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            schemas = [(each["name"], each["schema"]) for each in operation.get("parameters", [])]
            content = operation.get("requestBody", {}).get("content", {})
            for body in content.values():
                for shape in body["schema"].get("anyOf", [body["schema"]]):
                    schemas += shape["properties"].items()
            for name, schema in schemas:
                plain = schema.get("type") in ("boolean", ["boolean", "null"])
                assert plain or bounds & schema.keys(), f"{method} {path} {name}"


def test_the_table_in_the_docs_is_the_table() -> None:
    said = (ROOT.parent / "docs" / "api.md").read_text().partition("## What a part")[2]
    told = [limits.NAMESPACE, limits.ID, limits.KEY, limits.COLLECTION, limits.TEXT, limits.QUERY]
    told += [limits.EMBEDDED_QUERY, limits.METADATA, limits.FILTER, limits.FILTER_NESTED]
    told += [limits.STATE, limits.VALUE, limits.ITEMS, limits.DIMENSION, limits.DEPTH, limits.TIME]
    told.append(limits.CONTAINERS)
    told += [limits.ETAGS, MOST_PARAMETERS, LARGEST_HEAD, terms.MOST]
    for number in told:
        assert re.search(rf"(?<![\d,]){number:,}(?![\d,])", said), number
