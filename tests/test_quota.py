"""Limits: writes a day, bytes a namespace. Never one more than allowed, whoever writes at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

import httpx
import pytest
from serving import FakeClock, InProcess, namespace_files, query

DAY = 86_400


def test_over_the_limit_is_429_with_what_a_client_needs(tmp_path):
    clock = FakeClock(20_000 * DAY + 3_600)
    with (
        InProcess(tmp_path, clock=clock, daily_writes=3) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        for number in range(3):
            assert client.put("/memory/ns/k", json={"value": str(number)}).status_code == 200
        answer = client.put("/memory/ns/k", json={"value": "lost"})
        assert answer.status_code == 429
        assert set(answer.json()) == {"detail"}
        assert answer.headers["x-ratelimit-limit"] == "3"
        assert answer.headers["x-ratelimit-remaining"] == "0"
        assert answer.headers["x-ratelimit-reset"] == str(20_001 * DAY)
        retry = answer.headers["retry-after"]
        assert retry.endswith(" GMT")
        assert parsedate_to_datetime(retry).timestamp() == 20_001 * DAY
        assert client.get("/memory/ns/k").json()["value"] == "2"
        assert client.put("/memory/other/k", json={"value": "v"}).status_code == 200


def test_reading_and_deleting_go_on_and_give_nothing_back(tmp_path):
    with (
        InProcess(tmp_path, daily_writes=2) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        for key in ("a", "b"):
            client.put(f"/memory/ns/{key}", json={"value": "v"})
        assert client.delete("/memory/ns/a").status_code == 200
        assert client.put("/memory/ns/a", json={"value": "v"}).status_code == 429
        assert client.get("/memory/ns/b").status_code == 200
        assert client.delete("/memory/ns/missing").status_code == 404
        assert client.delete("/memory/ns?confirm=ns").status_code == 200


def test_what_is_refused_does_not_count(tmp_path):
    with (
        InProcess(tmp_path, daily_writes=2) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        client.put("/memory/ns/k", json={"value": "v"})
        for _ in range(5):
            refused = client.put(
                "/memory/ns/k", json={"value": "w"}, headers={"If-None-Match": "*"}
            )
            assert refused.status_code == 412
            assert client.put("/memory/ns/k", json={}).status_code == 400
        assert client.put("/memory/ns/k", json={"value": "w"}).status_code == 200
        assert client.put("/memory/ns/k", json={"value": "x"}).status_code == 429


def test_the_counter_moves_with_the_write_and_starts_anew_at_midnight(tmp_path):
    clock = FakeClock(20_000 * DAY + DAY - 1)
    with (
        InProcess(tmp_path, clock=clock, daily_writes=2) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):

        def put() -> int:
            return client.put("/memory/ns/k", json={"value": "v"}).status_code

        assert [put(), put(), put()] == [200, 200, 429]
        clock.advance(0.999)
        assert put() == 429
        clock.advance(0.001)
        assert [put(), put(), put()] == [200, 200, 429]
        clock.advance(-1)  # a clock that is set back does not begin a day anew
        assert put() == 429
        [file] = namespace_files(tmp_path)
        assert query(file, "SELECT day, writes FROM totals") == [(20_001, 2)]


def test_writes_are_counted_without_a_limit_too(tmp_path):
    with (
        InProcess(tmp_path) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        for number in range(7):
            client.put(f"/memory/ns/{number % 3}", json={"value": "v"})
        client.delete("/memory/ns/0")
        [file] = namespace_files(tmp_path)
        assert query(file, "SELECT writes FROM totals") == [(7,)]


def test_bytes_are_those_of_keys_and_values(tmp_path):
    with (
        InProcess(tmp_path, max_namespace_bytes=100) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):

        def put(key: str, size: int) -> httpx.Response:
            return client.put(f"/memory/ns/{key}", json={"value": "x" * size})

        assert put("k", 99).status_code == 200
        refused = put("l", 1)
        assert refused.status_code == 429
        assert refused.headers["x-ratelimit-limit"] == "100"
        assert "retry-after" not in refused.headers
        assert put("k", 100).status_code == 429
        assert put("k", 50).status_code == 200
        assert put("é", 47).status_code == 200
        assert put("m", 0).status_code == 429
        assert client.delete("/memory/ns/k").status_code == 200
        assert put("m", 10).status_code == 200
        assert client.get("/memory/ns").json()["keys"] == ["m", "é"]


def test_a_full_namespace_may_shrink_under_a_lower_limit(make_server):
    server = make_server(started=False)
    server.start()
    httpx.put(f"{server.url}/memory/ns/k", json={"value": "x" * 1_000})
    server.options = ("--max-namespace-bytes", "100")
    server.restart()
    assert httpx.put(f"{server.url}/memory/ns/k", json={"value": "x" * 500}).status_code == 200
    assert httpx.put(f"{server.url}/memory/ns/k", json={"value": "x" * 501}).status_code == 429


WRITERS = 32


def test_writers_at_once_never_get_more_than_the_limit_across_a_restart(make_server):
    server = make_server("--daily-writes", "400")
    accepted: list[str] = []
    in_the_middle = threading.Event()
    wrote: list[list[int]] = [[] for _ in range(WRITERS)]

    def write(number: int) -> None:
        with httpx.Client(timeout=30) as client:
            for turn in range(25):
                if sum(map(len, wrote)) > 150:
                    in_the_middle.set()
                key = f"{number}-{turn}"
                wrote[number].append(put(client, key))
                if wrote[number][-1] == 200:
                    accepted.append(key)

    def put(client: httpx.Client, key: str) -> int:
        while True:
            try:
                return client.put(f"{server.url}/memory/ns/{key}", json={"value": key}).status_code
            except httpx.HTTPError:  # the server is away: nobody knows whether it counted
                time.sleep(0.05)

    # A restart in the middle, by kill -9: what was acknowledged must have been counted.
    threads = run(write)
    in_the_middle.wait(60)
    server.kill()
    server.start()
    join(threads)

    statuses = {status for each in wrote for status in each}
    assert statuses == {200, 429}
    assert len(accepted) <= 400
    # A write whose answer was lost in the crash and was sent again may have counted twice.
    assert len(accepted) >= 400 - WRITERS
    [file] = namespace_files(server.data)
    assert query(file, "SELECT writes FROM totals") == [(400,)]
    stored = {key for [key] in query(file, "SELECT key FROM entries")}
    assert set(accepted) <= stored
    assert len(stored) <= 400


def test_writers_at_once_never_get_more_than_the_limit_over_midnight(tmp_path):
    clock = FakeClock(20_000 * DAY + DAY - 1)
    accepted: list[float] = []
    done: list[int] = []

    with InProcess(tmp_path, clock=clock, daily_writes=100) as server:

        def write(number: int) -> None:
            with httpx.Client(base_url=server.url, timeout=30) as client:
                for turn in range(15):
                    answer = client.put(f"/memory/ns/{number}-{turn}", json={"value": "v"})
                    done.append(answer.status_code)
                    if len(done) >= 240:
                        clock.now = 20_001 * DAY + 1.0
                    if answer.status_code == 200:
                        updated = client.get(f"/memory/ns/{number}-{turn}").json()["updated_at"]
                        accepted.append(updated)

        join(run(write))
    days = [int(moment // DAY) for moment in accepted]
    assert set(done) == {200, 429}
    assert (days.count(20_000), days.count(20_001)) == (100, 100)


def test_writers_at_once_never_get_more_bytes_than_the_limit(tmp_path):
    statuses: list[int] = []
    with InProcess(tmp_path, max_namespace_bytes=10_000) as server:

        def write(number: int) -> None:
            with httpx.Client(base_url=server.url, timeout=30) as client:
                for turn in range(5):
                    key = f"{number:02}-{turn}"
                    answer = client.put(f"/memory/ns/{key}", json={"value": "x" * 96})
                    statuses.append(answer.status_code)

        join(run(write))
    assert statuses.count(200) == 100
    assert statuses.count(429) == WRITERS * 5 - 100


@pytest.mark.parametrize("option", ["daily_writes", "max_namespace_bytes"])
def test_zero_is_no_limit_also_with_the_hosted_profile(tmp_path, option):
    with (
        InProcess(tmp_path, profile="hosted", **{option: 0}) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):
        assert client.put("/memory/ns/k", json={"value": "v"}).status_code == 200
        assert (server.config.write_limit, server.config.size_limit).count(0) == 1


def run(work: Callable[[int], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(WRITERS)]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
