"""Deadlines of reads: what a read may take, and that nobody waits for one that nobody wants."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
from serving import InProcess, Server, namespace_files, until
from test_database import Pairs, count, count_briefly, opened, path, put

from botwire_server.errors import Busy, Closed, Stopping, TooExpensive
from botwire_server.store.deadlines import Deadline, Readers
from botwire_server.store.driver import sqlite3

__all__ = ["path"]  # a fixture

SECONDS = 0.4


def endless(connection):
    """A statement that has no end."""
    connection.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    ).fetchone()


def endless_rows(connection):
    """Statements and a loop of ours that have no end, one within the other."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    for _ in connection.execute(numbers):
        for _ in connection.execute("SELECT name FROM pairs"):
            connection.look()


def endless_loop(connection):
    """A loop of ours without any statement."""
    while True:
        connection.look()


ENDLESS = pytest.mark.parametrize("unit", [endless, endless_rows, endless_loop])


@pytest.fixture
def readers():
    return Readers(SECONDS)


@ENDLESS
async def test_what_used_its_own_time_up_is_too_expensive(path, readers, unit):
    async with opened(path) as pairs:
        await pairs.transact(put, "Ada")
        began = time.monotonic()
        with pytest.raises(TooExpensive, match=r"0\.4 s"):
            await pairs.read_within(Deadline(readers), unit)
        # It shares a core with others: only what it computes counts.
        assert time.monotonic() - began >= SECONDS
        assert await pairs.read(count) == 2
        await pairs.transact(put, "Grace")
        assert await pairs.read(count) == 4


@pytest.mark.parametrize("unit", [count, count_briefly])
async def test_what_waited_for_others_is_told_that_it_is_busy(path, readers, unit):
    async with opened(path) as pairs:
        slow = Deadline(readers, 60)
        reading = asyncio.ensure_future(pairs.read_within(slow, endless))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        with pytest.raises(Busy):
            await pairs.read_within(Deadline(readers), unit)
        assert time.monotonic() - began < 5
        slow.end(Stopping("On purpose."))
        with pytest.raises(Stopping):
            await reading
        assert await pairs.read_within(Deadline(readers), unit) == 0


async def test_the_turns_of_a_request_share_its_time(path, readers):
    def some(connection):
        until_ = time.thread_time() + SECONDS / 4
        while time.thread_time() < until_:
            connection.look()

    async with opened(path) as pairs:
        deadline = Deadline(readers, SECONDS)
        with pytest.raises(TooExpensive):
            for _ in range(20):
                await pairs.read_within(deadline, some)
        with pytest.raises(TooExpensive):
            await pairs.read_within(deadline, count)


async def test_time_between_its_turns_does_not_count(path, readers):
    async with opened(path) as pairs:
        deadline = Deadline(readers)
        assert await pairs.read_within(deadline, count) == 0
        await asyncio.sleep(2.5 * SECONDS)
        assert await pairs.read_within(deadline, count) == 0


@ENDLESS
async def test_a_read_that_nobody_waits_for_ends(path, readers, unit):
    async with opened(path) as pairs:
        await pairs.transact(put, "Ada")
        reading = asyncio.ensure_future(pairs.read_within(Deadline(readers, 60), unit))
        await asyncio.sleep(0.1)
        reading.cancel()
        assert await asyncio.wait_for(pairs.read(count), 10) == 2


@ENDLESS
async def test_closing_waits_for_no_read(path, readers, unit):
    pairs = await Pairs.open(path, durability="full", clock=time.time)
    await pairs.transact(put, "Ada")
    reads = [
        asyncio.ensure_future(pairs.read_within(Deadline(readers, 60), each))
        for each in (unit, count, unit)
    ]
    await asyncio.sleep(0.1)
    await asyncio.wait_for(pairs.close(), 10)
    for read in reads:
        with pytest.raises(Closed):
            await read


