"""/metrics: what was done stands there, for whom it is meant, and nobody's name without need."""

from __future__ import annotations

import re
from contextlib import closing

import httpx
import pytest
from embedding_endpoint import EmbeddingEndpoint
from prometheus_client.parser import text_string_to_metric_families
from serving import InProcess, exchange, request, status_of
from tenancy import Keyed, bearer, make_tenant

from botwire_server import metrics as counted
from botwire_server.addresses import Address
from botwire_server.errors import Unusable
from botwire_server.web.observatory import listens_at


def figures(answer: httpx.Response) -> dict[tuple[str, frozenset], float]:
    """Every sample by name and labels."""
    assert answer.status_code == 200, answer.text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


class Figures:
    """The samples of one page."""

    def __init__(self, answer: httpx.Response) -> None:
        self.samples = figures(answer)

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples.get((name, frozenset(labels.items())), 0.0)


def scraped(server, **headers: str) -> Figures:
    return Figures(httpx.get(f"{server.url}/metrics", headers=headers))


PUT = {"method": "PUT", "route": "/memory/{namespace}/{key:path}"}
GET = {"method": "GET", "route": "/memory/{namespace}/{key:path}"}


def test_what_was_asked_and_done_is_counted(tmp_path):
    with InProcess(tmp_path) as server, httpx.Client(base_url=server.url) as client:
        for number in range(5):
            client.put(f"/memory/ns/{number}", json={"value": "v"})
        client.put("/memory/ns/0", json={"worth": "v"})
        client.get("/memory/ns/0")
        client.get("/memory/ns/none")
        client.get("/nothing")
        memory = {"agent_id": "ns", "content": "It is raining."}
        assert client.post("/v1/memory/semantic", json=memory).is_success
        client.get("/stats/memory")  # what was noted is in the registry
        told = scraped(server)
    assert told("botwire_requests_total", **PUT, status="200") == 5
    assert told("botwire_requests_total", **PUT, status="400") == 1
    assert told("botwire_requests_total", **GET, status="404") == 1
    assert told("botwire_requests_total", method="GET", route="-", status="404") == 1
    assert told("botwire_request_seconds_count", **PUT) == 6
    assert told("botwire_request_seconds_bucket", **PUT, le="+Inf") == 6
    assert told("botwire_commit_seconds_count", file="namespace") >= 6
    assert told("botwire_commit_units_sum", file="namespace") >= 6
    assert told("botwire_commit_seconds_count", file="registry") >= 1
    assert told("botwire_open_namespaces") == told("botwire_namespaces") == 1
    assert told("botwire_tenants") == 1
    assert told("botwire_held", kind="entries") == 5
    assert told("botwire_held", kind="memories") == 1
    assert told("botwire_embedder_seconds_count") == 1
    assert told("botwire_embedded_texts_total") == 1
    assert told("botwire_failed_units_total", file="namespace") == 0
    assert told("process_resident_memory_bytes") > 1_000_000


def test_units_that_share_a_commit_are_counted_with_it(tmp_path):
    with InProcess(tmp_path) as server:
        many = b"".join(
            request("PUT", f"/memory/ns/{n}", b'{"value":1}', close=False) for n in range(10)
        )
        exchange(server.address, many + request("GET", "/health"))
        told = scraped(server)
    writes = told("botwire_commit_units_sum", file="namespace")
    assert writes == 10
    assert told("botwire_commit_units_count", file="namespace") <= writes


def test_what_never_became_a_request_is_counted(tmp_path):
    with InProcess(tmp_path) as server:
        assert status_of(exchange(server.address, b"nonsense\r\n\r\n")) == 400
        large = request("GET", "/health", X="y" * 70_000)
        assert status_of(exchange(server.address, large)) == 431
        told = scraped(server)
    for status in ("400", "431"):
        assert told("botwire_requests_total", method="-", route="-", status=status) == 1


