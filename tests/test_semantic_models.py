"""Whose vectors they are: endpoints that fail, models that change, and re-embedding."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from embedding_endpoint import EmbeddingEndpoint
from mnemora_server import data, fail
from semantic_store import embed
from serving import InProcess, Server, namespace_files

from botwire_server.embedding import WordLlama, embedder
from botwire_server.errors import Unavailable, Unusable
from botwire_server.store import reembedding
from botwire_server.store.namespace import Namespace

ROUTE = "/v1/memory/semantic"


@pytest.fixture
def endpoint() -> Iterator[EmbeddingEndpoint]:
    """An endpoint that is there."""
    endpoint = EmbeddingEndpoint()
    yield endpoint
    endpoint.close()


def _post(server: Server, path: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, timeout=30)


def _store(server: Server, content: str, **more: Any) -> dict[str, Any]:
    body = {"agent_id": "a", "content": content, **more}
    record: dict[str, Any] = data(_post(server, ROUTE, body), 201)
    return record


def _search(server: Server, text: str, **more: Any) -> tuple[list[str], dict[str, Any]]:
    answer = _post(server, f"{ROUTE}/search", {"agent_id": "a", "query": text, **more})
    contents = [hit["content"] for hit in data(answer)["results"]]
    return contents, answer.json()["meta"]


def test_a_text_has_the_tokens_that_it_always_had() -> None:
    """Those of wordllama 0.4, whose tokenizer has one line break more; the weights are equal."""
    model = WordLlama()
    asyncio.run(model.embed(TEXTS))
    encoded = model._tokenizer.encode_batch(TEXTS, add_special_tokens=False)
    ids = repr([each.ids for each in encoded]).encode()
    assert hashlib.sha256(ids).hexdigest() == (
        "08fa890eb9657751a127702ef77786fa00b8bc3b3dba0e2dece4ee21455064df"
    )
    ours = np.frombuffer(b"".join(embed(TEXTS)), np.float32).reshape(len(TEXTS), -1)
    for vector, each in zip(ours, encoded, strict=True):
        mean = model._weights[each.ids].mean(axis=0)
        assert np.allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)


def test_its_files_are_those_that_vectors_were_made_with() -> None:
    """`wordllama-256` names what these make: other files would mix the vectors of two models."""
    found = importlib.util.find_spec("wordllama")
    assert found is not None and found.origin is not None
    folder = Path(found.origin).parent
    digests = {
        path: hashlib.sha256((folder / path).read_bytes()).hexdigest()
        for path in (
            "tokenizers/l2_supercat_tokenizer_config.json",
            "weights/l2_supercat_256.safetensors",
        )
    }
    assert list(digests.values()) == [
        "bf467c9e0f536bda271283c6ef85eb1a943e3196b621c8a912d64953b205df83",
        "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
    ]


def test_without_the_model_memories_are_found_by_their_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine that it does not install on is served all the same, and told once."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "wordllama" else found(name)
    )
    with InProcess(tmp_path / "data") as server, httpx.Client(base_url=server.url) as client:
        for content in ("Ann plays chess", "Bob sings"):
            answer = client.post(ROUTE, json={"agent_id": "a", "content": content})
            assert answer.status_code == 201
        sought = client.post(f"{ROUTE}/search", json={"agent_id": "a", "query": "chess"})
        assert [hit["content"] for hit in data(sought)["results"]] == ["Ann plays chess"]
        assert client.get("/ready").json()["embedder"] == "none"
    assert caplog.text.count("pip install 'wordllama==0.2.2.post0'") == 1


TEXTS = ["The user likes dark mode", "x", "Ünïcode ✨ 日本語", "a long one " * 300, "  spaces  "]


def test_the_model_loads_once_and_off_the_loop() -> None:
    async def measure() -> tuple[float, int]:
        model = WordLlama()
        loads = 0
        load = model._load

        def counted() -> None:
            nonlocal loads
            loads += 1
            load()

        model._load = counted  # type: ignore[method-assign]
        longest = 0.0
        calls = asyncio.gather(*(model.embed(["text"]) for _ in range(20)))
        while not calls.done():
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            longest = max(longest, time.perf_counter() - before)
        await calls
        return longest, loads

    longest, loads = asyncio.run(measure())
    assert loads == 1
    assert longest < 0.5


def test_importing_a_server_loads_no_model() -> None:
    code = """if True:
        import sys, botwire_server.web.app
        print([name for name in ("numpy", "wordllama", "tokenizers") if name in sys.modules])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "setting", ["", "bert", "openai:", "openai:m", "openai:m@ftp://x", "http://x"]
)
def test_an_embedder_that_does_not_exist_is_named(setting: str) -> None:
    with pytest.raises(Unusable, match="--embedder"):
        embedder(setting)


