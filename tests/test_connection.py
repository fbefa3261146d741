"""What a connection does around its requests: refused bodies, answers nobody takes, places."""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from contextlib import suppress

import httpx
import pytest
from serving import JSON, InProcess, connected, exchange, received, request, status_of, until
from tenancy import make_tenant

from botwire_server.web.http import outgoing, places, protocol
from botwire_server.web.http.places import Places

SHORT = 0.4
BODY = b'{"value":"v"}'
PRIVATE = {
    "cache-control": "no-store",
    "vary": "Authorization, X-API-Key, Cookie, Origin",
    "x-content-type-options": "nosniff",
}


def put(length: int, *more: str) -> bytes:
    fields = ["Host: localhost", "Content-Type: application/json", f"Content-Length: {length}"]
    return "\r\n".join(["PUT /memory/ns/k HTTP/1.1", *fields, *more, "", ""]).encode()


# Who may keep an answer.


@pytest.mark.parametrize(
    "path",
    ["/memory/ns/none", "/memory/ns", "/v1/state/a/b", "/nowhere", "/v1/nowhere", "/health",
     "/v1/health", "/ready", "/metrics", "/admin/v1/tenants"],
)  # fmt: skip
def test_an_answer_is_for_nobodys_cache(http, path):
    for method in ("GET", "HEAD", "DELETE", "OPTIONS"):
        answer = http.request(method, path)
        assert {name: answer.headers.get(name) for name in PRIVATE} == PRIVATE, method


def test_refusals_on_the_way_are_for_nobodys_cache(server):
    for sent in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", put(10, "Transfer-Encoding: x")):
        answer = exchange(server.address, sent).lower()
        for name, value in PRIVATE.items():
            assert f"\r\n{name}: {value}\r\n".lower().encode() in answer


def test_an_entry_that_did_not_change_is_for_nobodys_cache(http, ns):
    etag = http.put(f"/memory/{ns}/k", json={"value": 1}).headers["etag"]
    answer = http.get(f"/memory/{ns}/k", headers={"If-None-Match": etag})
    assert answer.status_code == 304
    assert {name: answer.headers.get(name) for name in PRIVATE} == PRIVATE


def test_what_is_the_same_for_all_may_be_kept_as_before(http):
    document = http.get("/openapi.json")
    assert document.headers["cache-control"] == "no-cache"
    page = http.get("/docs").text
    name = page[page.index("docs/docs.js?v=") :].split('"')[0]
    file = http.get(f"/{name}")
    assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
    for answer in (document, file):
        assert "vary" not in answer.headers
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_metrics_listener_keeps_the_same_rules(make_server):
    server = make_server("--metrics", "127.0.0.1:0")
    [port] = re.findall(r"metrics +http://127.0.0.1:(\d+)", server.banner)
    address = ("127.0.0.1", int(port))
    for sent, status in (
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        (request("GET", "/health", Host="evil.example"), 421),
        (request("GET", "/health", Transfer_Encoding="x"), 501),
        (request("GET", "/health", Connection="Upgrade, close", Upgrade="h2c"), 200),
    ):
        answer = exchange(address, sent)
        assert status_of(answer) == status
        assert b"\r\ncache-control: no-store\r\n" in answer


# Bodies of requests that are refused.


@pytest.mark.parametrize("size", [1_200_000, 4_000_000, 20_000_000])
def test_a_client_that_sends_to_the_end_reads_the_413(server, size):
    with connected(server.address) as connection:
        connection.sendall(put(size))
        for start in range(0, size, 100_000):
            connection.sendall(b"x" * min(100_000, size - start))
        answer = received(connection)
    assert status_of(answer) == 413
    assert answer.count(b"HTTP/1.1 ") == 1


def test_an_answer_before_the_body_waits_for_it_only_while_it_comes(server):
    with connected(server.address) as connection:
        connection.sendall(put(5_000_000) + b"x" * 1_000)
        connection.settimeout(10)
        assert connection.recv(12) == b"HTTP/1.1 413"


def test_the_next_request_behind_a_refused_body_is_answered(server, ns):
    body = b"x" * 600_000
    refused = request("PUT", "/memory/a%ff/k", body, close=False)
    answer = exchange(
        server.address, refused[:300_000], refused[300_000:], request("GET", "/health"), pause=0.1
    )
    assert [status_of(part) for part in answer.split(b"HTTP/1.1")[1:]] == [400, 200]


def test_a_refused_body_is_read_for_so_long_and_no_longer(tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "DRAIN_SECONDS", SHORT)
    monkeypatch.setattr(protocol, "DRAIN_BYTES", 3_000_000)
    with InProcess(tmp_path) as server:
        started = time.monotonic()
        with connected(server.address) as connection:
            connection.sendall(put(10**9))
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                for _ in range(100):  # seconds, a little at a time
                    connection.sendall(b"x" * 100)
                    time.sleep(0.1)
        assert time.monotonic() - started < 8
        with connected(server.address) as connection:
            connection.sendall(put(10**9))
            sent = 0
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                while sent < 10**9:
                    sent += connection.send(b"x" * 100_000)
        assert sent < 60_000_000  # what the buffers of both systems hold comes on top


def test_who_waits_for_100_continue_is_told(server):
    with connected(server.address) as connection:
        connection.sendall(put(len(BODY), "Expect: 100-continue", "Connection: close"))
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(BODY)
        assert status_of(received(connection)) == 200


def test_who_waits_for_100_continue_and_is_refused_is_told_that_and_no_more(server):
    with connected(server.address) as connection:
        connection.sendall(put(10**9, "Expect: 100-continue"))
        connection.settimeout(10)
        answer = connection.recv(10_000)
        assert status_of(answer) == 413
        assert b"connection: close" in answer


