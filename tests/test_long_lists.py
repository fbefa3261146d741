"""Lists of any length: whole for who asks for all, by the page for who asks so, not in memory.

The clients are the published ones, the readers real sockets.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import orjson
import pytest
from mnemora import MnemoraSync
from serving import Server, until

MEGABYTE = 2**20
# What memory may grow by while 20 MB are read.
MOST_GROWTH = 30 * MEGABYTE


def resident(server: Server) -> int:
    """The bytes of memory that the server has now."""
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmRSS")


@contextlib.contextmanager
def growth(server: Server, most: int = MOST_GROWTH) -> Iterator[None]:
    """Watch the server's memory: it must not grow by more."""
    before = highest = resident(server)
    over = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not over.wait(0.01):
            highest = max(highest, resident(server))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    assert highest - before <= most, f"grew by {(highest - before) / MEGABYTE:.0f} MB"


@contextlib.contextmanager
def client_of(server: Server) -> Iterator[httpx.Client]:
    """A client that is patient."""
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture
def ask(request: pytest.FixtureRequest) -> Iterator[Callable[[Server], httpx.Client]]:
    """Makes clients that are closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda server: stack.enter_context(client_of(server))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with 20 MB of each kind of list: keys, replay, states."""
    server = Server(tmp_path_factory.mktemp("long"), "--max-body-bytes", "33554432").start()
    try:
        with client_of(server) as http:
            items = [
                {
                    "agent_id": "a",
                    "session_id": "s",
                    "type": "action",
                    "content": f"{n} " + "x" * 950,
                }
                for n in range(20_000)
            ]
            for start in range(0, len(items), 1_000):
                body = {"items": items[start : start + 1_000]}
                assert http.post("/v1/memory/episodic/batch", json=body).status_code == 201
        yield server
    finally:
        server.end()


def add_keys(server: Server, namespace: str, count: int, length: int) -> None:
    """Entries, straight into the file of a server that is stopped."""
    from botwire_server.store import entries
    from botwire_server.store.driver import connect

    [file] = [
        path for path in server.data.glob("tenants/*/*.db") if holds(path, namespace_entries=1)
    ]
    connection = connect(file)
    connection.execute("BEGIN")
    for number in range(count):
        connection.execute("UPDATE totals SET revision = revision + 1")
        entries.put(connection, f"{number:06}-" + "k" * (length - 7), b"1", size=1)
    connection.execute("COMMIT")
    connection.close()


def holds(path: Path, *, namespace_entries: int) -> bool:
    """Whether a file has so many entries."""
    from botwire_server.store.driver import connect

    with contextlib.closing(connect(path)) as connection:
        [count] = connection.execute("SELECT count(*) FROM entries").fetchone()
    return bool(count == namespace_entries)


def test_replay_of_20_mb_is_whole_and_costs_no_memory(filled):
    client = MnemoraSync(api_key="k" * 32, base_url=filled.url)
    with client_of(filled) as http:
        http.get("/v1/memory/episodic/a?limit=1")
        with growth(filled), http.stream("GET", "/v1/memory/episodic/a/sessions/s") as answer:
            body = b"".join(answer.iter_bytes())
    assert len(body) > 20 * MEGABYTE
    data = orjson.loads(body)["data"]
    assert data["count"] == 20_000 == len(data["episodes"])
    assert [each["content"].split()[0] for each in data["episodes"]] == [
        str(n) for n in range(20_000)
    ]
    assert "cursor" not in data
    client.close()


def test_the_unmodified_clients_read_all(make_server, memory):
    server = make_server()
    memory("n", server.url).set("first", "1")
    server.stop()
    add_keys(server, "n", 50_000, 400)
    server.start()
    client = memory("n", server.url)
    assert client.get("first") == "1"
    with growth(server), httpx.stream("GET", f"{server.url}/memory/n", timeout=60) as answer:
        size = sum(len(piece) for piece in answer.iter_bytes())
    assert size > 20 * MEGABYTE
    keys = client.keys()
    assert len(keys) == len(set(keys)) == 50_001
    assert keys[-1] == "first" and keys[0].startswith("049999-")


def test_all_states_are_listed(make_server):
    server = make_server()
    with MnemoraSync(api_key="k", base_url=server.url) as client:
        for number in range(1_200):
            client.store_state("a", {"n": number}, session_id=f"s{number}")
        found = client.list_sessions("a")
    assert sorted(found) == sorted(f"s{number}" for number in range(1_200))


