"""--allow-origin: which web pages may ask, what their browsers are told, and what nobody is."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Iterator

import httpx
import pytest
from access import ROWS
from serving import Server, command, exchange, request, status_of
from tenancy import Keyed, bearer

from botwire_server.errors import Unusable
from botwire_server.web.origins import Origins

APP = "https://app.example"
LOCAL = "http://localhost:3000"
METHODS = "GET, HEAD, PUT, POST, PATCH, DELETE"
HEADERS = "Authorization, Content-Type, If-Match, If-None-Match, X-API-Key, X-Request-ID"
EXPOSED = (
    "ETag, X-Request-ID, Retry-After, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"
)
FOREIGN = (
    "https://evil.example",
    "http://app.example",
    "https://app.example:8443",
    "https://app.example.",
    "https://app.example.evil.example",
    "https://evil.app.example",
    "https://app.example/",
    "https://app.example evil",
    "null",
    "*",
    "",
)
ASKED = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "x-api-key"}


@pytest.fixture(scope="module")
def office(tmp_path_factory) -> Iterator[Keyed]:
    origins = (APP, LOCAL, "https://b.example:8443")
    with Keyed(tmp_path_factory.mktemp("origins"), allow_origin=origins) as office:
        office.acme = office.tenant("acme")
        yield office


def cors(answer: httpx.Response) -> dict[str, str]:
    """The headers that concern pages of other origins."""
    return {
        name: value for name, value in answer.headers.items() if name.startswith("access-control-")
    }


def varies(answer: httpx.Response) -> bool:
    """Whether a cache is told that the answer depends on who asks from where."""
    return "origin" in answer.headers.get("vary", "").lower().replace(" ", "").split(",")


PREFLIGHT = {
    "access-control-allow-origin": APP,
    "access-control-allow-methods": METHODS,
    "access-control-allow-headers": HEADERS,
    "access-control-expose-headers": EXPOSED,
    "access-control-max-age": "600",
}
READABLE = {"access-control-allow-origin": APP, "access-control-expose-headers": EXPOSED}

PATHS = sorted(
    {row.path.replace("{", "").replace("}", "") for row in ROWS}
    | {"/", "/nowhere", "/v2/x", "/admin/v1/nowhere", "//memory/a/b", "/memory/a%2Fb/c", "/health/"}
)


@pytest.mark.parametrize("path", PATHS)
def test_a_preflight_needs_no_key_whatever_the_path(office, path):
    for key in (None, office.acme, "nonsense"):
        headers = {} if key is None else bearer(key)
        answer = office.bare.options(path, headers=headers | {"Origin": APP} | ASKED)
        assert (answer.status_code, answer.content) == (204, b"")
        assert cors(answer) == PREFLIGHT
        assert varies(answer)
        assert "x-request-id" in answer.headers


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_preflight_of_another_page_is_a_request_without_a_key(office, origin):
    for path in ("/memory/one/k", "/v1/state", "/admin/v1/tenants", "/nowhere"):
        answer = office.bare.options(path, headers={"Origin": origin} | ASKED)
        assert answer.status_code == 401
        assert cors(answer) == {}
        assert varies(answer)


def test_what_is_no_preflight_is_none(office):
    plain = office.bare.options("/memory/one/k", headers={"Origin": APP})
    assert (plain.status_code, cors(plain)) == (401, READABLE)
    assert office.bare.options("/memory/one/k", headers=ASKED).status_code == 401
    with_key = office.bare.options("/memory/one/k", headers={"Origin": APP} | bearer(office.acme))
    assert with_key.status_code == 405


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("PUT", "/memory/one/k", {}, {"value": 1}, 200),
        ("GET", "/memory/one/k", {}, None, 200),
        ("HEAD", "/memory/one/k", {}, None, 200),
        ("GET", "/memory/one/k", {"If-None-Match": "*"}, None, 304),
        ("PUT", "/memory/one/k", {"If-None-Match": "*"}, {"value": 1}, 412),
        ("GET", "/memory/one/none", {}, None, 404),
        ("GET", "/nowhere", {}, None, 404),
        ("POST", "/memory/one/k", {}, {}, 405),
        ("PUT", "/memory/one/k", {"Content-Type": "text/plain"}, {"value": 1}, 415),
        ("PUT", "/memory/one/k", {}, {"value": "v" * 1_100_000}, 413),
        ("GET", "/memory/%ff/k", {}, None, 400),
        ("GET", "/memory/one/k", {"Authorization": "Bearer x"}, None, 401),
        ("GET", "/v1/state/one", {"Authorization": "Bearer x"}, None, 401),
        ("GET", "/admin/v1/tenants", {}, None, 403),
        ("GET", "/metrics", {}, None, 403),
        ("GET", "/health", {}, None, 200),
        ("GET", "/v1/health", {}, None, 200),
        ("GET", "/openapi.json", {}, None, 200),
        ("POST", "/v1/memory", {}, {"agent_id": "one", "content": "said"}, 201),
    ],
)
def test_an_allowed_page_can_read_every_answer(office, method, path, headers, body, status):
    office.bare.put("/memory/one/k", json={"value": 1}, headers=bearer(office.acme))
    sent = bearer(office.acme) | {"Origin": APP} | headers
    answer = office.bare.request(method, path, headers=sent, json=body)
    assert answer.status_code == status, answer.text
    assert cors(answer) == READABLE
    assert varies(answer)
    assert answer.headers.get_list("access-control-allow-origin") == [APP]


def test_a_quota_can_be_read(tmp_path):
    with Keyed(tmp_path, allow_origin=(APP,), daily_writes=1) as office:
        writer = office.client(office.tenant("acme"), Origin=APP)
        statuses = [writer.put("/memory/one/k", json={"value": 1}) for _ in range(2)]
        assert [each.status_code for each in statuses] == [200, 429]
        shown = statuses[1].headers
        assert {"retry-after", "x-ratelimit-limit", "x-ratelimit-reset"} <= set(shown)
        assert shown["access-control-expose-headers"] == EXPOSED


@pytest.mark.parametrize("origin", [*FOREIGN, None])
def test_other_pages_read_nothing(office, origin):
    """A key is a key; but the browser keeps the answer from them."""
    headers = bearer(office.acme) | ({} if origin is None else {"Origin": origin})
    answer = office.bare.get("/stats/memory", headers=headers)
    assert (answer.status_code, cors(answer)) == (200, {})
    assert varies(answer)


@pytest.mark.parametrize("twice", list(itertools.product((APP, LOCAL, "null"), repeat=2)))
def test_two_origins_are_none(office, twice):
    lines = "\r\nOrigin: ".join(twice)
    key = f"Bearer {office.acme}"
    answer = exchange(
        office.address, request("GET", "/stats/memory", Origin=lines, Authorization=key)
    )
    assert status_of(answer) == 200
    assert b"access-control-" not in answer.lower()


@pytest.mark.parametrize("spelled", [APP.upper(), "HTTPS://app.example"])
def test_case_is_none_of_an_origin(office, spelled):
    answer = office.bare.options("/memory/a/b", headers={"Origin": spelled} | ASKED)
    assert answer.headers["access-control-allow-origin"] == APP


def test_what_the_protocol_refuses_can_be_read(office):
    late = request("PUT", "/memory/one/k", close=False, Origin=APP, Content_Length="x")
    assert status_of(exchange(office.address, late)) == 400
    broken = request("PUT", "/memory/one/k", Origin=APP, Transfer_Encoding="chunked") + b"zz\r\n"
    answer = exchange(office.address, broken)
    assert status_of(answer) == 400
    assert b"access-control-allow-origin: " + APP.encode() in answer.lower()


def test_credentials_are_never_let_through(office):
    for origin in (APP, LOCAL):
        for answer in (
            office.bare.options("/memory/a/b", headers={"Origin": origin} | ASKED),
            office.bare.get("/stats/memory", headers={"Origin": origin} | bearer(office.acme)),
        ):
            assert answer.headers["access-control-allow-origin"] == origin
            assert "access-control-allow-credentials" not in answer.headers
            assert "*" not in "".join(cors(answer).values())


def test_off_by_default(server):
    for sent in (
        request("OPTIONS", "/memory/a/b", Origin=APP, Access_Control_Request_Method="PUT"),
        request("GET", "/memory/a/b", Origin=APP),
        request("GET", "/health"),
    ):
        assert b"access-control-" not in exchange(server.address, sent).lower()


# While no key is needed.


@pytest.fixture(scope="module")
def open_server(tmp_path_factory):
    server = Server(
        tmp_path_factory.mktemp("open"),
        *("--allow-origin", LOCAL, "--allow-origin", APP, "--allow-origin", "http://[::1]:5173"),
    )
    try:
        yield server.start()
    finally:
        server.end()


@pytest.mark.parametrize("origin", [LOCAL, "http://[::1]:5173"])
@pytest.mark.parametrize("site", ["same-site", "cross-site", "same-origin", "none", None])
def test_an_open_server_answers_pages_of_this_machine(open_server, origin, site):
    preflight = request(
        "OPTIONS",
        "/memory/a/b",
        Origin=origin,
        Sec_Fetch_Site=site,
        Access_Control_Request_Method="PUT",
    )
    answer = exchange(open_server.address, preflight)
    assert status_of(answer) == 204
    assert f"access-control-allow-origin: {origin}".encode() in answer
    put = request("PUT", "/memory/a/b", b'{"value": 1}', Origin=origin, Sec_Fetch_Site=site)
    answer = exchange(open_server.address, put)
    assert status_of(answer) == 200
    assert f"access-control-allow-origin: {origin}".encode() in answer


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/memory/a/b", {"Origin": APP}, 403),
        ("/health", {"Origin": APP}, 403),
        ("/memory/a/b", {"Origin": "https://evil.example"}, 403),
        # Only an origin that is told counts.
        ("/memory/a/b", {"Sec-Fetch-Site": "same-site"}, 403),
        ("/memory/a/b", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("/memory/a/b", {"Origin": LOCAL, "Sec-Fetch-Site": "none\r\nSec-Fetch-Site: none"}, 403),
        ("/memory/a/b", {"Origin": f"{LOCAL}\r\nOrigin: {LOCAL}"}, 403),
        ("/memory/a/b", {"Origin": LOCAL, "Host": "evil.example"}, 421),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS"])
def test_an_open_server_refuses_pages_of_others(open_server, method, path, headers, status):
    if method == "OPTIONS":
        headers = headers | {"Access-Control-Request-Method": "PUT"}
    body = b'{"value": 1}' if method == "PUT" else b""
    answer = exchange(open_server.address, request(method, path, body, **headers))
    assert status_of(answer) == status
    if LOCAL not in headers.get("Origin", ""):
        assert b"access-control-allow" not in answer.lower()


def test_the_log_names_who_is_not_answered_yet(open_server):
    assert APP in open_server.log
    assert LOCAL not in open_server.log


# What can be set.


@pytest.mark.parametrize(
    ("setting", "origin"),
    [
        (APP, APP),
        ("https://app.example/", APP),
        ("HTTPS://App.Example", APP),
        ("https://app.example:443", APP),
        ("http://app.example:80/", "http://app.example"),
        ("http://app.example:443", "http://app.example:443"),
        ("https://app.example:0443", APP),
        ("http://localhost:3000", LOCAL),
        ("http://127.0.0.1:5173", "http://127.0.0.1:5173"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("http://[0:0::1]:3000", "http://[::1]:3000"),
        ("http://[2001:DB8::0:1]", "http://[2001:db8::1]"),
        ("https://xn--mnchen-3ya.example", "https://xn--mnchen-3ya.example"),
        ("http://my_host", "http://my_host"),
        ("http://4chan.example", "http://4chan.example"),
    ],
)
def test_an_origin_is_written_as_browsers_do(setting, origin):
    found = Origins([setting])
    header = {b"origin": origin.encode()}
    assert found.asking(list(header.items()), header, is_open=lambda: False) == origin.encode()


@pytest.mark.parametrize(
    "setting",
    [
        "*",
        "null",
        "https://*",
        "https://*.example",
        "app.example",
        "//app.example",
        "https:app.example",
        "https://",
        "https:///",
        "https://app.example/path",
        "https://app.example//",
        "https://app.example?x",
        "https://app.example#x",
        "https://user@app.example",
        "https://user:password@app.example",
        "https://app.example:",
        "https://app.example:0",
        "https://app.example:65536",
        "https://app.example:x",
        "https://app .example",
        "https://app..example",
        "https://.example",
        "https://app.example.",
        "https://-app.example",
        "https://[::1",
        "https://::1",
        "https://[::g]",
        "https://[127.0.0.1]",
        "http://127.1",
        "http://1.2.3.4.5",
        "http://256.1.1.1",
        "http://0x7f.1",
        "https://münchen.example",
        "ftp://app.example",
        "file://",
        "https://app.example\n",
        f"https://{'a' * 254}",
        "",
    ],
)
def test_what_is_no_origin_stops_the_start(setting):
    with pytest.raises(Unusable) as refused:
        Origins([APP, setting])
    assert "--allow-origin" in refused.value.message


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        **command(*arguments, **variables), capture_output=True, text=True, timeout=60, check=False
    )


def test_a_start_says_what_is_wrong(tmp_path):
    done = run("serve", "--data-dir", str(tmp_path), "--port", "0", "--allow-origin", "*")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("botwire-server: --allow-origin *: ")
    assert "Traceback" not in done.stderr
    told = run(
        *("doctor", "--data-dir", str(tmp_path), "--embedder", "none"),
        BOTWIRE_SERVER_ALLOW_ORIGIN=f"{APP} app.example",
        BOTWIRE_SERVER_TRUSTED_PROXY="10.0.0.1/8",
    )
    assert told.returncode == 1
    assert "app.example: an origin is" in told.stdout
    assert "10.0.0.0/8" in told.stdout


def test_several_in_a_variable(tmp_path):
    done = run(
        *("doctor", "--data-dir", str(tmp_path), "--embedder", "none", "--json"),
        BOTWIRE_SERVER_ALLOW_ORIGIN=f"{LOCAL}, http://localhost:4000\t{APP}",
        BOTWIRE_SERVER_TRUSTED_PROXY="",
    )
    told = {each["setting"]: each["value"] for each in json.loads(done.stdout)["settings"]}
    assert told["allow_origin"] == f"{LOCAL} http://localhost:4000 {APP}"
    assert told["trusted_proxy"] == ""