# Answers that are not taken.


class Parts:
    """An application whose answer comes in 400 parts of 100 kB; how many went out."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self, app):
        async def answer(scope, receive, send):
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            await send({"type": "http.response.start", "status": 200, "headers": []})
            for _ in range(400):
                self.made += 1
                await send({"type": "http.response.body", "body": b"x" * 10**5, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

        return answer


@pytest.fixture
def parts(tmp_path, monkeypatch):
    monkeypatch.setattr(outgoing, "ANSWER_SECONDS", SHORT)
    made = Parts()
    with InProcess(tmp_path, app=made) as server:
        yield server, made


def narrow(address: tuple[str, int]) -> socket.socket:
    """A connection that holds little."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
    connection.settimeout(30)
    connection.connect(address)
    return connection


def test_who_takes_nothing_is_cut_and_costs_little(parts):
    server, made = parts
    with narrow(server.address) as connection:
        connection.sendall(request("GET", "/"))
        time.sleep(4 * SHORT)
        assert len(received(connection)) < 40_000_000
    assert made.made < 200
    until(lambda: not server._uvicorn.server_state.connections, "the connection is gone")


def test_who_reads_slowly_and_steadily_is_not_cut(parts):
    server, _ = parts
    with narrow(server.address) as connection:
        connection.sendall(request("GET", "/"))
        seen, started = 0, time.monotonic()
        while time.monotonic() - started < 8 * SHORT:
            seen += len(connection.recv(200_000))
            time.sleep(SHORT / 8)
        rest = received(connection)
    assert seen + len(rest) > 40_000_000
    assert rest.endswith(b"0\r\n\r\n")


def test_an_answer_without_length_for_http_1_0_ends_with_the_connection(parts):
    server, _ = parts
    answer = exchange(server.address, b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b"x" * 40_000_000
    assert b"transfer-encoding" not in head


def test_what_waits_behind_a_request_is_little(make_server):
    server = make_server()
    httpx.get(f"{server.url}/health")
    before = server.settled_rss()
    sent = request("GET", "/memory/ns/k", close=False) * 20_000
    connections = [socket.create_connection(server.address) for _ in range(40)]

    def send(connection: socket.socket) -> None:
        connection.settimeout(2)
        with suppress(TimeoutError):
            connection.sendall(sent)

    threads = [threading.Thread(target=send, args=(one,)) for one in connections]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.rss - before < 30_000_000
    assert httpx.get(f"{server.url}/health", timeout=5).status_code == 200
    for connection in connections:
        connection.close()


# Places.


@pytest.fixture
def few(tmp_path, monkeypatch, caplog):
    """A keyed server that thinks it has 40 descriptors more than it uses, and who rests long."""
    monkeypatch.setattr(places, "LEAST_REST_SECONDS", SHORT)
    monkeypatch.setattr(places, "LOOK_SECONDS", 0.05)
    key = make_tenant(tmp_path / "data", "acme")
    caplog.set_level(logging.WARNING)
    limit = int((places.descriptors() + 60) / places.SCARCE)
    monkeypatch.setattr(Places, "limit", property(lambda _: limit))
    with InProcess(tmp_path / "data") as server:
        yield server, key


def resting(address: tuple[str, int], key: str | None, *, path: str = "/memory/ns/k"):
    """A connection on which a request was answered."""
    connection = socket.create_connection(address, 10)
    connection.sendall(request("GET", path, close=False, X_API_Key=key))
    assert connection.recv(10_000).startswith(b"HTTP/1.1 ")
    return connection


def closed(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False


def test_strangers_and_who_rests_longest_give_their_places_back(few, caplog):
    server, key = few
    old = [resting(server.address, key) for _ in range(5)]
    time.sleep(0.05)
    strangers = [resting(server.address, None, path="/health") for _ in range(5)]
    refused = [resting(server.address, "bw_wrong") for _ in range(5)]
    time.sleep(1.5 * SHORT)
    young = [resting(server.address, key) for _ in range(45)]
    until(lambda: sum(map(closed, strangers + refused)) >= 3, "strangers are closed first")
    assert not any(map(closed, old)) or all(map(closed, strangers + refused))
    assert not any(map(closed, young))
    more = [resting(server.address, key) for _ in range(12)]
    until(lambda: all(map(closed, strangers + refused)), "all strangers are closed")
    until(lambda: any(map(closed, old)), "then those that rest longest")
    assert not any(map(closed, more))
    until(lambda: "descriptors are scarce: closed" in caplog.text, "the log says so")
    for connection in [*old, *strangers, *refused, *young, *more]:
        connection.close()


def test_nobody_is_closed_while_there_are_places(few):
    server, key = few
    kept = [resting(server.address, None, path="/health") for _ in range(10)]
    time.sleep(2 * SHORT)
    kept += [resting(server.address, key) for _ in range(3)]
    time.sleep(SHORT)
    assert not any(map(closed, kept))
    for connection in kept:
        connection.close()


def test_a_first_request_may_take_a_connection_that_is_told_to_go(server):
    """What is closed is idle: a body under way is no rest."""
    with connected(server.address) as connection:
        connection.sendall(put(len(BODY))[:-2])
        time.sleep(0.2)
        connection.sendall(b"\r\n" + BODY)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_how_many_descriptors_are_open():
    before = places.descriptors()
    with socket.socket(), socket.socket():
        assert places.descriptors() == before + 2


@pytest.mark.parametrize("path", ["/memory/ns/k", "/v1/memory/semantic"])
def test_httpx_reads_a_413_while_it_still_sends(server, path):
    body = b'"' + b"x" * 4_000_000
    for _ in range(3):
        answer = httpx.put(server.url + path, content=body, headers=JSON, timeout=30)
        assert answer.status_code in (405, 413)
