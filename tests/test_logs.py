"""One line a request, and never a name, a key or a value in it, whatever happens."""

from __future__ import annotations

import json
import re

import httpx
import pytest
from serving import exchange, namespace_files, request

SECRETS = ["Zanzibar", "Mombasa", "Nairobi"]
NS, KEY, VALUE = SECRETS

TEXT = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info "
    r"(GET|PUT|DELETE|POST|HEAD) (/\S*|-) (\d{3}) \d+\.\dms [0-9a-f]{16}"
)


def exercise(server) -> None:
    """Everything that could make a log talk: success, refusal, conflict, damage, nonsense."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        path = f"/memory/{NS}/{KEY}"
        client.put(path, json={"value": VALUE})
        client.get(path)
        client.head(path)
        client.get(f"/memory/{NS}?prefix={KEY}")
        client.put(path, json={"value": VALUE}, headers={"If-None-Match": "*"})
        client.put(path, json={"worth": VALUE})
        client.put(
            path, content=f'{{"value": {VALUE}', headers={"Content-Type": "application/json"}
        )
        client.put(f"{path}?{VALUE}=1", json={"value": VALUE})
        client.post(path, json={"value": VALUE})
        client.get(f"/{NS}/{KEY}")
        client.delete(f"/memory/{NS}?confirm={KEY}")
        client.put(f"/memory/{NS}%0A/{KEY}", json={"value": VALUE})
        client.put(f"/memory/{NS * 60}/{KEY}", json={"value": VALUE})
        client.put(path, json={"value": VALUE * 500_000})
        client.delete(path)
        client.delete(path)
    exchange(server.address, f"GET /{NS} {KEY} {VALUE}\r\n\r\n")
    exchange(server.address, request("GET", f"/memory/{NS}/%ff{KEY}"))
    exchange(server.address, request("GET", f"/memory/{NS}", Host=f"{VALUE}.example"))


def damage(server) -> str:
    """A namespace whose file is no database, and one whose pages are garbled; the log before."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for number in range(200):
            client.put(f"/memory/{NS}/{KEY}{number}", json={"value": VALUE * 50})
        client.put(f"/memory/{NS}{NS}/{KEY}", json={"value": VALUE})
    server.stop()
    log = server.log
    lost, garbled = sorted(namespace_files(server.data), key=lambda file: file.stat().st_size)
    lost.write_bytes(VALUE.encode() * 1_000)
    content = bytearray(garbled.read_bytes())
    content[200_000:260_000] = b"\xff" * 60_000
    garbled.write_bytes(content)
    server.start()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        client.get(f"/memory/{NS}{NS}/{KEY}")
        for number in range(0, 200, 5):
            client.get(f"/memory/{NS}/{KEY}{number}")
            client.put(f"/memory/{NS}/{KEY}{number}", json={"value": VALUE})
    return log


@pytest.mark.parametrize(("style", "level"), [("text", "debug"), ("json", "info")])
def test_no_log_line_holds_a_name_a_key_or_a_value(make_server, style, level):
    server = make_server("--log-format", style, "--log-level", level)
    exercise(server)
    first = damage(server)
    server.stop()
    log = first + server.log
    assert log.count("\n") > 100
    for secret in SECRETS:
        assert secret.lower() not in log.lower()
    assert "Traceback" not in log


def test_the_line_of_a_request_in_text(make_server):
    server = make_server()
    with httpx.Client(base_url=server.url) as client:
        id = client.put("/memory/ns/a/b", json={"value": "v"}).headers["x-request-id"]
        client.get("/memory/ns")
        client.get("/nothing")
    server.stop()
    lines = server.log.splitlines()
    assert all(TEXT.fullmatch(line) for line in lines), lines
    matches = [TEXT.fullmatch(line) for line in lines]
    assert [match.groups() for match in matches] == [
        ("PUT", "/memory/{namespace}/{key:path}", "200"),
        ("GET", "/memory/{namespace}", "200"),
        ("GET", "-", "404"),
    ]
    assert lines[0].endswith(id)


def test_the_line_of_a_request_in_json(make_server):
    server = make_server("--log-format", "json")
    with httpx.Client(base_url=server.url) as client:
        id = client.put("/memory/ns/a/b", json={"value": "v"}).headers["x-request-id"]
        client.get("/nothing")
    server.stop()
    first, second = (json.loads(line) for line in server.log.splitlines())
    assert set(first) == {"time", "level", "method", "route", "status", "ms", "request_id"}
    assert (first["method"], first["route"]) == ("PUT", "/memory/{namespace}/{key:path}")
    assert (first["status"], first["level"], first["request_id"]) == (200, "info", id)
    assert 0 < first["ms"] < 60_000
    assert (second["route"], second["status"]) == ("-", 404)


@pytest.mark.parametrize("level", ["warning", "error"])
def test_requests_are_not_logged_above_info(make_server, level):
    server = make_server("--log-level", level)
    httpx.get(f"{server.url}/health")
    server.stop()
    assert server.log == ""


def test_an_answer_says_nothing_of_this_machine(make_server):
    server = make_server()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        client.put("/memory/ns/k", json={"value": "v"})
        server.stop()
        [file] = namespace_files(server.data)
        file.write_bytes(b"garbage" * 1_000)
        server.start()
        client.base_url = server.url
        for answer in (client.get("/memory/ns/k"), client.get("/nothing"), client.get("/health")):
            assert str(server.data) not in answer.text
            assert "Error" not in answer.text
            assert "server" not in answer.headers
