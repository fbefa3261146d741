"""What goes wrong outside: clients that vanish, disks that are full, kill -9."""

from __future__ import annotations

import json
import random
import threading
import time
from contextlib import closing

import httpx
from serving import connected, namespace_files, query, request

from botwire_server.store.driver import connect


def is_consistent(file) -> bool:
    """Whether what is counted is what is there, and the file is sound."""
    with closing(connect(file)) as connection:
        [sound] = connection.execute("PRAGMA integrity_check").fetchone()
        counted = connection.execute(
            "SELECT entries, bytes, key_bytes, writes FROM totals"
        ).fetchone()
        there = connection.execute(
            "SELECT count(*), coalesce(sum(bytes), 0),"
            " coalesce(sum(octet_length(key)), 0), max(revision) FROM entries"
        ).fetchone()
    return sound == "ok" and counted[:3] == there[:3] and counted[3] >= (there[3] or 0)


def test_500_clients_that_vanish_leave_no_half_and_no_open_transaction(make_server):
    server = make_server()
    chance = random.Random(7)
    pad = b"x" * 3_000
    for number in range(500):
        body = b'{"value":{"number":%d,"pad":"%s"}}' % (number, pad)
        sent = request("PUT", f"/memory/ns/k{number}", body, close=False)
        if chance.random() < 0.2:  # while it is being sent
            sent = sent[: chance.randrange(1, len(sent))]
        with connected(server.address) as connection:
            connection.sendall(sent)
            if chance.random() < 0.7:
                time.sleep(chance.random() * 0.004)
            if chance.random() < 0.3:
                connection.shutdown(1)
    with httpx.Client(base_url=server.url, timeout=30) as client:
        assert client.put("/memory/ns/last", json={"value": "v"}).status_code == 200
        keys = client.get("/memory/ns").json()["keys"]
        assert 100 < len(keys) < 501
        for key in keys[1::10]:
            value = client.get(f"/memory/ns/{key}").json()["value"]
            assert (f"k{value['number']}", value["pad"]) == (key, pad.decode())
    [file] = namespace_files(server.data)
    # Nobody holds the lock: another process may write.
    with closing(connect(file)) as connection:
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    assert is_consistent(file)
    server.stop()
    assert "error" not in server.log.lower()


def test_a_full_disk_is_503_stores_nothing_and_goes_on_afterwards(make_server):
    server = make_server()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for number in range(20):
            client.put(f"/memory/ns/k{number}", json={"value": "before"})
        [file] = namespace_files(server.data)
        server.limit_file_size(4_096)
        statuses = {
            client.put(f"/memory/ns/k{number}", json={"value": "x" * 9_000}).status_code
            for number in range(20)
        }
        assert statuses == {503}
        refused = client.put("/memory/ns/new", json={"value": "v"})
        assert refused.status_code == 503
        assert set(refused.json()) == {"detail"}
        assert client.get("/memory/ns/k7").json()["value"] == "before"
        assert client.get("/memory/ns").json()["count"] == 20
        server.limit_file_size(None)
        assert client.put("/memory/ns/new", json={"value": "after"}).status_code == 200
        assert client.get("/memory/ns/new").json()["value"] == "after"
        assert client.get("/memory/ns").json()["count"] == 21
    assert query(file, "SELECT writes FROM totals") == [(21,)]
    server.kill()
    server.start()
    assert httpx.get(f"{server.url}/memory/ns/new").json()["value"] == "after"
    assert is_consistent(file)


def test_a_full_disk_refuses_only_what_it_must_when_many_write(make_server):
    """Units that share a commit which fails are all told so."""
    server = make_server()
    httpx.put(f"{server.url}/memory/ns/k", json={"value": "v"})
    [file] = namespace_files(server.data)
    server.limit_file_size(file.with_name(file.name + "-wal").stat().st_size + 200_000)
    told: dict[str, int] = {}

    def write(who: int) -> None:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for number in range(15):
                key = f"{who}-{number}"
                told[key] = client.put(f"/memory/ns/{key}", json={"value": "x" * 4_000}).status_code

    in_threads(write, 8)
    assert set(told.values()) == {200, 503}
    server.limit_file_size(None)
    keys = set(httpx.get(f"{server.url}/memory/ns").json()["keys"])
    assert keys == {"k", *(key for key, status in told.items() if status == 200)}
    assert is_consistent(file)


def test_a_full_disk_while_a_namespace_is_made(make_server):
    server = make_server()
    httpx.put(f"{server.url}/memory/first/k", json={"value": "v"})
    server.limit_file_size(4_096)
    assert httpx.put(f"{server.url}/memory/second/k", json={"value": "v"}).status_code == 503
    assert httpx.get(f"{server.url}/memory/second").json()["keys"] == []
    server.limit_file_size(None)
    assert httpx.put(f"{server.url}/memory/second/k", json={"value": "v"}).status_code == 200
    server.restart()
    assert httpx.get(f"{server.url}/memory/second").json()["keys"] == ["k"]
    assert len(list(server.data.glob("tenants/*/*"))) == 2 + count_side_files(server.data)


def count_side_files(data) -> int:
    return sum(1 for file in data.glob("tenants/*/*") if file.name.endswith(("-wal", "-shm")))


def test_no_acknowledged_write_is_lost_to_kill_9(make_server):
    """A short form of scripts/kill: three kills under four writers."""
    server = make_server()
    acknowledged: list[dict[str, int]] = [{} for _ in range(4)]
    stop = threading.Event()

    def write(who: int) -> None:
        with httpx.Client(timeout=30) as client:
            number = 0
            while not stop.is_set():
                number += 1
                key = f"{who}-{number % 5}"
                try:
                    answer = client.put(
                        f"{server.url}/memory/ns{who % 2}/{key}", json={"value": number}
                    )
                except httpx.HTTPError:
                    time.sleep(0.02)
                    continue
                if answer.status_code == 200:
                    acknowledged[who][key] = number

    threads = [threading.Thread(target=write, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            time.sleep(0.4)
            server.kill()
            server.start()
        time.sleep(0.3)
        server.kill()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    server.start()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for who, written in enumerate(acknowledged):
            assert written
            for key, number in written.items():
                assert client.get(f"/memory/ns{who % 2}/{key}").json()["value"] >= number
        stats = client.get("/stats/memory").json()
        assert stats["total_entries"] == sum(
            client.get(f"/memory/ns{n}").json()["count"] for n in (0, 1)
        )
    for file in namespace_files(server.data):
        assert is_consistent(file)


def test_the_counts_are_right_after_kill_9(make_server):
    """The registry is told once a second; what it missed is looked up at the next start."""
    server = make_server()
    with httpx.Client(base_url=server.url) as client:
        for number in range(5):
            client.put(f"/memory/ns/k{number}", json={"value": "12"})
    server.kill()
    server.start()
    stats = json.loads(httpx.get(f"{server.url}/stats/memory").content)
    assert stats == {"total_entries": 5, "total_namespaces": 1, "total_bytes": 10}


def in_threads(work, count: int) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