def test_made_up_methods_and_paths_make_no_rows(tmp_path):
    with InProcess(tmp_path) as server, httpx.Client(base_url=server.url) as client:
        before = len(scraped(server).samples)
        for number, method in enumerate(("PROPFIND", "MKCOL", "REPORT", "PURGE", "LOCK")):
            client.request(method, f"/nothing-{number}")
            client.request(method, f"/memory/ns/{number}")
        told = scraped(server)
    assert told("botwire_requests_total", method="other", route="-", status="404") == 5
    assert len(told.samples) < before + 60


def test_refusals_for_a_quota_are_counted_by_its_kind(tmp_path):
    with InProcess(tmp_path, daily_writes=2, max_namespace_bytes=1_000) as server:
        client = httpx.Client(base_url=server.url)
        with client:
            for number in range(4):
                client.put(f"/memory/a/{number}", json={"value": "v"})
            client.put("/memory/b/k", json={"value": "v" * 2_000})
            old = {"User-Agent": "mnemora-sdk/0.1.2"}  # whose refusals are made elsewhere
            state = {"agent_id": "a", "data": {}}
            assert client.post("/v1/state", json=state, headers=old).status_code == 429
            told = scraped(server)
    assert told("botwire_quota_refusals_total", limit="writes") == 3
    assert told("botwire_quota_refusals_total", limit="namespace_bytes") == 1


def test_quotas_of_tiers_are_counted(tmp_path):
    (tmp_path / "tiers.toml").write_text(
        "[tiers.small]\ncalls_per_day = 6\nagents = 1\nstorage_bytes = 30\nvectors = 1\n"
    )
    data = tmp_path / "data"
    with Keyed(data, tiers=tmp_path / "tiers.toml") as office:
        client = office.client(office.tenant("acme", tier="small"))
        memory = {"agent_id": "a", "content": "It is raining cats and dogs."}
        assert client.post("/v1/memory/semantic", json=memory).is_success
        assert client.put("/memory/a/k", json={"value": "v"}).status_code == 429
        memory["content"] = "The sun is out."
        assert client.post("/v1/memory/semantic", json=memory).status_code == 429
        client.delete("/memory/a?confirm=a")
        client.put("/memory/b/k", json={"value": "v"})
        assert client.put("/memory/c/k", json={"value": "v"}).status_code == 429
        assert client.get("/memory/b").status_code == 429
        told = scraped(office, **bearer(office.operator_key))
    for kind, times in (("calls", 1), ("agents", 1), ("storage", 2)):
        assert told("botwire_quota_refusals_total", limit=kind) == times, kind


def test_an_embedder_that_fails_is_counted(tmp_path):
    with closing(EmbeddingEndpoint()) as endpoint:
        endpoint.status = 500
        setting = f"openai:model@{endpoint.url}"
        with InProcess(tmp_path, embedder=setting) as server:
            memory = {"agent_id": "a", "content": "x"}
            assert httpx.post(f"{server.url}/v1/memory/semantic", json=memory).status_code == 503
            told = scraped(server)
            assert httpx.get(f"{server.url}/ready").json()["embedder"] == "failing"
            endpoint.status = 200
            assert httpx.post(f"{server.url}/v1/memory/semantic", json=memory).status_code == 201
            assert httpx.get(f"{server.url}/ready").json()["embedder"] == "ok"
    assert told("botwire_embedder_failures_total") == 1
    assert told("botwire_embedder_seconds_count") == 0


# Tenants.


def test_no_tenant_is_named_unless_asked_for(tmp_path):
    with Keyed(tmp_path) as office:
        office.client(office.tenant("zanzibar")).put("/memory/mombasa/k", json={"value": "v"})
        page = office.bare.get("/metrics", headers=bearer(office.operator_key)).text
    assert "zanzibar" not in page
    assert "mombasa" not in page