def pages(http: httpx.Client, path: str, of: str, limit: int) -> list[dict]:
    """Every page of a listing."""
    found, cursor = [], {}
    for _ in range(1_000):
        answer = http.get(path, params={"limit": limit, **cursor})
        assert answer.status_code == 200, answer.text
        body = answer.json()
        data = body.get("data", body)
        assert data["count"] == len(data[of]) <= limit
        found += data[of]
        if "cursor" not in data:
            return found
        cursor = {"cursor": data["cursor"]}
    raise AssertionError("no end")


def test_pages_are_the_whole(http, ns):
    for number in range(23):
        state = {"agent_id": ns, "session_id": f"s{number}", "data": {"n": number}}
        assert http.post("/v1/state", json=state).status_code == 201
        http.put(f"/memory/{ns}/k{number}", json={"value": 1})
        episode = {"agent_id": ns, "session_id": "s", "type": "action", "content": f"e{number}"}
        assert http.post("/v1/memory/episodic", json=episode).status_code == 201
    for path, of in (
        (f"/memory/{ns}", "keys"),
        (f"/memory/{ns}", "entries"),
        (f"/v1/state/{ns}/sessions", "sessions"),
        (f"/v1/state/{ns}/sessions", "session_details"),
        (f"/v1/memory/episodic/{ns}/sessions/s", "episodes"),
        (f"/v1/memory/episodic/{ns}", "episodes"),
    ):
        body = http.get(path).json()
        whole = body.get("data", body)[of]
        assert len(whole) == 23
        for limit in (1, 7, 22, 23, 24):
            assert pages(http, path, of, limit) == whole, (path, of, limit)


@pytest.mark.parametrize("cursor", ["", "s", "s1", "s-1-1", "s1-", "e1", "s99999999999999999999-1"])
def test_a_cursor_of_somebody_elses_is_refused(http, ns, cursor):
    answer = http.get(f"/v1/state/{ns}/sessions", params={"cursor": cursor})
    assert answer.status_code == 400
    assert "cursor" in answer.json()["error"]["message"]


def test_over_the_limit_of_an_answer_it_says_how_to_page(make_server):
    server = make_server("--max-answer-bytes", "300000")
    with client_of(server) as http:
        for number in range(3):
            text = {"value": "v" * 100_000}
            http.put(f"/memory/n/{number}", json=text)
            for each in range(4):
                body = {
                    "agent_id": "n",
                    "session_id": "s",
                    "type": "action",
                    "content": f"{number} {each} " + "x" * 30_000,
                }
                assert http.post("/v1/memory/episodic", json=body).status_code == 201
        answer = http.get("/v1/memory/episodic/n/sessions/s")
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "PAYLOAD_TOO_LARGE"
        assert "limit" in answer.json()["error"]["message"]
        assert len(pages(http, "/v1/memory/episodic/n/sessions/s", "episodes", 4)) == 12
        names = "n" * 500
        for number in range(600):
            http.put(f"/memory/m/{number}{names}", json={"value": 1})
        answer = http.get("/memory/m")
        assert answer.status_code == 413 and "limit" in answer.json()["detail"]
        assert len(pages(http, "/memory/m", "keys", 100)) == 600


def test_who_does_not_read_costs_no_memory(filled):
    """Thirty clients that ask for 20 MB and read nothing."""
    host, port = filled.url.removeprefix("http://").split(":")
    request = b"GET /v1/memory/episodic/a/sessions/s HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with growth(filled, 60 * MEGABYTE), contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection((host, int(port)))) for _ in range(30)
        ]
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.sendall(request)
        # Each has its answer begun.
        begun = []
        for client in clients:
            client.settimeout(60)
            begun.append(client.recv(12))
        # On a machine that is busy the last ones may have to come again.
        assert set(begun) <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}
        assert begun.count(b"HTTP/1.1 200") >= 10
        assert httpx.get(filled.url + "/health").status_code == 200


