"""Summaries: the most central episodes, or a configured model behind guards."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from mnemora_server import data, fail, needs_semantic
from serving import InProcess, namespace_files

from botwire_server import endpoint
from botwire_server.endpoint import Endpoint, EndpointSpec
from botwire_server.errors import Unavailable, Unusable
from botwire_server.store import driver, episodes
from botwire_server.summarizer import extract, summarizer
from botwire_server.web.mnemora import semantic

TALK = [
    "Ada asked why the invoice 1043 for the Berlin order was not paid",
    "hm",
    "The invoice 1043 was sent to the old address of the Berlin office",
    "It is sunny today",
    "Ada wants the invoice 1043 sent again to the new Berlin address",
    "Ada wants the invoice 1043 sent again to the new Berlin address!",
    "ok",
]


def test_the_most_central_texts_are_taken_in_order() -> None:
    summary = extract(TALK, most_words=50)
    assert summary.sources == sorted(summary.sources)
    assert summary.text.split("\n") == [TALK[position] for position in summary.sources]
    assert {0, 2} <= set(summary.sources)
    # What repeats another is left out.
    assert len({4, 5} & set(summary.sources)) == 1


def test_a_short_summary_holds_what_is_central() -> None:
    summary = extract(TALK, most_words=26)
    assert len(summary.text.split()) <= 26
    assert not {1, 3, 6} & set(summary.sources)


def test_a_text_that_is_too_long_is_cut() -> None:
    summary = extract(["word " * 1000], most_words=50)
    assert summary.text.split() == ["word"] * 50
    assert summary.sources == [0]


def test_texts_without_words() -> None:
    assert extract(["...", "", "!?"], most_words=50).text == "...\n!?"


class FakeModel:
    """An OpenAI-compatible endpoint that answers with `answer(handler)`."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.answer: Callable[[BaseHTTPRequestHandler], None] = _says("A fine summary.")
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                model.seen.append((self.path, headers, json.loads(body)))
                model.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def _says(text: Any) -> Callable[[BaseHTTPRequestHandler], None]:
    body = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
    return lambda handler: _send(handler, 200, body)


@pytest.fixture
def model() -> Iterator[FakeModel]:
    made = FakeModel()
    yield made
    made.close()


class Memories(list[dict[str, Any]]):
    """Stands in for semantic memory where only what is stored in it matters."""

    async def store(self, request: Any, agent_id: str, fields: Any) -> tuple[dict[str, Any], int]:
        self.append({"agent_id": agent_id, **fields})
        return {"id": f"memory-{len(self)}"}, 201


@pytest.fixture
def memories(monkeypatch: pytest.MonkeyPatch) -> Memories:
    made = Memories()
    monkeypatch.setattr(semantic, "store", made.store)
    return made


def tell(http: httpx.Client, agent: str = "a") -> list[dict[str, Any]]:
    contents: list[Any] = [*TALK[:-1], {"type": "human", "data": {"content": TALK[-1]}}]
    batch = [
        {"agent_id": agent, "session_id": "s", "type": "conversation", "content": content}
        for content in contents
    ]
    answer = data(http.post("/v1/memory/episodic/batch", json={"items": batch}), 201)
    return list(answer["items"])


def test_a_summary_is_stored_with_its_provenance(tmp_path: Path, memories: Memories) -> None:
    with InProcess(tmp_path / "data") as server, httpx.Client(base_url=server.url) as http:
        told = tell(http)
        answer = data(http.post("/v1/memory/episodic/a/summarize", json={"target_length": 50}))
        assert answer["episode_count"] == len(TALK)
        assert answer["semantic_memory_id"] == "memory-1"
        assert answer["time_range"] == {
            "from": told[0]["timestamp"],
            "to": told[-1]["timestamp"],
        }
        assert len(answer["summary"].split()) <= 50
        [stored] = memories
        assert stored["content"] == answer["summary"]
        metadata = stored["metadata"]
        assert metadata["method"] == "extractive"
        assert metadata["time_range"] == answer["time_range"]
        assert set(metadata["episode_ids"]) <= {episode["id"] for episode in told}
        last = data(http.post("/v1/memory/episodic/a/summarize", json={"num_episodes": 1}))
        assert (last["summary"], last["episode_count"]) == ("ok", 1)


def test_a_summary_of_nothing_is_not_found(tmp_path: Path, memories: Memories) -> None:
    with InProcess(tmp_path / "data") as server, httpx.Client(base_url=server.url) as http:
        fail(http.post("/v1/memory/episodic/a/summarize", json={}), 404, "NOT_FOUND")
        assert not memories


def test_a_configured_model_writes_the_summary(
    tmp_path: Path, memories: Memories, model: FakeModel
) -> None:
    setting = f"openai:some-model@{model.url}"
    with (
        InProcess(tmp_path / "data", summarizer=setting, summarizer_key="sk-1") as server,
        httpx.Client(base_url=server.url) as http,
    ):
        tell(http)
        answer = data(http.post("/v1/memory/episodic/a/summarize", json={"target_length": 70}))
        assert answer["summary"] == "A fine summary."
        assert memories[0]["metadata"]["method"] == "model:some-model"
        assert len(memories[0]["metadata"]["episode_ids"]) == len(TALK)
        [(path, headers, body)] = model.seen
        assert path == "/v1/chat/completions"
        assert headers["authorization"] == "Bearer sk-1"
        assert body["model"] == "some-model"
        assert "70 words" in body["messages"][0]["content"]
        assert body["messages"][1]["content"] == "\n".join(TALK)


def _redirects(handler: BaseHTTPRequestHandler) -> None:
    _send(handler, 302, b"", Location="http://127.0.0.1:9/")