def test_an_endpoint_is_asked_with_its_key_in_batches(
    make_server: Callable[..., Server], endpoint: EmbeddingEndpoint
) -> None:
    server = make_server("--embedder", f"openai:mini@{endpoint.url}")
    items = [{"agent_id": "a", "content": f"fact {number}"} for number in range(150)]
    data(_post(server, f"{ROUTE}/batch", {"items": items}), 201)
    assert {asked["path"] for asked in endpoint.asked} == {"/v1/embeddings"}
    assert {asked["model"] for asked in endpoint.asked} == {"mini"}
    assert sum(len(asked["input"]) for asked in endpoint.asked) == 150
    assert max(len(asked["input"]) for asked in endpoint.asked) <= 64
    contents, meta = _search(server, "fact 77", mode="vector")
    assert contents[0] == "fact 77"
    assert meta["mode"] == "vector"


def test_an_endpoint_that_is_down_stops_only_what_needs_it(
    make_server: Callable[..., Server], endpoint: EmbeddingEndpoint
) -> None:
    server = make_server("--embedder", f"openai:mini@{endpoint.url}")
    record = _store(server, "Ann plays chess")
    endpoint.status = 500
    for body in ({"agent_id": "a", "content": "Bob sings"},):
        assert "embedding" in fail(_post(server, ROUTE, body), 503, "INTERNAL_ERROR")
        batch = _post(server, f"{ROUTE}/batch", {"items": [body]})
        assert "embedding" in fail(batch, 503, "INTERNAL_ERROR")
    search = _post(server, f"{ROUTE}/search", {"agent_id": "a", "query": "chess"})
    assert "embedding" in fail(search, 503, "INTERNAL_ERROR")
    assert _search(server, "chess", mode="keyword")[0] == ["Ann plays chess"]
    assert _search(server, "Bob", mode="keyword")[0] == []
    # What brings its own vector needs nobody's.
    own = {"embedding": endpoint.vector("Cleo")}
    _store(server, "Cleo", **own)
    assert _search(server, "Cleo", **own)[0][0] == "Cleo"
    data(httpx.get(f"{server.url}{ROUTE}/{record['id']}"))
    data(_post(server, "/v1/state", {"agent_id": "a", "data": {}}), 201)
    assert httpx.put(f"{server.url}/memory/a/k", json={"value": 1}).status_code == 200
    endpoint.status = 200
    _store(server, "Bob sings")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"data": []},
        {"data": [{"index": 0, "embedding": []}]},
        {"data": [{"index": 0, "embedding": [0, 0, 0]}]},
        {"data": [{"index": 0, "embedding": "x"}]},
        {"data": [{"index": 0, "embedding": [1, "x"]}]},
        {"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1]}]},
        {"data": "x"},
        {"data": [{"embedding": [1]}]},
    ],
)
def test_an_endpoint_that_answers_nonsense_is_unavailable(
    endpoint: EmbeddingEndpoint, answer: Any
) -> None:
    endpoint.answer = answer
    with pytest.raises(Unavailable, match="embedding"):
        _ask(endpoint)


def test_an_endpoint_that_is_slow_or_gone_is_unavailable(endpoint: EmbeddingEndpoint) -> None:
    endpoint.delay = 3
    started = time.monotonic()
    with pytest.raises(Unavailable, match="within"):
        _ask(endpoint, seconds=0.3)
    assert time.monotonic() - started < 2
    gone = EmbeddingEndpoint()
    gone.close()
    with pytest.raises(Unavailable, match="reached"):
        _ask(gone)


