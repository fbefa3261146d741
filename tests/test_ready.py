"""/ready: 200 while the server can work, 503 with what is wrong, and never a word more."""

from __future__ import annotations

import asyncio
import shutil
import signal
import threading
import time

import httpx
from embedding_endpoint import EmbeddingEndpoint
from serving import InProcess, connected, request, until
from tenancy import Keyed, bearer

from botwire_server.store import readiness

READY = {
    "status": "ready",
    "registry": "ok",
    "disk": "ok",
    "embedder": "ok",
    "reembed_needed": False,
}


def ready(url: str) -> tuple[int, dict]:
    answer = httpx.get(f"{url}/ready", timeout=30)
    return answer.status_code, answer.json()


def test_a_server_that_works_is_ready(tmp_path):
    with InProcess(tmp_path) as server:
        assert ready(server.url) == (200, READY)
        answer = httpx.get(f"{server.url}/ready")
        assert answer.headers["cache-control"] == "no-store"
        assert httpx.head(f"{server.url}/ready").status_code == 200
        assert httpx.post(f"{server.url}/ready").status_code == 405
    assert not list(tmp_path.glob("probe"))


def test_it_tells_strangers_nothing_more_than_an_operator(tmp_path):
    with Keyed(tmp_path) as office:
        office.client(office.tenant("acme")).put("/memory/ns/k", json={"value": "v"})
        for headers in ({}, bearer(office.operator_key), bearer("nonsense")):
            answer = office.bare.get("/ready", headers=headers)
            assert (answer.status_code, answer.json()) == (200, READY)


def test_without_an_embedder(tmp_path):
    with InProcess(tmp_path, embedder="none") as server:
        assert ready(server.url) == (200, READY | {"embedder": "none"})


def test_an_embedder_that_fails_is_told_and_takes_nothing_out_of_service(tmp_path):
    endpoint = EmbeddingEndpoint()
    endpoint.close()
    with InProcess(tmp_path, embedder=f"openai:model@{endpoint.url}") as server:
        memory = {"agent_id": "a", "content": "x"}
        assert httpx.post(f"{server.url}/v1/memory/semantic", json=memory).status_code == 503
        assert ready(server.url) == (200, READY | {"embedder": "failing"})


def test_a_disk_that_takes_no_writes(make_server):
    server = make_server()
    assert ready(server.url) == (200, READY)
    server.limit_file_size(100)
    time.sleep(readiness.KEPT_SECONDS)
    try:
        assert ready(server.url) == (503, READY | {"status": "not ready", "disk": "failing"})
        assert httpx.get(f"{server.url}/health").status_code == 200
    finally:
        server.limit_file_size(None)
    until(lambda: ready(server.url) == (200, READY), "it is ready again")


def test_a_data_directory_that_is_gone(tmp_path):
    with InProcess(tmp_path / "data") as server:
        assert ready(server.url) == (200, READY)
        (tmp_path / "data").rename(tmp_path / "away")
        time.sleep(readiness.KEPT_SECONDS)
        failing = {"status": "not ready", "registry": "failing", "disk": "failing"}
        assert ready(server.url) == (503, READY | failing)
        (tmp_path / "away").rename(tmp_path / "data")


def test_a_registry_that_does_not_answer(make_server):
    server = make_server()
    path = server.data / "control.db"
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.truncate(0)
    time.sleep(readiness.KEPT_SECONDS)
    try:
        status, told = ready(server.url)
        assert (status, told["status"], told["registry"]) == (503, "not ready", "failing")
        assert set(told) == set(READY)
        assert str(server.data) not in str(told)
        assert httpx.get(f"{server.url}/health").status_code == 200  # it lives
    finally:
        path.write_bytes(content)


def test_asking_often_costs_the_disk_nothing(tmp_path, monkeypatch):
    looks = []
    writable = readiness._writable
    monkeypatch.setattr(readiness, "_writable", lambda path: looks.append(1) or writable(path))
    with InProcess(tmp_path) as server, httpx.Client() as client:
        began = time.monotonic()
        for _ in range(100):
            assert client.get(f"{server.url}/ready").status_code == 200
        seconds = time.monotonic() - began
    assert len(looks) <= 2 + seconds / readiness.KEPT_SECONDS


def test_a_disk_that_hangs_is_not_ready_and_asked_only_once(tmp_path, monkeypatch):
    going_on = threading.Event()
    looks = []

    def hang(path):
        looks.append(1)
        going_on.wait(20)
        return True

    monkeypatch.setattr(readiness, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(readiness, "_writable", hang)
    with InProcess(tmp_path) as server:
        for _ in range(3):
            assert ready(server.url)[1]["disk"] == "failing"
        assert len(looks) == 1
        going_on.set()
        until(lambda: ready(server.url) == (200, READY), "it is ready again")


def test_it_says_at_once_that_it_ends(make_server):
    server = make_server("--metrics", "127.0.0.1:0")
    figures = server.banner.partition("metrics  ")[2].partition("/metrics")[0]
    with connected(server.address) as upload, httpx.Client(base_url=figures) as client:
        assert client.get("/ready").status_code == 200
        # Something that goes on for a while, so that it does not end at once.
        upload.sendall(request("PUT", "/memory/ns/k", b"x" * 900_000)[:2_000])
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        answer = until(lambda: _stopping(client), "it says so")
        assert answer.json()["status"] == "stopping"
        assert client.get("/health").status_code == 200
    server.process.wait(30)


def _stopping(client: httpx.Client) -> httpx.Response | None:
    answer = client.get("/ready")
    return answer if answer.status_code == 503 else None


def test_a_look_is_not_spoiled_by_one_that_goes_away(tmp_path):
    """The task that looks belongs to nobody's request."""

    async def scenario():
        looked = asyncio.Event()

        class Slow(readiness.Prober):
            async def _look(self):
                await asyncio.sleep(0.1)
                looked.set()
                self._found_at = time.monotonic()
                self._looking = None
                return self._found

        prober = Slow(None)
        first = asyncio.create_task(prober.look())
        await asyncio.sleep(0.01)
        first.cancel()
        assert (await prober.look()).disk
        assert looked.is_set()

    asyncio.run(scenario())
    shutil.rmtree(tmp_path)