def _sleeps(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(1.5)


def _drips(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(15):
        try:
            handler.wfile.write(b" ")
        except OSError:
            return
        time.sleep(0.1)


def _floods(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(100):
            handler.wfile.write(b" " * 10_000)
    except OSError:
        pass


FAULTS: list[tuple[str, Callable[[BaseHTTPRequestHandler], None], str]] = [
    ("redirect", _redirects, "status 302"),
    ("error", lambda handler: _send(handler, 500, b"{}"), "status 500"),
    ("unauthorized", lambda handler: _send(handler, 401, b"{}"), "status 401"),
    ("no json", lambda handler: _send(handler, 200, b"<html>"), "JSON"),
    ("no object", lambda handler: _send(handler, 200, b"[]"), "JSON object"),
    ("other shape", lambda handler: _send(handler, 200, b"{}"), "unexpected shape"),
    ("no text", _says(None), "unexpected shape"),
    ("empty text", _says(" "), "unexpected shape"),
    ("slow", _sleeps, "within"),
    ("dripping", _drips, "within"),
    ("endless", _floods, "more than"),
]


@pytest.mark.parametrize(("name", "answer", "says"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_whatever_goes_wrong_with_the_model_is_a_503(
    tmp_path: Path,
    memories: Memories,
    model: FakeModel,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    answer: Callable[[BaseHTTPRequestHandler], None],
    says: str,
) -> None:
    monkeypatch.setattr(Endpoint.__init__, "__kwdefaults__", {"seconds": 1.0, "most_bytes": 50_000})
    model.answer = answer
    with (
        InProcess(tmp_path / "data", summarizer=f"openai:m@{model.url}") as server,
        httpx.Client(base_url=server.url) as http,
    ):
        tell(http)
        response = http.post("/v1/memory/episodic/a/summarize", json={})
        assert says in fail(response, 503, "INTERNAL_ERROR")
        assert not memories
        assert data(http.get("/v1/memory/episodic/a"))["count"] == len(TALK)
    assert len(model.seen) == 1


def test_an_endpoint_nobody_listens_at() -> None:
    async def ask() -> None:
        client = Endpoint(EndpointSpec("m", "http://127.0.0.1:9/v1"), purpose="embedding")
        try:
            await client.post("/embeddings", {})
        finally:
            await client.close()

    with pytest.raises(Unavailable, match="cannot be reached"):
        asyncio.run(ask())


@pytest.mark.parametrize(
    "setting",
    ["openai", "openai:m", "openai:m@ftp://x", "m@http://x", "openai:@http://x", "openai:m@http://",
     "openai:m@http://key@host/v1", "openai:m@http://host/v1?x=1"],
)  # fmt: skip
def test_a_setting_that_names_no_endpoint(setting: str) -> None:
    with pytest.raises(Unusable, match="--summarizer must look like"):
        summarizer(setting, None)


def test_a_model_with_a_colon_and_a_key_that_is_not_shown() -> None:
    spec = EndpointSpec.parse("openai:llama3.1:8b@https://h:1/v1/", setting="--x", key="sk-1")
    assert (spec.model, spec.url) == ("llama3.1:8b", "https://h:1/v1")
    assert "sk-1" not in repr(spec)
    assert endpoint.SECONDS <= 60


@needs_semantic
def test_a_summary_can_be_found(http: httpx.Client, ns: str) -> None:
    tell(http, ns)
    answer = data(http.post(f"/v1/memory/episodic/{ns}/summarize", json={"target_length": 50}))
    memory = data(http.get(f"/v1/memory/semantic/{answer['semantic_memory_id']}"))
    assert memory["content"] == answer["summary"]
    assert memory["metadata"]["method"] == "extractive"
    hits = data(
        http.post("/v1/memory/semantic/search", json={"query": "invoice 1043", "agent_id": ns})
    )
    assert answer["semantic_memory_id"] in [hit["id"] for hit in hits["results"]]


@pytest.mark.parametrize("seed", range(8))
def test_the_beginning_of_a_long_episode_reads_like_a_short_one(seed):
    """SQLite reads long contents, Python short ones: they are the same to people."""
    chance = random.Random(seed)
    names = ("content", "text", "message", "data", "other")
    plain = ["", "hello wörld", "ไทย", "x y\nz", 5, -3, 2**60, True, False, None]

    def value(depth: int) -> object:
        kind = chance.randrange(8) if depth < 4 else 8
        if kind == 0:
            return {chance.choice(names): value(depth + 1) for _ in range(chance.randrange(4))}
        if kind == 1:
            return [value(depth + 1) for _ in range(chance.randrange(4))]
        return chance.choice(plain)

    with closing(driver.connect(":memory:")) as connection:
        for _ in range(500):
            content = {chance.choice(names): value(1) for _ in range(chance.randrange(4))}
            short = " ".join(episodes.readable(content).split())
            long = " ".join(episodes._beginning(connection, orjson.dumps(content)).split())
            assert short == long, content


def test_a_long_episode_that_was_garbled_is_not_summarised(tmp_path):
    with InProcess(tmp_path) as server, httpx.Client(base_url=server.url) as client:
        content = {"said": "word " * 10_000}
        episode = {"agent_id": "a", "session_id": "s", "type": "action", "content": content}
        assert client.post("/v1/memory/episodic", json=episode).status_code == 201
        [file] = namespace_files(tmp_path)
        with closing(driver.sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("UPDATE episodes SET content = replace(content, 'word', 'ward')")
        answer = client.post("/v1/memory/episodic/a/summarize", json={})
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "NAMESPACE_DAMAGED"
