"""Ten thousand namespaces with next to nothing in each: memory, disk, and reads of closed ones."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, Setup
from benchmarks.wrk import CONNECTIONS
from harness.server import ServerProcess, request

NAMESPACES = 10_000
COLD_READS = 2_000

ENTRY = b'{"value": "as good as empty"}'


def measure(setup: Setup, *, namespaces: int = NAMESPACES) -> Iterator[Figure]:
    """An entry and a state in each; every read is of a namespace that is likely closed."""
    data_dir = setup.scratch / "ten-thousand"
    setup.say(f"{namespaces:,} namespaces")
    with ServerProcess(data_dir) as server:
        server.wait_until_ready()
        began = time.perf_counter()
        with ThreadPoolExecutor(CONNECTIONS) as threads:
            parts = [range(start, namespaces, CONNECTIONS) for start in range(CONNECTIONS)]
            for _ in threads.map(lambda part: _create(server, part), parts):
                pass
        seconds = time.perf_counter() - began
        name = f"{namespaces:,} namespaces"
        yield Figure(f"{name}: making them", seconds, "s", note=f"{namespaces / seconds:,.0f}/s")
        serving = _kilobytes(data_dir) / namespaces

        chance = random.Random(2)
        client = server.connect()
        # Those that were written last are not closed in peace yet, nor their journals cut.
        time.sleep(5)
        reads = sorted(_reads(client, chance, namespaces))
        yield Figure(
            f"{name}: cold read, p99",
            reads[int(len(reads) * 0.99)],
            "ms",
            most=10,
            note=f"p50 {median(reads):.1f} ms, longest {reads[-1]:.0f} ms",
        )
        for what, path in (("totals", "/stats/memory"), ("usage", "/v1/usage")):
            began = time.perf_counter()
            _ask(client, "GET", path)
            yield Figure(f"{name}: {what}", (time.perf_counter() - began) * 1e3, "ms")
        client.close()
        resident = server.resident_bytes("VmHWM") / 1e6
        yield Figure(f"{name}: memory", resident, "MB", most=300, note="at most, resident")
        began = time.perf_counter()
        server.stop()
        yield Figure(f"{name}: SIGTERM to end", time.perf_counter() - began, "s")
    note = f"{serving:.0f} KB while they were made"
    size = _kilobytes(data_dir) / namespaces
    yield Figure(f"{name}: disk of each", size, "KB", most=160, note=note)
    began = time.perf_counter()
    with ServerProcess(data_dir) as server:
        server.wait_until_ready()
        yield Figure(f"{name}: start", time.perf_counter() - began, "s", most=2)


def _create(server: ServerProcess, numbers: range) -> None:
    client = server.connect(timeout=60)
    for number in numbers:
        _ask(client, "PUT", f"/memory/agent-{number}/k", ENTRY)
        state = b'{"agent_id": "agent-%d", "session_id": "s", "data": {}}' % number
        _ask(client, "POST", "/v1/state", state)
    client.close()


def _reads(client: HTTPConnection, chance: random.Random, namespaces: int) -> list[float]:
    times = []
    for number in chance.sample(range(namespaces), min(COLD_READS, namespaces)):
        began = time.perf_counter()
        _ask(client, "GET", f"/memory/agent-{number}/k")
        times.append((time.perf_counter() - began) * 1e3)
    return times


def _ask(client: HTTPConnection, method: str, path: str, body: bytes | None = None) -> None:
    status, answer = request(client, method, path, body)
    if status not in (200, 201):
        raise RuntimeError(f"{method} {path} answered {status}: {answer[:200]!r}")


def _kilobytes(directory: Path) -> float:
    """What the files take of the disk; those that go meanwhile do not count."""
    blocks = 0
    for file in directory.rglob("*"):
        try:
            blocks += file.stat().st_blocks
        except FileNotFoundError:
            continue
    return blocks * 512 / 1e3
