"""A tenant of a hundred thousand namespaces: whatever is asked of it, nobody else waits.

The registry's rows are made past the server, while it runs. How long the loop stands is what the
server itself counts; other work shares the machine, so the best of some tries counts.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

import httpx
import pytest
from serving import Server
from tenancy import bearer, cli_json, make_tenant, operator_of
from test_metrics import Figures

from botwire_server.store import keys
from botwire_server.store.driver import sqlite3
from botwire_server.store.listings import glob

MANY = 100_000
MOST_STAND = 0.05
TRIES = 8


class Crowd:
    """A server in which tenant `acme` has many namespaces, and there are many tenants and keys."""

    def __init__(self, server: Server) -> None:
        self.server = server
        data = server.data
        self.keys = {
            "acme": make_tenant(data, "acme"),
            "other": make_tenant(data, "other"),
            "operator": operator_of(data, lambda it: it.create_key(None))["key"],
            "pattern": operator_of(data, lambda it: it.create_key("acme", namespace="user-*9"))[
                "key"
            ],
        }
        with closing(sqlite3.connect(data / "control.db", isolation_level=None)) as control:
            control.execute("BEGIN IMMEDIATE")
            control.execute(
                """INSERT INTO namespaces (id, tenant_id, name, file, created_at, entries, bytes)
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?)
                SELECT printf('%015x', i), id, printf('user-%06d', i), 'tenants/none/' || i, 1.0,
                    1, 10 FROM n, tenants WHERE name = 'acme'""",
                (MANY,),
            )
            control.execute(
                """INSERT INTO tenants (id, name, tier, created_at)
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ?)
                SELECT printf('%016x', i), printf('tenant-%06d', i), 'unlimited', 1.0 FROM n""",
                (MANY // 10,),
            )
            control.execute(
                """INSERT INTO keys (id, tenant_id, hash, label, scopes, pattern, created_at)
                SELECT 'key' || id, id, x'00', '', 'read', '*', 1.0 FROM tenants
                WHERE name GLOB 'tenant-*'"""
            )
            control.execute(
                """INSERT INTO audit (at, actor, action, tenant_id, subject, outcome)
                SELECT 1.0, 'nobody', 'try', id, id, 'done' FROM tenants"""
            )
            control.execute("COMMIT")
        self.put("other", "mine", "k")

    def put(self, key: str, namespace: str, name: str) -> None:
        answer = httpx.put(
            f"{self.server.url}/memory/{namespace}/{name}",
            json={"value": 1},
            headers=bearer(self.keys[key]),
            timeout=60,
        )
        assert answer.status_code == 200, answer.text

    def ask(self, key: str, method: str, path: str, body: object = None) -> httpx.Response:
        headers = bearer(self.keys[key])
        return httpx.request(method, self.server.url + path, json=body, headers=headers, timeout=90)

    def late(self) -> float:
        """How often the loop has stood for longer than it may."""
        told = Figures(self.ask("operator", "GET", "/metrics"))
        within = told("botwire_loop_late_seconds_bucket", le=str(MOST_STAND))
        return told("botwire_loop_late_seconds_count") - within

    def beside(self, ask: Callable[[], httpx.Response]) -> tuple[httpx.Response, float, float]:
        """The answer; how often the loop stood too long, and another tenant's slowest GET."""
        stopped = threading.Event()
        slowest = [0.0]

        def others() -> None:
            with httpx.Client(base_url=self.server.url, headers=bearer(self.keys["other"])) as it:
                while not stopped.is_set():
                    began = time.perf_counter()
                    assert it.get("/memory/mine/k").status_code == 200
                    slowest[0] = max(slowest[0], time.perf_counter() - began)
                    time.sleep(0.002)

        thread = threading.Thread(target=others)
        thread.start()
        try:
            before = self.late()
            answer = ask()
            return answer, self.late() - before, slowest[0]
        finally:
            stopped.set()
            thread.join()


@pytest.fixture(scope="module")
def crowd(tmp_path_factory) -> Iterator[Crowd]:
    server = Server(tmp_path_factory.mktemp("crowd"), "--embedder", "none", "--metrics-tenants")
    try:
        yield Crowd(server.start())
    finally:
        server.end()