def test_who_does_not_read_leaves_room_for_what_is_written(tmp_path):
    """What waits takes disk; where it is small, writers need the rest of it more."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=110m,mode=700", "tmpfs", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    server = Server(small)
    try:
        server.start()
        item = {"agent_id": "a", "session_id": "s", "type": "action", "content": "x" * 950}
        for _ in range(6):
            stored = httpx.post(
                f"{server.url}/v1/memory/episodic/batch", json={"items": [item] * 800}, timeout=60
            )
            assert stored.status_code == 201
        host, port = server.url.removeprefix("http://").split(":")
        request = b"GET /v1/memory/episodic/a/sessions/s HTTP/1.1\r\nHost: localhost\r\n\r\n"
        with contextlib.ExitStack() as stack:
            begun = set()
            for _ in range(24):
                reader = socket.create_connection((host, int(port)))
                stack.enter_context(reader)
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                reader.settimeout(60)
                reader.sendall(request)
                begun.add(reader.recv(12))
                if shutil.disk_usage(small).free < 30 * MEGABYTE:
                    break
            assert begun <= {b"HTTP/1.1 200", b"HTTP/1.1 503"}
            assert shutil.disk_usage(small).free >= 30 * MEGABYTE
            assert httpx.put(f"{server.url}/memory/m/k", json={"value": "v"}).status_code == 200
    finally:
        server.end()
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_a_list_is_of_one_moment(make_server, ask):
    """Keys that are moved around while it is read: none is missing, none is there twice."""
    server = make_server()
    http = ask(server)
    for number in range(3_000):
        http.put(f"/memory/n/{number:04}" + "k" * 200, json={"value": 1})
    over = threading.Event()

    def move() -> None:
        with client_of(server) as other:
            number = 0
            while not over.is_set():
                other.put(f"/memory/n/{number % 3_000:04}" + "k" * 200, json={"value": 2})
                number += 7

    mover = threading.Thread(target=move)
    mover.start()
    try:
        for _ in range(20):
            found = http.get("/memory/n").json()
            assert len(found["keys"]) == len(set(found["keys"])) == found["count"] == 3_000
            assert found["keys"] == [each["key"] for each in found["entries"]]
    finally:
        over.set()
        mover.join()


def test_purge_and_stop_wait_for_no_reader(make_server, ask):
    server = make_server()
    http = ask(server)
    body = [
        {"agent_id": "n", "session_id": "s", "type": "action", "content": "x" * 900}
        for _ in range(1_000)
    ]
    for _ in range(20):
        assert http.post("/v1/memory/episodic/batch", json={"items": body}).status_code == 201
    answers: list[int] = []

    def read() -> None:
        with client_of(server) as other:
            for _ in range(5):
                with contextlib.suppress(httpx.TransportError):
                    answer = other.get("/v1/memory/episodic/n/sessions/s")
                    answers.append(answer.status_code)
                    if answer.status_code == 200:
                        assert answer.json()["data"]["count"] in (0, 20_000)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    time.sleep(0.3)
    began = time.monotonic()
    assert http.delete("/v1/memory/n").status_code == 200
    assert time.monotonic() - began < 10
    for reader in readers:
        reader.join()
    assert set(answers) <= {200, 503}
    assert http.get("/v1/memory/episodic/n/sessions/s").json()["data"]["count"] == 0
    left = list(server.data.glob("tenants/*/*"))
    until(lambda: not any(path.exists() for path in left), "the purged file is gone")


def test_nothing_is_left_of_what_waited(make_server, ask):
    server = make_server()
    http = ask(server)
    for number in range(8):
        http.put(f"/memory/n/{number}", json={"value": "v" * 900_000})
        assert len(http.get(f"/memory/n/{number}").json()["value"]) == 900_000
    descriptors = Path(f"/proc/{server.process.pid}/fd")

    def unnamed() -> list[Path]:
        return [path for path in descriptors.iterdir() if "deleted" in os.readlink(path)]

    until(lambda: not unnamed(), "no file without a name is open")
    names = {path.name for path in server.data.iterdir()}
    assert not [name for name in names if name.startswith("tmp")]


def test_head_says_the_length(filled):
    with client_of(filled) as http:
        head = http.head("/v1/memory/episodic/a/sessions/s")
        assert head.status_code == 200 and int(head.headers["content-length"]) > 20 * MEGABYTE
        assert http.get("/health").status_code == 200


def test_http_1_0_reads_it_whole(filled):
    host, port = filled.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as client:
        client.sendall(b"GET /v1/memory/episodic/a/sessions/s HTTP/1.0\r\nHost: localhost\r\n\r\n")
        got = bytearray()
        while piece := client.recv(65_536):
            got += piece
    head, _, body = bytes(got).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert json.loads(body)["data"]["count"] == 20_000


@pytest.mark.slow
def test_a_search_of_all_agents_holds_what_it_shows(make_server, ask):
    server = make_server()
    http = ask(server)
    for agent in range(8):
        for number in range(15):
            body = {
                "agent_id": f"a{agent}",
                "session_id": "s",
                "type": "action",
                "content": f"quokka {number} " + "x" * 900_000,
            }
            assert http.post("/v1/memory/episodic", json=body).status_code == 201
    sought = {"query": "quokka", "top_k": 15, "mode": "keyword"}
    http.post("/v1/memory/search", json={**sought, "top_k": 1})
    with growth(server, 70 * MEGABYTE):
        answer = http.post("/v1/memory/search", json=sought)
    assert answer.json()["data"]["count"] == 15
    times = [each["timestamp"] for each in answer.json()["data"]["results"]]
    assert times == sorted(times, reverse=True)
