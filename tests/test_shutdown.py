"""SIGTERM: what is in flight finishes, who stalls does not hold it up, nothing is lost."""

from __future__ import annotations

import signal
import threading
import time

import httpx
import pytest
from serving import connected, received, request, status_of, until

BODY = b'{"value":"%s"}' % (b"x" * 600_000)


def terminated(server) -> None:
    server.process.send_signal(signal.SIGTERM)


def value(server, path: str):
    return httpx.get(server.url + path, timeout=30).json()["value"]


def test_an_upload_that_makes_progress_is_finished(make_server):
    server = make_server()
    sent = request("PUT", "/memory/ns/k", BODY)
    pieces = [sent[start : start + 40_000] for start in range(0, len(sent), 40_000)]
    with connected(server.address) as connection:
        for number, piece in enumerate(pieces):
            if number == 5:
                terminated(server)
            connection.sendall(piece)
            time.sleep(0.2)  # two seconds after the signal: longer than one that stalls may take
        assert status_of(received(connection)) == 200
    assert server.process.wait(30) in (0, -signal.SIGTERM)
    server.start()
    assert len(value(server, "/memory/ns/k")) == 600_000


@pytest.mark.parametrize(
    "sent",
    [b"", b"GET /hea", request("PUT", "/memory/ns/k", BODY)[:2_000]],
    ids=["idle", "half a head", "half a body"],
)
def test_a_client_that_stalls_does_not_hold_it_up(make_server, sent):
    server = make_server()
    with connected(server.address) as connection, connected(server.address) as idle:
        idle.sendall(request("GET", "/health", close=False))
        assert idle.recv(1_000).startswith(b"HTTP/1.1 200")
        connection.sendall(sent)
        time.sleep(0.2)
        started = time.monotonic()
        terminated(server)
        server.process.wait(30)
        assert time.monotonic() - started < 8
    assert "Traceback" not in server.log


def test_a_client_that_reads_nothing_does_not_hold_it_up(make_server):
    server = make_server()
    httpx.put(f"{server.url}/memory/ns/k", json={"value": "x" * 1_000_000})
    with connected(server.address) as connection:
        connection.sendall(request("GET", "/memory/ns/k", close=False) * 30)
        time.sleep(0.3)
        started = time.monotonic()
        terminated(server)
        server.process.wait(30)
        assert time.monotonic() - started < 20  # the ten seconds that requests in flight have


def test_what_was_acknowledged_is_there_and_what_was_not_is_whole(make_server):
    server = make_server()
    acknowledged: list[str] = []

    def write(who: int) -> None:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for number in range(100_000):
                try:
                    answer = client.put(f"/memory/ns/{who}-{number}", json={"value": number})
                except httpx.HTTPError:
                    return
                assert answer.status_code == 200
                acknowledged.append(f"{who}-{number}")

    threads = [threading.Thread(target=write, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: len(acknowledged) > 100, "a hundred writes")
    assert server.stop() in (0, -signal.SIGTERM)
    for thread in threads:
        thread.join(30)
    assert "error" not in server.log
    # Every file was closed in peace: no WAL is left.
    assert not list(server.data.rglob("*-wal"))
    server.start()
    keys = set(httpx.get(f"{server.url}/memory/ns").json()["keys"])
    assert set(acknowledged) <= keys
    assert len(keys) <= len(acknowledged) + 8


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_quietly(make_server, stop):
    server = make_server()
    httpx.put(f"{server.url}/memory/ns/k", json={"value": "v"})
    server.process.send_signal(stop)
    assert server.process.wait(30) in (0, 130, -stop)
    assert "Traceback" not in server.log
    server.start()
    assert value(server, "/memory/ns/k") == "v"
