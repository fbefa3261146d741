"""What others reach on the same machine in the same minutes, each where it is installed.

Turns of ours and theirs alternate. Redis has no HTTP, no JSON, no keys to check and no search: it
says what writing through to the disk costs a C program.
"""

from __future__ import annotations

import csv
import importlib.util
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.beside import free_port, listening
from benchmarks.figures import Figure, Setup
from benchmarks.wrk import CONNECTIONS, KEYS, VALUE_BYTES, Load, Slice
from harness.server import ServerProcess

REDIS_REQUESTS = 20_000


def measure(setup: Setup) -> Iterator[Figure]:
    """Reads and writes of ours in turns with each peer's."""
    with ServerProcess(setup.scratch / "beside-peers") as server:
        server.wait_until_ready()
        ours = {"writes": Load(server.port, "PUT"), "reads": Load(server.port, "GET")}
        Slice.of(ours["writes"], 2)
        name = "FastAPI, sync handlers, one SQLite file"
        if importlib.util.find_spec("fastapi") is None:
            yield _absent(name)
        else:
            with _hosted(setup.scratch / "hosted.db") as port:
                # Some of its writers wait for the lock for longer than wrk waits.
                theirs = {
                    "writes": Load(port, "PUT", strict=False),
                    "reads": Load(port, "GET", strict=False),
                }
                _store_all(theirs["writes"])
                yield from _beside(
                    setup,
                    name,
                    ours,
                    {what: partial(_rate, load, setup.seconds) for what, load in theirs.items()},
                )
        name = "Redis, appendfsync always, no HTTP"
        if shutil.which("redis-server") is None or shutil.which("redis-benchmark") is None:
            yield _absent(name)
        else:
            with _redis(setup.scratch / "redis") as port:
                yield from _beside(
                    setup,
                    name,
                    ours,
                    {
                        "writes": lambda: _redis_rate(port, "set"),
                        "reads": lambda: _redis_rate(port, "get"),
                    },
                )


def _rate(load: Load, seconds: int) -> float:
    return Slice.of(load, seconds).per_second


def _absent(name: str) -> Figure:
    return Figure(f"peer: {name}", math.nan, "", note="not installed")


def _beside(
    setup: Setup, name: str, ours: dict[str, Load], theirs: dict[str, Callable[[], float]]
) -> Iterator[Figure]:
    setup.say(f"{setup.rounds} rounds beside {name}")
    for what, rate in theirs.items():
        pairs = [
            (Slice.of(ours[what], setup.seconds).per_second, rate()) for _ in range(setup.rounds)
        ]
        mine, other = (median(pair[side] for pair in pairs) for side in (0, 1))
        share = 100 * median(one / another for one, another in pairs)
        note = f"{mine:,.0f} requests/s of ours, {other:,.0f} of theirs"
        yield Figure(f"peer: {name}: our {what}, of theirs", share, "%", note=note)


def _store_all(load: Load) -> None:
    """Write every key: each call of wrk begins with the first."""
    seconds = 1
    while seconds * Slice.of(load, seconds).per_second < 1.5 * KEYS:
        seconds *= 2


@contextmanager
def _hosted(file: Path) -> Iterator[int]:
    script = Path(__file__).with_name("hosted.py")
    port = free_port()
    with listening([sys.executable, str(script), str(port), str(file)], port):
        yield port


@contextmanager
def _redis(directory: Path) -> Iterator[int]:
    directory.mkdir()
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
    command += ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
    with listening(command, port):
        yield port


def _redis_rate(port: int, test: str) -> float:
    command = ["redis-benchmark", "-p", str(port), "-c", str(CONNECTIONS), "-d", str(VALUE_BYTES)]
    command += ["-n", str(REDIS_REQUESTS), "-r", str(KEYS), "-t", test, "--csv"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    [row] = csv.DictReader(output.splitlines())
    return float(row["rps"])
