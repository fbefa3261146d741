"""Requests a second, beside what a handler that does nothing reaches in the same minute."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import keyed
from benchmarks.beside import free_port, listening
from benchmarks.figures import Figure, Setup
from benchmarks.wrk import Load, Slice, Turns
from harness.server import ServerProcess

MANY = 100


def measure(setup: Setup) -> Iterator[Figure]:
    """GET, PUT on one namespace and PUT over a hundred; what the request log costs."""
    quiet = ServerProcess(setup.scratch / "quiet")
    logging = ServerProcess(setup.scratch / "logging", log_level="info", log=setup.scratch / "log")
    api_key = keyed.prepare(setup.scratch / "keyed")
    with_keys = ServerProcess(setup.scratch / "keyed")
    with _bare() as bare, quiet, logging, with_keys:
        quiet.wait_until_ready()
        with_keys.wait_until_ready()
        logging.wait_until_ready()
        loads = {
            "bare": Load(bare, "BARE"),
            "GET": Load(quiet.port, "GET"),
            "GET, logged": Load(logging.port, "GET"),
            "GET, with a key": Load(with_keys.port, "GET", api_key=api_key),
            "PUT": Load(quiet.port, "PUT"),
            "PUT over 100": Load(quiet.port, "PUT", namespaces=MANY),
            "state written": Load(quiet.port, "STATES"),
            "state read": Load(quiet.port, "STATE"),
        }
        setup.say("warming up")
        Slice.of(Load(logging.port, "PUT"), 1)
        Slice.of(Load(with_keys.port, "PUT", api_key=api_key), 1)
        for name in (
            "state written",
            "PUT",
            "PUT over 100",
            "GET",
            "GET, logged",
            "GET, with a key",
            "bare",
        ):
            Slice.of(loads[name], 2)
        setup.say(f"{setup.rounds} rounds of {', '.join(loads)}")
        turns = Turns(loads, rounds=setup.rounds, seconds=setup.seconds)

    yield Figure("bare Starlette handler", turns.median("bare").per_second, "requests/s")
    for name, key, least in (
        ("GET", "GET", 35),
        ("PUT, one namespace", "PUT", 18),
        ("PUT, 100 namespaces", "PUT over 100", 7),
    ):
        turn = turns.median(key)
        note = f"{turn.per_second:,.0f} requests/s, p50 {turn.p50_ms:.2f} ms"
        yield Figure(f"{name}, of bare", turns.ratio(key, "bare"), "%", least=least, note=note)
        most = None if key == "GET" else 20
        yield Figure(f"{name}, p99", turn.p99_ms, "ms", most=most)
    for name in ("state written", "state read"):
        turn = turns.median(name)
        note = f"{turn.per_second:,.0f} requests/s, p50 {turn.p50_ms:.2f} ms"
        yield Figure(f"{name}, p99", turn.p99_ms, "ms", most=10, note=note)
    cost = 100 - turns.ratio("GET, logged", "GET")
    yield Figure("request log, cost to GET", cost, "%", most=15)
    cost = 100 - turns.ratio("GET, with a key", "GET")
    note = f"{keyed.KEYS:,} keys in the registry"
    yield Figure("authentication, cost to GET", cost, "%", most=10, note=note)


@contextmanager
def _bare() -> Iterator[int]:
    """The bare handler; its port."""
    port = free_port()
    script = Path(__file__).with_name("bare.py")
    with listening([sys.executable, str(script), str(port)], port):
        yield port