def test_tenants_have_their_requests_and_holdings_where_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(counted, "MOST_TENANTS", 2)
    with Keyed(tmp_path, metrics_tenants=True) as office:
        for name in ("acme", "globex", "initech", "hooli"):
            client = office.client(office.tenant(name))
            client.put("/memory/mombasa/k", json={"value": "v"})
            client.get("/memory/mombasa/none")
        client.get("/stats/memory")
        told = scraped(office, **bearer(office.operator_key))
        page = office.bare.get("/metrics", headers=bearer(office.operator_key)).text
    assert told("botwire_tenant_requests_total", tenant="acme", status="2xx") == 1
    assert told("botwire_tenant_requests_total", tenant="acme", status="4xx") == 1
    assert told("botwire_tenant_requests_total", tenant="", status="4xx") == 2  # the last two's
    assert told("botwire_tenant_namespaces", tenant="acme") == 1
    assert "mombasa" not in page


# Who may see it, and where.


def test_an_open_server_shows_it_to_this_machine_and_to_no_foreign_page(tmp_path):
    with InProcess(tmp_path) as server:
        assert httpx.get(f"{server.url}/metrics").status_code == 200
        for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            answer = httpx.get(f"{server.url}/metrics", headers=headers)
            assert answer.status_code in (403, 421)
            assert "botwire_requests" not in answer.text


def test_keys_are_required_for_it_from_the_first_on(tmp_path):
    with InProcess(tmp_path) as server:
        key = make_tenant(tmp_path, "acme")
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        assert httpx.get(f"{server.url}/metrics", headers=bearer(key)).status_code == 403


def test_off_is_off(tmp_path):
    with InProcess(tmp_path, metrics="off") as server:
        assert httpx.get(f"{server.url}/metrics").status_code == 404
        assert httpx.get(f"{server.url}/ready").status_code == 200


def test_a_listener_of_its_own(make_server):
    server = make_server("--metrics", "127.0.0.1:0")
    found = re.search(r"metrics +(http://127\.0\.0\.1:\d+)/metrics\n", server.banner)
    assert found is not None, server.banner
    with httpx.Client(base_url=found[1]) as client:
        httpx.put(f"{server.url}/memory/ns/k", json={"value": "v"})
        answer = client.get("/metrics")
        assert Figures(answer)("botwire_requests_total", **PUT, status="200") == 1
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert answer.headers["x-request-id"]
        assert client.get("/health").json()["status"] == "ok"
        assert client.get("/ready").json()["status"] == "ready"
        assert client.head("/metrics").status_code == 200
        assert client.post("/metrics").status_code == 405
        for path in ("/memory/ns/k", "/stats/memory", "/admin/v1/tenants", "/v1/health", "/"):
            assert client.get(path).status_code == 404, path
        assert client.get("/metrics", headers={"Host": "evil.example"}).status_code == 421
        assert httpx.get(f"{server.url}/metrics").status_code == 404
        server.stop()
        with pytest.raises(httpx.HTTPError):
            client.get("/metrics")
    assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("setting", "address"),
    [
        ("on", None),
        ("off", None),
        ("127.0.0.1:9464", Address("--metrics", "127.0.0.1", 9464)),
        ("[::1]:0", Address("--metrics", "::1", 0)),
        ("metrics.internal:80", Address("--metrics", "metrics.internal", 80)),
        ("[::]:9464", Address("--metrics", "::", 9464)),
        ("unix:/run/m.sock", Address("--metrics", path="/run/m.sock")),
    ],
)
def test_addresses(setting, address):
    assert listens_at(setting) == address


@pytest.mark.parametrize("setting", ["", "yes", "9464", ":9464", "host:", "host:70000", "a b:1"])
def test_what_is_no_address_is_refused(setting):
    with pytest.raises(Unusable, match="--metrics must be"):
        listens_at(setting)


def test_an_address_that_is_taken_stops_the_start(make_server, tmp_path):
    taken = make_server()
    host, port = taken.address
    with pytest.raises(AssertionError, match=f"port {port} for --metrics"):
        make_server("--metrics", f"{host}:{port}")