def _ask(endpoint: EmbeddingEndpoint, *, seconds: float = 10.0) -> None:
    async def ask() -> None:
        model = embedder(f"openai:mini@{endpoint.url}", seconds=seconds)
        try:
            await model.embed(["text"])
        finally:
            await model.close()

    asyncio.run(ask())


def test_a_slow_endpoint_holds_up_nobody_else(
    make_server: Callable[..., Server], endpoint: EmbeddingEndpoint
) -> None:
    server = make_server("--embedder", f"openai:mini@{endpoint.url}")
    _store(server, "Ann plays chess")
    endpoint.delay = 2

    async def both() -> float:
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
            body = {"agent_id": "a", "content": "Bob sings"}
            slow = asyncio.create_task(client.post(ROUTE, json=body))
            await asyncio.sleep(0.3)
            started = time.monotonic()
            for _ in range(20):
                words = {"agent_id": "a", "query": "chess", "mode": "keyword"}
                assert (await client.post(f"{ROUTE}/search", json=words)).status_code == 200
            elapsed = time.monotonic() - started
            assert not slow.done()
            assert (await slow).status_code == 201
            return elapsed

    assert asyncio.run(both()) < 1.5


def test_without_a_model_words_are_searched(make_server: Callable[..., Server]) -> None:
    server = make_server("--embedder", "none")
    _store(server, "Ann plays chess")
    contents, meta = _search(server, "chess")
    assert contents == ["Ann plays chess"]
    assert meta["mode"] == "keyword"
    body = {"agent_id": "a", "query": "chess", "mode": "vector"}
    assert "mode" in fail(_post(server, f"{ROUTE}/search", body), 400, "VALIDATION_ERROR")
    _store(server, "Bob sings", embedding=[1, 2, 3])
    assert _search(server, "?", embedding=[1, 2, 3], mode="vector")[0] == ["Bob sings"]


def test_another_model_is_never_mixed_in(
    make_server: Callable[..., Server], endpoint: EmbeddingEndpoint, tmp_path: Path
) -> None:
    server = make_server()
    texts = [f"Fact {n} about {what}" for n, what in enumerate(["tea", "chess", "rain"] * 60)]
    for text in texts:
        _store(server, text)
    server.stop()
    server.options = ("--embedder", f"openai:mini@{endpoint.url}")
    server.start()
    contents, meta = _search(server, "fact about chess")
    assert "chess" in contents[0]
    assert meta["mode"] == "keyword"
    assert "reembed" in meta["notice"]
    # What is stored meanwhile is found by its words as well.
    _store(server, "Quetzals live in cloud forests")
    assert _search(server, "quetzals")[0] == ["Quetzals live in cloud forests"]
    server.stop()

    [file] = namespace_files(server.data)
    assert asyncio.run(_reembed(file, endpoint, stop_after=1)) == [0, 64]
    assert asyncio.run(_reembed(file, endpoint)) == [64, 128, 181]
    assert asyncio.run(_reembed(file, endpoint)) == []
    server.start()
    contents, meta = _search(server, "fact 17 about rain", mode="vector")
    assert contents[0] == "Fact 17 about rain"
    assert meta["mode"] == "vector"
    _store(server, "Bob sings")
    assert _search(server, "Bob sings")[1]["mode"] == "hybrid"


class _Stopped(Exception):
    pass


async def _reembed(
    file: Path, endpoint: EmbeddingEndpoint, *, stop_after: int | None = None
) -> list[int]:
    """Re-embed a file; how far it was each time. Stopped as by a crash after some slices."""
    model = embedder(f"openai:mini@{endpoint.url}")
    namespace = await Namespace.open(file, durability="relaxed", clock=time.time)
    far: list[int] = []

    async def progress(step: reembedding.Progress) -> None:
        far.append(step.done)
        if stop_after is not None and len(far) > stop_after:
            raise _Stopped

    try:
        await reembedding.reembed(namespace, model.embed, progress)
    except _Stopped:
        pass
    finally:
        await namespace.close()
        await model.close()
    return far
