"""From the start of the process to its first answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.figures import Figure, Setup
from harness.server import ServerProcess, request


def measure(setup: Setup) -> Iterator[Figure]:
    """On an empty data directory, and on one that has been served before."""
    setup.say("starting")
    _first_answer(setup.scratch / "warm-up")
    new = [_first_answer(setup.scratch / f"new-{number}") for number in range(setup.rounds)]
    old = [_first_answer(setup.scratch / "new-0") for _ in range(setup.rounds)]
    yield Figure("start to first answer", median(old), "s", most=0.7)
    yield Figure("start to first answer, new data directory", median(new), "s", most=0.7)


def _first_answer(data_dir: Path) -> float:
    began = time.perf_counter()
    with ServerProcess(data_dir) as server:
        server.wait_until_ready()
        client = server.connect()
        status, _ = request(client, "GET", "/health")
        seconds = time.perf_counter() - began
        client.close()
    if status != 200:
        raise RuntimeError(f"the first answer was {status}")
    return seconds