SEARCH = {"query": "anything"}
ROUTES: list[tuple[str, str, str, object, Callable[[dict], bool]]] = [
    ("pattern", "GET", "/stats/memory", None, lambda it: it["total_namespaces"] == MANY // 10),
    ("acme", "GET", "/stats/memory", None, lambda it: it["total_namespaces"] == MANY),
    ("acme", "GET", "/v1/usage", None, lambda it: it["data"]["agents_count"] == MANY),
    ("acme", "POST", "/v1/memory/semantic/search", SEARCH, lambda it: it["data"]["count"] == 0),
    ("pattern", "POST", "/v1/memory/search", SEARCH, lambda it: it["data"]["count"] == 0),
    (
        *("operator", "GET", "/admin/v1/tenants/acme/namespaces", None),
        lambda it: len({row["id"] for row in it["namespaces"]}) == MANY,
    ),
    (
        *("operator", "GET", "/admin/v1/tenants/acme/namespaces?prefix=user-0999", None),
        lambda it: (
            [row["namespace"][-2:] for row in it["namespaces"]]
            == [f"{number:02d}" for number in range(100)]
        ),
    ),
    ("operator", "GET", "/admin/v1/tenants/acme", None, lambda it: it["namespaces"] == MANY),
    (
        *("operator", "GET", "/admin/v1/tenants", None),
        lambda it: len({row["id"] for row in it["tenants"]}) == MANY // 10 + 2,
    ),
    (
        *("operator", "GET", "/admin/v1/keys", None),
        lambda it: len({row["id"] for row in it["keys"]}) == MANY // 10 + 4,
    ),
    (
        *("operator", "GET", "/admin/v1/audit", None),
        lambda it: len(it["audit"]) >= MANY // 10,
    ),
    ("operator", "GET", "/admin/v1/tenants/acme/usage", None, lambda it: it["namespaces"] == MANY),
    ("other", "GET", "/health", None, lambda it: it["reembed_needed"] is False),
    ("operator", "DELETE", "/admin/v1/keys/no-such-key", None, lambda it: "error" in it),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "method", "path", "body", "right"),
    ROUTES,
    ids=[f"{route[0]} {route[1]} {route[2]}" for route in ROUTES],
)
def test_nobody_waits_for(crowd, key, method, path, body, right):
    tries = []
    for _ in range(TRIES):
        answer, late, slowest = crowd.beside(lambda: crowd.ask(key, method, path, body))
        assert right(answer.json()), answer.text[:500]
        tries.append((late, slowest))
        if late == 0 and slowest < 2 * MOST_STAND:
            return
    raise AssertionError(f"the loop stood, and another tenant waited: {tries}")


@pytest.mark.slow
def test_a_scrape_holds_nobody_up(crowd):
    def page() -> httpx.Response:
        return crowd.ask("operator", "GET", "/metrics")

    tries = [crowd.beside(page)[1:] for _ in range(TRIES)]
    assert any(late == 0 and slowest < 2 * MOST_STAND for late, slowest in tries), tries
    assert f"botwire_namespaces {MANY + 1}.0" in page().text


@pytest.mark.slow
def test_housekeeping_holds_nobody_up(crowd):
    """What happens by itself every second or so, after something was written."""

    def rest() -> httpx.Response:
        crowd.put("other", "mine", "more")
        time.sleep(1.5)
        return crowd.ask("other", "GET", "/health")

    tries = [crowd.beside(rest)[1:] for _ in range(TRIES)]
    assert any(late == 0 and slowest < 2 * MOST_STAND for late, slowest in tries), tries


@pytest.mark.slow
def test_zz_a_purge_of_all_of_it_holds_nobody_up(crowd):
    """The last: the purge of a tenant goes on for long, and others do not wait for it."""

    def go_on() -> None:
        with suppress(httpx.HTTPError):  # the server ends before it does
            crowd.ask("operator", "DELETE", "/admin/v1/tenants/acme?confirm=acme")

    purging = threading.Thread(target=go_on, daemon=True)
    started = []

    def purge() -> httpx.Response:
        if not started:
            started.append(purging.start())
        time.sleep(2)
        return crowd.ask("acme", "GET", "/stats/memory")

    tries = []
    for _ in range(TRIES):
        answer, late, slowest = crowd.beside(purge)
        tries.append((late, slowest))
    assert answer.status_code == 401
    # The first has the one transaction that makes all of them tombstones.
    assert tries[0][0] <= 1, tries
    assert any(late == 0 and slowest < 2 * MOST_STAND for late, slowest in tries[1:]), tries
    rows = cli_json(crowd.server.data, "tenants", "list")
    assert "acme" not in {row["tenant"] for row in rows}


@pytest.mark.parametrize("seed", range(20))
def test_a_keys_pattern_fits_the_same_names_in_sql(seed):
    chance = random.Random(seed)
    letters = "aab*?[]^-\\%_Ž"
    with closing(sqlite3.connect(":memory:")) as connection:
        for _ in range(500):
            pattern = "".join(chance.choices(letters, k=chance.randrange(1, 7)))
            name = "".join(chance.choices(letters, k=chance.randrange(1, 9)))
            fits = keys.Grant(frozenset({"read"}), pattern).allows("read", name)
            [same] = connection.execute("SELECT ? GLOB ?", (name, glob(pattern))).fetchone()
            assert bool(same) is fits, (pattern, name)
