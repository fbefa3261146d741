"""This checkout against a commit, both served at once: is one faster, and what does each do?

A machine that is shared is never twice as fast as it was. So both take turns of a second, forth
and back, with a second server of this checkout among them: what the two that are the same
differ by is what the machine makes up. CPU time is what the process computed, whoever else did.
What can be counted is counted instead: system calls, SQL statements, fsyncs.
"""

from __future__ import annotations

import math
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import fmean, stdev

from benchmarks.figures import Setup
from benchmarks.wrk import Load, Slice
from harness import CHECKOUT
from harness.planted import Fault
from harness.server import ServerProcess, request

LOADS = {"GET": ("GET", 1), "PUT": ("PUT", 1), "PUT over 100": ("PUT", 100)}
THIS, OTHER, AGAIN = "this", "other", "again"
# Six intervals are looked at in a run, and all of them should hold in nine of ten.
CONFIDENCE = 2.75  # standard errors
FEWEST_ROUNDS = 40
COUNTED = 300  # requests of each kind

# What it must see: a GET that computes 5 % longer.
SLOWER_GET = Fault(
    "web/botwire/__init__.py",
    "        entry = await _namespace(request, namespace).read(entries.get, key)\n",
    "        for _ in range(150):\n            pass\n"
    "        entry = await _namespace(request, namespace).read(entries.get, key)\n",
)


@dataclass(frozen=True)
class Interval:
    """A ratio, and between what it lies."""

    ratio: float
    least: float
    most: float

    @classmethod
    def of(cls, logarithms: Sequence[float]) -> Interval:
        """From a logarithm a round."""
        middle = fmean(logarithms)
        error = CONFIDENCE * stdev(logarithms) / math.sqrt(len(logarithms))
        return cls(math.exp(middle), math.exp(middle - error), math.exp(middle + error))

    def __str__(self) -> str:
        return f"{self.ratio:.3f} ({self.least:.3f} to {self.most:.3f})"


@dataclass(frozen=True)
class Comparison:
    """One measure of one load: the other against this, and this against itself."""

    name: str
    other: Interval
    again: Interval
    other_to_again: Interval

    @property
    def differs(self) -> bool:
        """Whether the other is off both that are the same, and to the same side."""
        pair = self.other, self.other_to_again
        return all(each.least > 1 for each in pair) or all(each.most < 1 for each in pair)

    def __str__(self) -> str:
        verdict = "DIFFERS" if self.differs else "no difference"
        return f"{self.name:30} {self.other!s:26} {self.again!s:26} {verdict}"


def compare(setup: Setup, package: Path) -> Iterator[Comparison]:
    """The package in the directory `package` against this checkout."""
    with ExitStack() as stack:
        servers: dict[str, ServerProcess] = {}
        for name, root in ((THIS, setup.package), (OTHER, package), (AGAIN, setup.package)):
            server = ServerProcess(setup.scratch / name, package=root)
            servers[name] = stack.enter_context(server)
        for server in servers.values():
            server.wait_until_ready()
        for server in servers.values():  # there is something to read then
            for method, namespaces in (("PUT", 100), ("PUT", 1), ("GET", 1)):
                Slice.of(Load(server.port, method, namespaces=namespaces), 2)
        for name, (method, namespaces) in LOADS.items():
            setup.say(f"{setup.rounds} rounds of {name}")
            loads = {
                each: Load(server.port, method, namespaces=namespaces)
                for each, server in servers.items()
            }
            rounds = [_round(setup, servers, loads) for _ in range(setup.rounds)]
            for number, measure in enumerate(("requests/s", "CPU time of a request")):
                yield _comparison(f"{name}: {measure}", [each[number] for each in rounds])


Taken = Mapping[str, float]


