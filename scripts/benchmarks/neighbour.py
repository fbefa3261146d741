"""A tenant that minds its own business, while another floods the server.

The flood stores memories and searches over 100,000 of them, on connections that never pause. The
neighbour's load is the same in quiet turns and in loud ones, which take turns.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import median

import orjson

from benchmarks import semantic
from benchmarks.figures import Figure, Setup
from benchmarks.wrk import Load, Slice
from harness.planted import Fault
from harness.server import ServerProcess

MEMORIES = 100_000
FLOODING = 8
MODERATE = 4
ROUTE = "/v1/memory/semantic"
# Opens a tenant of its own on a server that needs no keys.
NEIGHBOUR = "the-neighbour"
SECONDS_BEFORE = 1

# What the figures must show: a search of 20 ms stops everybody where it runs on the loop.
SEARCH_ON_THE_LOOP = Fault(
    "store/database.py",
    "            if not batch[0].brief:\n",
    "            if batch[0].alone:\n",
)


def measure(setup: Setup, *, memories: int = MEMORIES) -> Iterator[Figure]:
    """The neighbour's GET and state reads, quiet and loud."""
    setup.say(f"noisy neighbour: {memories:,} memories")
    chance = random.Random(5)
    lines = setup.scratch / "flood"
    with ServerProcess(setup.scratch / "neighbours", package=setup.package) as server:
        server.wait_until_ready()
        client = server.connect(timeout=120)
        texts = semantic.fill(client, "flood", memories, chance)
        client.close()
        lines.write_bytes(b"\n".join(_flood(texts, chance)))
        flood = Load(server.port, "POST", lines=lines, connections=FLOODING)
        loads = {
            name: Load(server.port, method, api_key=NEIGHBOUR, connections=MODERATE)
            for name, method in (("GET", "GET"), ("state read", "STATE"))
        }
        for method in ("PUT", "STATES"):
            Slice.of(Load(server.port, method, api_key=NEIGHBOUR), 2)
        quiet: dict[str, list[Slice]] = {name: [] for name in loads}
        loud: dict[str, list[Slice]] = {name: [] for name in loads}
        setup.say(f"{setup.rounds} rounds of {', '.join(loads)}, quiet and loud")
        flooded = []
        for _ in range(setup.rounds):
            for name, load in loads.items():
                quiet[name].append(Slice.of(load, setup.seconds))
            with _running(flood, SECONDS_BEFORE + len(loads) * (setup.seconds + 1)) as turns:
                for name, load in loads.items():
                    loud[name].append(Slice.of(load, setup.seconds))
            flooded += turns
    yield from _figures(quiet, loud, flooded)


def _figures(
    quiet: Mapping[str, list[Slice]], loud: Mapping[str, list[Slice]], flooded: list[Slice]
) -> Iterator[Figure]:
    def p99(slices: list[Slice]) -> float:
        return median(turn.p99_ms for turn in slices)

    ratio = median(
        after.p99_ms / before.p99_ms
        for after, before in zip(loud["GET"], quiet["GET"], strict=True)
    )
    note = (
        f"{p99(quiet['GET']):.1f} ms quiet, {p99(loud['GET']):.1f} ms loud; "
        f"{median(turn.per_second for turn in loud['GET']):,.0f} requests/s loud"
    )
    yield Figure("noisy neighbour: GET p99, of quiet", ratio, "times", most=3, note=note)
    ratio = median(
        after.p50_ms / before.p50_ms
        for after, before in zip(loud["GET"], quiet["GET"], strict=True)
    )
    # Says the same where a busy machine has tails of its own.
    yield Figure("noisy neighbour: GET p50, of quiet", ratio, "times", most=3)
    note = f"{p99(quiet['state read']):.1f} ms quiet"
    yield Figure(
        "noisy neighbour: state read, p99", p99(loud["state read"]), "ms", most=10, note=note
    )
    rate = median(turn.per_second for turn in flooded)
    note = f"p50 {median(turn.p50_ms for turn in flooded):.0f} ms, {FLOODING} connections"
    yield Figure("noisy neighbour: the flood", rate, "requests/s", note=note)


def _flood(texts: list[str], chance: random.Random) -> Iterator[bytes]:
    """Paths and bodies: as many searches as memories to be stored."""
    for number in range(500):
        query = {"agent_id": "flood", "query": semantic.question(texts, chance)}
        yield f"{ROUTE}/search ".encode() + orjson.dumps(query)
        memory = {"agent_id": "flood", "content": f"{chance.choice(texts)} {number}"}
        yield f"{ROUTE} ".encode() + orjson.dumps(memory)


@contextmanager
def _running(flood: Load, seconds: int) -> Iterator[list[Slice]]:
    """The flood runs in the block, and a moment before; then its slice is in the list."""
    turns: list[Slice] = []
    process = subprocess.Popen(flood.command(seconds), stdout=subprocess.PIPE, text=True)
    try:
        try:
            process.wait(SECONDS_BEFORE)
        except subprocess.TimeoutExpired:
            yield turns
        else:
            raise RuntimeError("the flood ended at once")
        output, _ = process.communicate(timeout=seconds + 30)
        turns.append(Slice.read(flood, output))
    finally:
        process.kill()
        process.wait()