async def test_a_read_among_writes_ends_alone(path, readers):
    async with opened(path) as pairs:
        tasks = [
            asyncio.ensure_future(pairs.transact(put, "Ada")),
            asyncio.ensure_future(pairs.read_within(Deadline(readers), endless)),
            asyncio.ensure_future(pairs.transact(put, "Grace")),
        ]
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert (done[0], type(done[1]), done[2]) == ("Ada", TooExpensive, "Grace")
        assert await pairs.read(count) == 4


# Over HTTP.

MEMORIES = 100_000
PAIRS = {f"key{number}": number for number in range(24)}


def fill(server: Server, agent: str, memories: int = MEMORIES) -> None:
    """Give an agent so many memories, past the server."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        memory = {"agent_id": agent, "content": "first", "metadata": PAIRS}
        assert client.post("/v1/memory/semantic", json=memory).status_code == 201
        episode = {"agent_id": agent, "session_id": "s", "type": "action", "content": "said"}
        assert client.post("/v1/memory/episodic", json=episode).status_code == 201
        state = {"agent_id": agent, "data": {"step": 1}}
        assert client.post("/v1/state", json=state).status_code == 201
        assert client.put(f"/memory/{agent}/key", json={"value": 1}).status_code == 200
    server.stop()
    [file] = namespace_files(server.data)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(
            """INSERT INTO memories
                (collection, content, metadata, session_id, same, bytes, created_at, updated_at)
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?)
            SELECT 'default', 'word' || (i % 10), ?, NULL, randomblob(16), 9, 1.0, 1.0 FROM n""",
            (memories, json.dumps(PAIRS)),
        )
        connection.execute("UPDATE totals SET revision = revision + 1")
    server.start()


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A server whose agent `large` has much to read, and one second for each read."""
    directory = tmp_path_factory.mktemp("large")
    server = Server(directory, "--read-seconds", "1", "--embedder", "none")
    try:
        server.start()
        fill(server, "large")
        yield server
    finally:
        server.end()


SEARCH = {"agent_id": "large", "query": "word1", "metadata_filter": PAIRS, "top_k": 3}


def search(server: Server, body: dict = SEARCH) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/memory/semantic/search", json=body, timeout=60)


def test_a_search_that_takes_too_long_is_413_and_names_the_field(large):
    answer = search(large)
    assert answer.status_code == 413, answer.text
    error = answer.json()["error"]
    assert error["code"] == "TOO_EXPENSIVE"
    assert "metadata_filter" in error["message"] and "1 s" in error["message"]
    assert "retry-after" not in answer.headers
    plain = {name: value for name, value in SEARCH.items() if name != "metadata_filter"}
    assert search(large, plain).status_code == 200


def reads(server: Server) -> list[str]:
    """A request for each route that reads the namespace `large`, by the server's own document."""
    document = httpx.get(f"{server.url}/openapi.json").json()
    fill = {"agent_id": "large", "namespace": "large", "session_id": "s", "key": "key"}
    found = []
    for route, methods in document["paths"].items():
        if "get" in methods and any(f"{{{name}}}" in route for name in ("agent_id", "namespace")):
            for name, value in fill.items():
                route = route.replace(f"{{{name}}}", value)
            found.append(route)
    return found


@contextmanager
def blocked(data: Path) -> Iterator[None]:
    """Another process writes to the one namespace: who writes there waits, on its thread."""
    [file] = namespace_files(data)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("COMMIT")


def test_every_read_that_waits_for_others_is_told_to_come_again(large):
    """Every route that reads, while another process keeps the namespace's file from a writer."""
    routes = reads(large)
    assert len(routes) >= 7, routes
    answers: dict[str, httpx.Response] = {}

    def ask(route: str) -> None:
        answers[route] = httpx.get(large.url + route, timeout=60)

    def write() -> None:
        httpx.put(f"{large.url}/memory/large/other", json={"value": 2}, timeout=60)

    with blocked(large.data):
        threads = [threading.Thread(target=write)]
        threads[0].start()
        time.sleep(0.3)
        threads += [threading.Thread(target=ask, args=(route,)) for route in routes]
        for thread in threads[1:]:
            thread.start()
        until(lambda: len(answers) == len(routes), "all reads are answered", seconds=4)
    for thread in threads:
        thread.join()
    for route, answer in answers.items():
        assert answer.status_code == 503, (route, answer.status_code, answer.text)
        assert answer.headers["retry-after"] == "1"


