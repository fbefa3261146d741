"""Many namespaces, few descriptors, and the first write to one that does not exist yet."""

from __future__ import annotations

import http.client
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median

from benchmarks.figures import Figure, Setup
from benchmarks.wrk import CONNECTIONS, VALUE_BYTES
from harness.server import ServerProcess, request

MANY = 1_000
DESCRIPTORS = 1_024
FIRST_WRITES = 100

BODY = b'{"value": "%s"}' % (b"v" * VALUE_BYTES)


def measure(setup: Setup) -> Iterator[Figure]:
    """First writes one after the other, then a thousand namespaces in no order."""
    setup.say(f"first writes to {FIRST_WRITES} namespaces")
    with ServerProcess(setup.scratch / "first") as server:
        server.wait_until_ready()
        client = server.connect()
        times = [_first_write(client, number) for number in range(FIRST_WRITES)]
        client.close()
    yield Figure(
        "first write to a new namespace",
        1000 * median(times),
        "ms",
        most=15,
        note=f"longest of {FIRST_WRITES}: {1000 * max(times):.0f} ms",
    )

    setup.say(f"{MANY:,} namespaces with {DESCRIPTORS:,} descriptors")
    with ServerProcess(setup.scratch / "many", descriptors=DESCRIPTORS) as server:
        server.wait_until_ready()
        began = time.perf_counter()
        asked, errors = _visit_all(server)
        seconds = time.perf_counter() - began
        resident = server.resident_bytes("VmHWM") / 1e6
    name = f"{MANY:,} namespaces, {DESCRIPTORS:,} descriptors"
    note = f"{asked:,} requests in no order, {asked / seconds:,.0f}/s"
    yield Figure(f"{name}: errors", errors, "", most=0, note=note)
    yield Figure(f"{name}: memory", resident, "MB", most=300, note="at most, resident")


def _first_write(client: http.client.HTTPConnection, number: int) -> float:
    began = time.perf_counter()
    status, body = request(client, "PUT", f"/memory/first-{number}/k", BODY)
    if status != 200:
        raise RuntimeError(f"a first write was answered {status}: {body!r}")
    return time.perf_counter() - began


def _visit_all(server: ServerProcess) -> tuple[int, int]:
    """Write to every namespace, then write and read each once more; requests and errors."""
    every = [f"/memory/many-{number}/k" for number in range(MANY)]
    work = [("PUT", path) for path in every]
    again = [(method, path) for path in every for method in ("PUT", "GET")]
    random.Random(1).shuffle(again)
    work += again

    def visit(part: list[tuple[str, str]]) -> int:
        client = server.connect()
        errors = 0
        for method, path in part:
            status, _ = request(client, method, path, BODY if method == "PUT" else None)
            errors += status != 200
        client.close()
        return errors

    first, rest = work[:MANY], work[MANY:]
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        errors = 0
        for phase in (first, rest):
            parts = [phase[start::CONNECTIONS] for start in range(CONNECTIONS)]
            errors += sum(threads.map(visit, parts))
    return len(work), errors