def _round(
    setup: Setup, servers: Mapping[str, ServerProcess], loads: Mapping[str, Load]
) -> tuple[Taken, Taken]:
    """The logarithms of requests a second, and of seconds of CPU a request."""
    order = (THIS, OTHER, AGAIN, AGAIN, OTHER, THIS)
    rates: dict[str, list[float]] = {name: [] for name in servers}
    costs: dict[str, list[float]] = {name: [] for name in servers}
    for name in order:
        before = _cpu_seconds(servers[name].pid)
        turn = Slice.of(loads[name], setup.seconds)
        rates[name].append(math.log(turn.per_second))
        costs[name].append(math.log((_cpu_seconds(servers[name].pid) - before) / turn.requests))
    return (
        {name: fmean(values) for name, values in rates.items()},
        {name: fmean(values) for name, values in costs.items()},
    )


def _comparison(name: str, rounds: Sequence[Taken]) -> Comparison:
    def interval(one: str, to: str) -> Interval:
        return Interval.of([each[one] - each[to] for each in rounds])

    return Comparison(name, interval(OTHER, THIS), interval(AGAIN, THIS), interval(OTHER, AGAIN))


def _cpu_seconds(pid: int) -> float:
    """What a process has computed, in all its threads: Linux's clock of that process."""
    return time.clock_gettime((~pid << 3) | 2)


def checkout(commit: str, directory: Path) -> Path:
    """The files of a commit, in `directory`; where to run them from."""
    found = subprocess.run(
        ["git", "-C", str(CHECKOUT), "archive", commit, "botwire_server"], capture_output=True
    )
    if found.returncode:
        raise SystemExit(f"bench: there is no commit {commit} with a botwire_server here.")
    with tarfile.open(fileobj=BytesIO(found.stdout)) as archive:
        archive.extractall(directory, filter="data")
    return directory


def count(setup: Setup, package: Path, name: str) -> Mapping[str, str]:
    """What a GET and a PUT do, each `COUNTED` times, one after the other."""
    here = setup.scratch / f"counted-{name}"
    here.mkdir()
    (here / "sitecustomize.py").write_text(_COUNTING)
    path = f"{here}:{package}"
    statements = here / "statements"
    more = {"PYTHONPATH": path, "STATEMENTS": str(statements)}
    found: dict[str, str] = {}
    with ServerProcess(here / "data", package=package, more_environment=more) as server:
        server.wait_until_ready()
        client = server.connect()
        for method, body in (("PUT", b'{"value":"v"}'), ("GET", None)):
            for number in range(20):  # what only the first ones do
                request(client, method, f"/memory/n/{number}", body)
            before = _statements(statements)
            calls = here / f"calls-{method}"
            tracer = subprocess.Popen(
                ["strace", "-f", "-c", "-o", str(calls), "-p", str(server.pid)],
                stderr=subprocess.PIPE,
            )
            assert tracer.stderr is not None
            tracer.stderr.readline()  # it is attached
            for number in range(COUNTED):
                request(client, method, f"/memory/n/{number % 20}", body)
            tracer.terminate()
            tracer.communicate()
            summary = calls.read_text()
            made = (_statements(statements) - before) / COUNTED
            found[method] = (
                f"{_calls(summary, '.*'):.1f} system calls, {made:.1f} SQL statements, "
                f"{_calls(summary, 'f(data)?sync'):.2f} fsyncs"
            )
        client.close()
    return found


def _statements(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _calls(summary: str, which: str) -> float:
    """System calls a request, in strace's table: % time, seconds, each, calls, (errors), name."""
    row = re.compile(r"^ +[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", re.MULTILINE)
    total = sum(
        int(calls)
        for calls, name in row.findall(summary)
        if name != "total" and re.fullmatch(which, name)
    )
    return total / COUNTED


# A byte a statement: appending one is one call, and counting them is the file's size.
_COUNTING = """
import os, sys
try:
    import pysqlite3.dbapi2 as sqlite3
except ImportError:
    import sqlite3
_connect = sqlite3.connect
_file = os.open(os.environ["STATEMENTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def connect(*args, **kwargs):
    connection = _connect(*args, **kwargs)
    connection.set_trace_callback(lambda statement: os.write(_file, b"."))
    return connection
sqlite3.connect = connect
"""
