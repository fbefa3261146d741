"""Connections: slow, large, pipelined, broken. Driven over sockets, with short deadlines."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest
from serving import InProcess, connected, exchange, received, request, status_of

from botwire_server.web.http import outgoing, protocol

SHORT = 0.4  # what the deadlines are here
LONG = 10.0  # much longer than they are here, shorter than they are in earnest for a body

BODY = b'{"value":"v"}'


@pytest.fixture
def hasty(tmp_path, monkeypatch):
    """A server with short deadlines; the path /slow takes three of them."""
    monkeypatch.setattr(protocol, "HEAD_SECONDS", SHORT)
    monkeypatch.setattr(protocol, "BODY_SECONDS", SHORT)
    monkeypatch.setattr(protocol, "DRAIN_SECONDS", SHORT)
    monkeypatch.setattr(outgoing, "ANSWER_SECONDS", SHORT)

    def with_slow(app):
        async def slow(scope, receive, send):
            if scope["type"] == "http" and scope["path"] == "/memory/slow/k":
                await asyncio.sleep(3 * SHORT)
            await app(scope, receive, send)

        return slow

    with InProcess(tmp_path, app=with_slow) as server:
        yield server


def closed_after(connection) -> tuple[bytes, float]:
    """What came until the other side closed, and how long that took."""
    started = time.monotonic()
    connection.settimeout(LONG)
    return received(connection), time.monotonic() - started


PUT = request("PUT", "/memory/ns/k", BODY, close=False)
GET = request("GET", "/memory/ns/k", close=False)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", 0),
        (b"\r\n", 0),
        (b"G", 408),
        (GET[:20], 408),
        (GET[:-2], 408),
        (PUT[:-5], 408),
        (PUT[: -len(BODY)], 408),
        (request("PUT", "/memory/ns/k", Content_Type="application/json",
                 Transfer_Encoding="chunked") + b"5\r\nab", 408),
    ],
    ids=["nothing", "blank", "one byte", "half a line", "half a head", "half a body", "no body",
         "half a chunk"],
)  # fmt: skip
def test_a_client_that_stops_sending_is_closed(hasty, sent, status):
    with connected(hasty.address) as connection:
        connection.sendall(sent)
        answer, seconds = closed_after(connection)
    assert seconds < LONG
    if status:
        assert status_of(answer) == status
        assert b'{"detail":"' in answer


def test_a_head_that_drips_is_closed_however_steadily(hasty):
    with connected(hasty.address) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\n")
        started = time.monotonic()
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while time.monotonic() - started < LONG:
                connection.sendall(b"a: b\r\n")
                time.sleep(SHORT / 10)
    assert time.monotonic() - started < LONG


@pytest.mark.parametrize("half", [GET[:20], PUT[:-5]], ids=["half a head", "half a body"])
@pytest.mark.parametrize("together", [True, False], ids=["in one packet", "apart"])
def test_a_second_request_that_stops_half_way_is_closed_too(hasty, half, together):
    with connected(hasty.address) as connection:
        if together:
            connection.sendall(PUT + half)
        else:
            connection.sendall(PUT)
            assert connection.recv(10_000).startswith(b"HTTP/1.1 200")
            connection.sendall(half)
        _, seconds = closed_after(connection)
    assert seconds < LONG


def test_a_slow_handler_is_left_alone(hasty):
    answer = exchange(hasty.address, request("PUT", "/memory/slow/k", BODY))
    assert status_of(answer) == 200


def test_a_slow_handler_is_left_alone_while_the_next_request_waits(hasty):
    with connected(hasty.address) as connection:
        connection.sendall(
            request("PUT", "/memory/slow/k", BODY, close=False) + request("GET", "/memory/slow/k")
        )
        answer = received(connection)
    assert answer.count(b"HTTP/1.1 200") == 2


def test_a_connection_that_is_kept_alive_may_pause_longer_than_a_head(hasty):
    with connected(hasty.address) as connection:
        for _ in range(3):
            connection.sendall(PUT)
            assert connection.recv(10_000).startswith(b"HTTP/1.1 200")
            time.sleep(2 * SHORT)


def test_idle_connections_keep_nobody_out(hasty):
    connections = [connected(hasty.address) for _ in range(50)]
    for connection in connections:
        connection.__enter__()
    try:
        assert httpx.get(f"{hasty.url}/health").status_code == 200
    finally:
        for connection in connections:
            connection.__exit__(None, None, None)


@pytest.mark.parametrize("rest", [b"", GET[:20], PUT[:-5]], ids=["", "half a head", "half a body"])
def test_a_client_that_does_not_read_its_answer_is_closed(hasty, rest):
    httpx.put(f"{hasty.url}/memory/ns/k", json={"value": "x" * 1_000_000})
    many = GET * 40  # more than the buffers of both sides hold
    with connected(hasty.address) as connection:
        connection.sendall(many + rest)
        time.sleep(4 * SHORT)
        answer, seconds = closed_after(connection)
    assert len(answer) < 40 * 1_000_000
    assert seconds < LONG


def test_requests_in_one_packet_are_answered_in_their_order(server, ns):
    parts = [
        request("PUT", f"/memory/{ns}/k", b'{"value":"%d"}' % number, close=False)
        + request("GET", f"/memory/{ns}/k", close=False)
        for number in range(20)
    ]
    answer = exchange(server.address, b"".join(parts), request("GET", f"/memory/{ns}/none"))
    seen = [answer.find(b'"value":"%d"' % number) for number in range(20)]
    assert -1 not in seen
    assert seen == sorted(seen)
    assert answer.count(b"HTTP/1.1 200") == 40
    assert answer.count(b"HTTP/1.1 404") == 1


def test_a_large_body_behind_another_request(server, http, ns):
    """The second body comes in several packets, of which the first holds a whole request."""
    body = b'{"value":"%s"}' % (b"x" * 300_000)
    whole = request("PUT", f"/memory/{ns}/a", BODY, close=False) + request(
        "PUT", f"/memory/{ns}/b", body
    )
    answer = exchange(
        server.address, whole[:1_000], whole[1_000:150_000], whole[150_000:], pause=0.1
    )
    assert answer.count(b"HTTP/1.1 200") == 2
    assert len(http.get(f"/memory/{ns}/b").json()["value"]) == 300_000


def test_a_small_head_behind_a_large_body(server, ns):
    """The packet that ends the body holds the beginning of the next head."""
    large = request("PUT", f"/memory/{ns}/k", b'{"value":"%s"}' % (b"x" * 300_000), close=False)
    both = large + request("GET", "/health")
    answer = exchange(server.address, both[:-20], both[-20:], pause=0.2)
    assert answer.count(b"HTTP/1.1 200") == 2


def test_a_request_in_single_bytes(server, ns):
    sent = request("PUT", f"/memory/{ns}/k", BODY)
    answer = exchange(server.address, *(sent[n : n + 1] for n in range(len(sent))))
    assert status_of(answer) == 200


def test_a_connection_is_kept_alive(server, ns):
    with connected(server.address) as connection:
        for _ in range(100):
            connection.sendall(request("PUT", f"/memory/{ns}/k", BODY, close=False))
            answer = connection.recv(10_000)
            assert answer.startswith(b"HTTP/1.1 200")
            assert b"connection: close" not in answer.lower()


def test_http_1_0(server):
    answer = exchange(server.address, b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert status_of(answer) == 200
    assert answer.endswith(b"}")


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n",
        b"PUT /memory/a/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"PUT /memory/a/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"PUT /memory/a/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"PUT /memory/a/k HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxx\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /memory/a/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /memory/a/k\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
)
def test_what_is_no_http_is_400_and_closed(server, sent):
    answer = exchange(server.address, sent)
    assert status_of(answer) in (400, 415)
    assert b'{"detail":"' in answer
    assert status_of(exchange(server.address, request("GET", "/health"))) == 200


# Heads.


def test_a_large_head_is_taken_up_to_its_limit(server):
    assert status_of(exchange(server.address, request("GET", "/health", X="y" * 50_000))) == 200
    for size in (66_000, 200_000, 2_000_000):
        answer = refused_on_the_way(server, [request("GET", "/health", X="y" * size)])
        assert status_of(answer) == 431, size
        assert b'{"detail":"' in answer


def test_many_headers_and_a_long_path_are_large_too(server):
    many = request("GET", "/health", **{f"X{n}": "y" * 10 for n in range(6_000)})
    assert status_of(refused_on_the_way(server, [many])) == 431
    long = request("GET", "/memory/ns/" + "k" * 70_000)
    assert status_of(refused_on_the_way(server, [long])) == 431


def test_a_large_head_in_pieces_fills_no_memory(make_server):
    server = make_server()
    httpx.get(f"{server.url}/health")
    before = server.settled_rss()
    pieces = [b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ", *[b"y" * 100_000] * 300]
    answer = refused_on_the_way(server, pieces)
    assert status_of(answer) == 431
    assert server.rss - before < 20_000_000


def test_a_large_head_behind_another_request(server, ns):
    first = request("GET", f"/memory/{ns}", close=False)
    answer = refused_on_the_way(server, [first + b"GET /health HTTP/1.1\r\nX: ", b"y" * 300_000])
    # The first may be answered still; in no case is its answer the refusal of the second.
    assert [status_of(part) for part in answer.split(b"HTTP/1.1")[1:]] in ([200], [200, 431]), (
        answer
    )


def test_a_large_body_is_no_large_head(server, ns):
    body = b'{"value":"%s"}' % (b"x" * 900_000)
    sent = request("PUT", f"/memory/{ns}/k", body)
    assert status_of(exchange(server.address, sent)) == 200
    head, rest = sent[:100], sent[100:]
    assert status_of(exchange(server.address, head, rest, pause=0.1)) == 200


def refused_on_the_way(server, pieces: list[bytes]) -> bytes:
    """Send until the server closes; what it said."""
    with connected(server.address) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
        except (ConnectionResetError, BrokenPipeError):
            pass
        return received(connection)
