"""Semantic memory over HTTP: storing, searching small and large agents, all agents, and the disk.

The texts are sentences of the standard library's docstrings, mixed, so that words and vectors are
spread as in real texts.
"""

from __future__ import annotations

import inspect
import random
import re
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

import orjson

from benchmarks.figures import Figure, Setup
from botwire_server.lazy import numpy as np
from botwire_server.store import driver, vectors
from harness.server import ServerProcess

ROUTE = "/v1/memory/semantic"
BATCH = 1_000
SIZES = {1_000: 2, 10_000: 5, 100_000: 30}


def measure(setup: Setup, *, largest: int = 100_000) -> Iterator[Figure]:
    """Times are medians of single requests, one after the other, over a kept connection."""
    chance = random.Random(4)
    sentences = _sentences()
    searches = 20 * setup.rounds
    data_dir = setup.scratch / "semantic"
    with ServerProcess(data_dir) as server:
        server.wait_until_ready()
        client = server.connect(timeout=120)
        began = time.perf_counter()
        _post(client, ROUTE, {"agent_id": "first", "content": "first of all"})
        yield Figure("first memory stored", (time.perf_counter() - began) * 1e3, "ms", most=1_000)
        setup.say("storing")
        texts = _texts(sentences, chance, 100 * setup.rounds)
        bodies = [{"agent_id": "stored", "content": text} for text in texts]
        yield _timed("memory stored", client, ROUTE, bodies, most=4)
        for size, most in SIZES.items():
            if size > largest:
                continue
            setup.say(f"{size:,} memories")
            agent = f"agent-{size}"
            made = fill(client, agent, size, chance)
            queries = [question(made, chance) for _ in range(searches)]
            for mode, bound in (("hybrid", most), ("vector", None), ("keyword", None)):
                bodies = [{"agent_id": agent, "query": query, "mode": mode} for query in queries]
                name = f"{mode} search, {size:,} memories"
                yield _timed(name, client, f"{ROUTE}/search", bodies, most=bound)
            share = _recall(next(data_dir.glob(f"tenants/*/{agent}-*.db")), chance)
            yield Figure(f"recall of the 10 nearest, {size:,}", share, "%", least=99)
        client.close()
    yield from _many_agents(setup, sentences, chance)


def fill(client: HTTPConnection, agent: str, size: int, chance: random.Random) -> list[str]:
    """Store so many memories; their texts."""
    made = _texts(_sentences(), chance, size)
    for start in range(0, size, BATCH):
        some = made[start : start + BATCH]
        _post(client, f"{ROUTE}/batch", {"items": [_memory(agent, text) for text in some]})
    return made


def _many_agents(setup: Setup, sentences: Sequence[str], chance: random.Random) -> Iterator[Figure]:
    data_dir = setup.scratch / "agents"
    texts = _texts(sentences, chance, 20_000)
    with ServerProcess(data_dir) as server:
        server.wait_until_ready()
        client = server.connect(timeout=120)
        setup.say("1,000 agents with 20 memories each, one by one")
        for number in range(1_000):
            for text in texts[number * 20 : number * 20 + 20]:
                _post(client, ROUTE, _memory(f"agent-{number}", text))
            if number == 99:
                bodies = [
                    {"query": question(texts[:2_000], chance)} for _ in range(5 * setup.rounds)
                ]
                yield _timed("search over 100 agents", client, f"{ROUTE}/search", bodies, most=100)
        client.close()
        yield Figure("disk while serving, 1,000 agents × 20", _megabytes(data_dir), "MB")
    yield Figure("disk, 1,000 agents × 20 memories", _megabytes(data_dir), "MB", most=250)


def _timed(
    name: str,
    client: HTTPConnection,
    path: str,
    bodies: Sequence[Mapping[str, object]],
    *,
    most: float | None,
) -> Figure:
    times = []
    for body in bodies:
        began = time.perf_counter()
        _post(client, path, body)
        times.append((time.perf_counter() - began) * 1e3)
    times.sort()
    note = f"p90 {times[int(len(times) * 0.9)]:.1f} ms"
    return Figure(f"{name}, p50", median(times), "ms", most=most, note=note)


def _post(client: HTTPConnection, path: str, body: Mapping[str, object]) -> None:
    client.request("POST", path, orjson.dumps(body), {"Content-Type": "application/json"})
    response = client.getresponse()
    content = response.read()
    if response.status not in (200, 201):
        raise RuntimeError(f"{path} answered {response.status}: {content[:200]!r}")


def _memory(agent: str, text: str) -> dict[str, object]:
    return {"agent_id": agent, "content": text}


@cache
def _sentences() -> list[str]:
    """Sentences of the standard library's docstrings."""
    found: set[str] = set()
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for docstring in re.findall(r'"""(.*?)"""', file.read_text(errors="ignore"), re.DOTALL):
            for sentence in re.split(r"(?<=[.!?])\s+|\n\s*\n", inspect.cleandoc(docstring)):
                text = " ".join(sentence.split())
                if 40 <= len(text) <= 300 and len(re.findall("[a-z]{3,}", text)) >= 6:
                    found.add(text)
    return sorted(found)


def _texts(sentences: Sequence[str], chance: random.Random, count: int) -> list[str]:
    """Sentences whose second half is another's, all different."""
    texts: dict[str, None] = {}
    while len(texts) < count:
        one, other = chance.choice(sentences).split(), chance.choice(sentences).split()
        texts[" ".join(one[: len(one) // 2 + 1] + other[len(other) // 2 :])] = None
    return list(texts)


def question(texts: Sequence[str], chance: random.Random) -> str:
    """A question with some words of one of the texts."""
    words = re.findall("[A-Za-z]{4,}", chance.choice(texts))
    return f"What about {' '.join(chance.sample(words, min(len(words), 4)))}?"


def _recall(file: Path, chance: random.Random) -> float:
    """The share of the 10 nearest that are found by their signs first, in percent."""
    connection = driver.connect(file, read_only=True)
    try:
        rows = connection.execute("SELECT id, embedding FROM vectors").fetchall()
        ids = np.array([id >> vectors.CHUNK_BITS for id, _ in rows])
        matrix = np.frombuffer(b"".join(vector for _, vector in rows), np.float32)
        matrix = matrix.reshape(len(rows), -1)
        noise = np.random.default_rng(chance.randrange(2**32))
        found = []
        for _ in range(50):
            one, other = chance.choice(rows)[1], chance.choice(rows)[1]
            query = np.frombuffer(one, np.float32) + 0.7 * np.frombuffer(other, np.float32)
            query = query + noise.normal(0, 0.02, len(query))
            query = (query / np.linalg.norm(query)).astype(np.float32)
            exact = set(ids[np.argsort(-(matrix @ query))[:10]].tolist())
            near = vectors.Surroundings(connection, query.tobytes()).nearest(None)
            found.append(len(exact & set(sorted(near, key=near.__getitem__, reverse=True)[:10])))
        return 10 * sum(found) / len(found)
    finally:
        connection.close()


def _megabytes(directory: Path) -> float:
    return sum(file.stat().st_blocks * 512 for file in directory.rglob("*") if file.is_file()) / 1e6
