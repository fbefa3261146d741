"""A request id in every answer and in every line about it, also where it is the client's own."""

from __future__ import annotations

import json
import re
import time

import httpx
import pytest
from serving import JSON, InProcess, connected, exchange, received, request, until

from botwire_server.web.http import protocol

OURS = "[0-9a-f]{16}"


def id_of(answer: bytes) -> str:
    found = re.findall(rb"\r\nx-request-id: ([^\r]*)\r\n", answer)
    assert len(found) == 1, answer
    return found[0].decode()


def test_every_answer_has_one_of_its_own(server, ns):
    with httpx.Client(base_url=server.url) as client:
        path = f"/memory/{ns}/k"
        answers = [
            client.put(path, json={"value": "v"}),
            client.get(path),
            client.head(path),
            client.get("/health"),
            client.get("/v1/health"),
            client.get("/ready"),
            client.get("/metrics"),
            client.get("/nothing"),
            client.post(path),
            client.put(path, content=b"{", headers=JSON),
            client.get("/v1/state/none"),
            client.get("/health", headers={"Host": "evil.example"}),
            client.get("/admin/v1/tenants"),
        ]
    ids = [answer.headers.get_list("x-request-id") for answer in answers]
    assert all(len(id) == 1 and re.fullmatch(OURS, id[0]) for id in ids), ids
    assert len({id[0] for id in ids}) == len(answers)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET /v1/health HTTP/1.1\r\nHost: localhost\r\nno colon\r\n\r\n", b"400"),
        (request("GET", "/health", X="y" * 70_000), b"431"),
    ],
)
def test_also_what_never_reaches_the_app(server, sent, status):
    answer = exchange(server.address, sent)
    assert answer.split(b" ")[1] == status
    id = id_of(answer)
    assert re.fullmatch(OURS, id)
    if b"/v1/" in sent:
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["meta"]["request_id"] == id


@pytest.mark.parametrize("id", ["a", "01JD-5f.x_Y", "f" * 64])
def test_a_clients_own_is_taken_over(server, id):
    for path in ("/health", "/nothing", "/v1/health", "/v1/state/none"):
        answer = httpx.get(server.url + path, headers={"X-Request-ID": id})
        assert answer.headers.get_list("x-request-id") == [id]
        if path.startswith("/v1"):
            assert answer.json()["meta"]["request_id"] == id


@pytest.mark.parametrize(
    "id", ["", "f" * 65, "a b", "a\tb", "ü", '"', "a,b", "a/b", "%0a", "bw_" + "k" * 12 + "_" * 50]
)
def test_one_that_is_not_safe_is_replaced(server, id):
    answer = httpx.get(f"{server.url}/health", headers={"X-Request-ID": id.encode("latin-1")})
    assert re.fullmatch(OURS, answer.headers["x-request-id"])


@pytest.mark.parametrize("style", ["text", "json"])
def test_the_lines_about_a_request_carry_its_id(make_server, style):
    server = make_server("--log-format", style)
    with httpx.Client(base_url=server.url, timeout=30) as client:
        client.put("/memory/ns/k", json={"value": "v"})
        server.limit_file_size(4_096)  # more than the log, less than a journal
        answer = client.put(
            "/memory/ns/k", json={"value": "v"}, headers={"X-Request-ID": "of-the-write"}
        )
        server.limit_file_size(None)
        assert answer.status_code in (503, 507)
    bad = id_of(exchange(server.address, b"nonsense\r\n\r\n"))
    server.stop()
    lines = server.log.splitlines()
    about = [line for line in lines if "of-the-write" in line]
    assert [("SQLite: SQLITE_" in line, "PUT" in line) for line in about] == [
        (True, False),
        (False, True),
    ], lines
    [line] = [line for line in lines if bad in line]
    assert "400" in line
    if style == "json":
        assert {json.loads(line)["request_id"] for line in about} == {"of-the-write"}
        # What nobody asked for is nobody's.
        assert all("request_id" in json.loads(line) for line in lines if '"route"' in line)
    else:
        assert all(line.endswith(" of-the-write") for line in about)


def test_an_answer_that_the_protocol_gives_has_the_id_of_the_line(tmp_path, monkeypatch):
    """The app has begun on it, and hears of the end like of a client that went away."""
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.3)
    noted = []

    class Log:
        def add(self, *line):
            noted.append(line)

        def flush(self):
            pass

    with InProcess(tmp_path) as server:
        server.app._request_log = Log()
        with connected(server.address) as connection:
            half = request("PUT", "/memory/ns/k", b"x" * 10_000, X_Request_ID="slow-one")
            connection.sendall(half[:500])
            answer = received(connection)
        until(lambda: noted, "the line")
        time.sleep(0.1)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert id_of(answer) == "slow-one"
    [(method, route, status, _, id)] = noted
    assert (method, route, status, id) == ("PUT", "/memory/{namespace}/{key:path}", 408, "slow-one")
