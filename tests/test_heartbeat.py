"""How long the loop stands is counted, and where is said, without a value."""

from __future__ import annotations

import asyncio
import time

import httpx
from serving import Server, until
from test_metrics import scraped

from botwire_server.heartbeat import STALL_SECONDS, Heartbeat
from botwire_server.metrics import LoopCounters
from harness.planted import Fault, planted

SECRET = "a-secret-value"


def stand(seconds: float, secret: str = SECRET) -> None:
    """Hold up whoever calls."""
    assert secret
    time.sleep(seconds)


async def test_a_loop_that_stands_is_counted_and_told_once(caplog):
    counters = LoopCounters()
    heartbeat = Heartbeat(counters)
    heartbeat.start()
    await asyncio.sleep(0.1)
    assert (counters.stalls, counters.longest < STALL_SECONDS) == (0, True)
    stand(STALL_SECONDS + 0.5)
    await asyncio.sleep(0.1)
    heartbeat.stop()
    assert counters.stalls == 1
    assert STALL_SECONDS < counters.longest < STALL_SECONDS + 5
    told = [record.getMessage() for record in caplog.records]
    [place] = [line for line in told if "over a second" in line]
    assert "stand (" in place and "test_heartbeat.py" in place
    assert SECRET not in caplog.text
    beats = counters.late.count
    await asyncio.sleep(0.1)
    assert counters.late.count == beats


def test_the_server_says_where_its_loop_stands(tmp_path):
    root = planted(
        tmp_path,
        Fault(
            "web/botwire/__init__.py",
            '        tenant: Tenant = request.scope["tenant"]\n        namespaces, held',
            '        tenant: Tenant = request.scope["tenant"]\n'
            '        __import__("time").sleep(1.6)\n        namespaces, held',
        ),
    )
    server = Server(tmp_path, root=root)
    try:
        server.start()
        assert scraped(server)("botwire_loop_stalls_total") == 0
        assert httpx.get(f"{server.url}/stats/memory").status_code == 200
        until(lambda: "over a second" in server.log, "the log says where")
        [line] = [line for line in server.log.splitlines() if "over a second" in line]
        assert "stats (botwire/__init__.py:" in line
        told = scraped(server)
        assert told("botwire_loop_stalls_total") == 1
        assert told("botwire_loop_longest_stand_seconds") >= 1
        assert told("botwire_loop_late_seconds_count") > 1
    finally:
        server.end()
