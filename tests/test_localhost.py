"""While no key is required: what only a web page of somebody else would send is refused."""

from __future__ import annotations

import json
import subprocess

import pytest
from serving import command, exchange, request, status_of
from tenancy import first_key


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LocalHost", 200),
        ("127.0.0.1", 200),
        ("[::1]", 200),
        ("localhost:{port}", 200),
        ("127.0.0.1:{port}", 200),
        ("[::1]:{port}", 200),
        ("localhost:1", 200),
        ("localhost:", 200),
        (None, 400),
        ("", 400),
        ("localhost:{port}.evil.example", 400),
        ("localhost:port", 400),
        ("localhost:65536", 400),
        ("localhost, localhost", 400),
        ("user@localhost", 400),
        ("localhost/", 400),
        ("local host", 400),
        ("::1", 400),
        ("[::1", 400),
        ("[1]", 400),
        ("[::1]x", 400),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("evil.example:{port}", 421),
        ("127.0.0.1.evil.example", 421),
        ("127.0.0.2", 421),
        ("0.0.0.0", 421),
        ("[::2]", 421),
    ],
)
def test_host(server, host, status):
    host = None if host is None else host.format(port=server.address[1])
    answer = exchange(server.address, request("GET", "/health", Host=host))
    assert status_of(answer) == status
    if status != 200:
        assert b'{"detail":"' in answer


def test_two_hosts(server):
    twice = request("GET", "/memory/ns", Host="localhost\r\nHost: localhost")
    assert status_of(exchange(server.address, twice)) == 400
    for first, second in [("localhost", "evil.example"), ("evil.example", "localhost")]:
        mixed = request("GET", "/memory/ns", Host=f"{first}\r\nHost: {second}")
        assert status_of(exchange(server.address, mixed)) == 400


def test_http_1_0_without_a_host(make_server, server):
    """It is no browser that asks so; only while no key is needed must the name be known."""
    sent = b"GET /memory/ns/k HTTP/1.0\r\n%s\r\n"
    assert status_of(exchange(server.address, sent % b"")) == 400
    assert status_of(exchange(server.address, sent % b"Host: evil.example\r\n")) == 421
    keyed = make_server("--host", "2130706433")
    key = first_key(keyed)
    with_key = sent % f"X-API-Key: {key}\r\n".encode()
    assert status_of(exchange(keyed.address, with_key)) == 404
    assert status_of(exchange(keyed.address, sent % b"")) == 401


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://localhost:{port}", 200),
        ("http://evil.example", 403),
        ("http://localhost:1", 403),
        ("https://localhost:{port}", 403),
        ("http://127.0.0.1:{port}", 403),
        ("null", 403),
        ("", 403),
        ("http://localhost:{port}.evil.example", 403),
        ("file://", 403),
        ("HTTP://LOCALHOST:{port}", 200),
        ("http://localhost:{port}, http://localhost:{port}", 403),
        ("http://localhost:{port}\r\nOrigin: http://localhost:{port}", 403),
        ("http://localhost:{port}\r\nOrigin: http://evil.example", 403),
        ("http://evil.example\r\nOrigin: http://localhost:{port}", 403),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_origin(server, ns, method, origin, status):
    port = server.address[1]
    put = request("PUT", f"/memory/{ns}/k", b'{"value":"v"}')
    assert status_of(exchange(server.address, put)) == 200
    answer = exchange(
        server.address,
        request(
            method,
            f"/memory/{ns}/k",
            b'{"value":"w"}' if method == "PUT" else b"",
            Host=f"localhost:{port}",
            Origin=None if origin is None else origin.format(port=port),
        ),
    )
    assert status_of(answer) == status
    left = exchange(server.address, request("GET", f"/memory/{ns}/k"))
    if status == 403:
        assert b'"value":"v"' in left


@pytest.mark.parametrize(
    ("site", "status"),
    [
        (None, 200),
        ("same-origin", 200),
        ("Same-Origin", 200),
        ("none", 200),
        ("NONE", 200),
        ("same-site", 403),
        ("cross-site", 403),
        ("Cross-Site", 403),
        ("", 403),
        ("whatever", 403),
        ("none, cross-site", 403),
        ("same-origin\r\nSec-Fetch-Site: same-origin", 403),
        ("none\r\nSec-Fetch-Site: cross-site", 403),
        ("cross-site\r\nsec-fetch-site: none", 403),
    ],
)
def test_sec_fetch_site(server, ns, site, status):
    answer = exchange(
        server.address,
        request("PUT", f"/memory/{ns}/k", b'{"value":"v"}', Sec_Fetch_Site=site),
    )
    assert status_of(answer) == status


@pytest.mark.parametrize(
    ("media", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("Application/JSON", 200),
        (None, 415),
        ("", 415),
        ("text/plain", 415),
        ("text/plain; application/json", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/jsonp", 415),
    ],
)
def test_content_type_of_a_write(server, ns, media, status):
    answer = exchange(
        server.address,
        request("PUT", f"/memory/{ns}/k", b'{"value":"v"}', Content_Type=media),
    )
    assert status_of(answer) == status
    stored = exchange(server.address, request("GET", f"/memory/{ns}/k"))
    assert status_of(stored) == (200 if status == 200 else 404)


def test_no_answer_opens_the_server_to_web_pages(server):
    preflight = request(
        "OPTIONS",
        "/memory/ns/k",
        Origin="http://evil.example",
        Access_Control_Request_Method="PUT",
    )
    for sent in (preflight, request("GET", "/health")):
        answer = exchange(server.address, sent)
        assert b"access-control-" not in answer.lower()
    assert status_of(exchange(server.address, preflight)) == 403


@pytest.mark.parametrize("host", ["192.0.2.1", "host.invalid"])
def test_an_address_that_is_not_ours_is_one_sentence_and_makes_no_key(tmp_path, host):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            **command(*arguments, "--data-dir", str(tmp_path / "data")),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    done = run("serve", "--host", host, "--port", "0")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "--host" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.loads(run("keys", "list", "--json").stdout) == []


def test_beyond_this_machine_the_first_start_makes_a_key_and_shows_it_once(make_server):
    # 127.0.0.1 written in a way that is not known to be this machine only.
    server = make_server("--host", "2130706433")
    key = first_key(server)
    for headers, status in (({}, 401), ({"X-API-Key": key}, 404), ({"X-API-Key": key[:-1]}, 401)):
        answer = exchange(server.address, request("GET", "/memory/ns/k", **headers))
        assert status_of(answer) == status
    assert key not in server.log
    server.restart()
    assert "bw_" not in server.banner
    answer = exchange(server.address, request("GET", "/memory/ns/k", **{"X-API-Key": key}))
    assert status_of(answer) == 404


def test_insecure_open_works_and_warns(make_server):
    # 127.0.0.1 written in a way that is not known to be this machine only.
    server = make_server("--host", "2130706433", "--insecure-open")
    assert "WARNING" in server.banner
    assert "EVERYBODY" in server.banner
    answer = exchange(server.address, request("GET", "/health", Host="memory.internal:8000"))
    assert status_of(answer) == 200
    foreign = request("GET", "/health", Host="memory.internal", Origin="http://evil.example")
    assert status_of(exchange(server.address, foreign)) == 403


def test_the_default_does_not_warn(server):
    assert "WARNING" not in server.banner
    assert "this machine only" in server.banner