def test_a_client_that_went_away_ends_its_read(make_server, large):
    host, port = large.address
    body = json.dumps(SEARCH).encode()
    crowd = []
    for _ in range(8):
        connection = socket.create_connection((host, port))
        head = "POST /v1/memory/semantic/search HTTP/1.1\r\nHost: localhost\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        crowd.append(connection)
    time.sleep(0.2)
    for connection in crowd:
        connection.close()
    began = time.monotonic()
    answer = httpx.get(f"{large.url}/memory/large/key", timeout=60)
    assert answer.status_code == 200, answer.text
    assert time.monotonic() - began < 0.9  # not those seconds that eight would have


@contextmanager
def searching(server: Server) -> Iterator[list[httpx.Response]]:
    """Three searches of many seconds are on their way; what they were answered."""
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: answers.append(search(server))) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    yield answers
    for thread in threads:
        thread.join()


@pytest.mark.slow
def test_purge_and_sigterm_wait_for_no_read(tmp_path):
    server = Server(tmp_path, "--read-seconds", "60", "--embedder", "none")
    try:
        server.start()
        fill(server, "large", 2 * MEMORIES)
        with searching(server) as answers:
            began = time.monotonic()
            server.stop()
            took = time.monotonic() - began
        assert took < 5
        assert [answer.status_code for answer in answers] == [503] * 3
        assert {answer.headers["retry-after"] for answer in answers} == {"1"}
        server.start()
        with searching(server) as answers:
            began = time.monotonic()
            purged = httpx.delete(f"{server.url}/v1/memory/large", timeout=60)
            took = time.monotonic() - began
        assert purged.status_code == 200
        assert took < 5
        # The agent is gone: they find nothing.
        assert [answer.json()["data"]["count"] for answer in answers] == [0, 0, 0]
    finally:
        server.end()


def test_a_search_over_too_many_agents_is_too_expensive(tmp_path):
    """Each of them has its file opened, which is work for who asks for so many."""
    with (
        InProcess(tmp_path, embedder="none", open_namespaces=8, read_seconds=0.2) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        for number in range(150):
            memory = {"agent_id": f"agent-{number}", "content": "It rains in Bangkok."}
            assert client.post("/v1/memory/semantic", json=memory).status_code == 201
            episode = {"session_id": "s", "type": "action", "content": "It rains."}
            found = client.post("/v1/memory/episodic", json=memory | episode)
            assert found.status_code == 201
        for path in ("/v1/memory/semantic/search", "/v1/memory/search"):
            answer = client.post(path, json={"query": "rains"})
            assert answer.status_code == 413, answer.text
            assert answer.json()["error"]["code"] == "TOO_EXPENSIVE"
            assert "query" in answer.json()["error"]["message"]
        one = {"query": "rains", "agent_id": "agent-7"}
        assert client.post("/v1/memory/search", json=one).json()["data"]["count"] == 2


def test_the_other_dialects_say_it_in_their_own_way(tmp_path):
    with (
        InProcess(tmp_path, embedder="none", read_seconds=1e-9) as server,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        slow = {"value": "v" * 100_000}  # long enough for the thread
        assert client.put("/memory/ns/key", json=slow).status_code == 200
        with blocked(tmp_path):
            writing = threading.Thread(
                target=lambda: client.put("/memory/ns/other", json={"value": 1})
            )
            writing.start()
            time.sleep(0.2)
            answer = httpx.get(f"{server.url}/memory/ns/key", timeout=60)
        writing.join()
        assert answer.status_code in (413, 503)
        assert set(answer.json()) == {"detail"}
