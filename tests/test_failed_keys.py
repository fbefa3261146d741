"""Keys that do not work: counted, after ten a minute refused, and never in a good key's way."""

from __future__ import annotations

import email.utils
import re
from collections.abc import Iterator

import httpx
import pytest
from serving import FakeClock, connected, exchange, request, status_of
from tenancy import Keyed, basic, bearer

from botwire_server.errors import TooManyFailures, Unusable
from botwire_server.store.keys import new_key
from botwire_server.web import callers
from botwire_server.web.callers import MOST_ADDRESSES, MOST_FAILURES, Failures, Proxies

BAD = "bw_000000000000_" + "0" * 49
PATHS = ("/memory/one/k", "/v1/state/one", "/admin/v1/tenants", "/metrics", "/nowhere")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def office(tmp_path, clock) -> Iterator[Keyed]:
    with Keyed(
        tmp_path,
        clock=clock,
        most_failures=MOST_FAILURES,
        trusted_proxy=("127.0.0.1", "10.0.0.0/8", "2001:db8:ffff::/48"),
    ) as office:
        office.acme = office.tenant("acme")
        office.client(office.acme).put("/memory/one/k", json={"value": 1})
        yield office


def fail(office: Keyed, *, path: str = PATHS[0], **headers: str) -> int:
    """A request with a key that does not work; its status."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return office.bare.get(path, headers=bearer(BAD) | sent).status_code


def figures(office: Keyed) -> dict[str, float]:
    """What /metrics says of keys that do not work."""
    text = office.bare.get("/metrics", headers=bearer(office.operator_key)).text
    found = re.findall(r"^(botwire_(?:failed_keys|quota_refusals)_total\S*) (\S+)$", text, re.M)
    return {name: float(value) for name, value in found if "failed_keys" in name}


def test_ten_are_told_and_the_next_is_refused(office, clock):
    assert [fail(office, path=path) for path in PATHS * 2] == [401] * 10
    for path, shape in zip(PATHS, ("detail", "error", "error", "error", "detail"), strict=True):
        answer = office.bare.get(path, headers=bearer(BAD))
        assert answer.status_code == 429
        assert shape in answer.json()
        assert "www-authenticate" not in answer.headers
        again = email.utils.parsedate_to_datetime(answer.headers["retry-after"]).timestamp()
        assert again == int(answer.headers["x-ratelimit-reset"]) == clock.now + 60
    code = office.bare.get("/v1/state/one", headers=bearer(BAD)).json()["error"]["code"]
    assert code == "RATE_LIMITED"
    clock.advance(59.9)
    assert fail(office) == 429
    clock.advance(0.1)
    assert [fail(office) for _ in range(11)] == [401] * 10 + [429]


def test_it_is_ten_of_any_minute(office, clock):
    for _ in range(10):
        assert fail(office) == 401
        clock.advance(5)
    assert fail(office) == 429  # 50 s after the first
    clock.advance(10)
    assert [fail(office), fail(office)] == [401, 429]
    clock.advance(5)
    assert [fail(office), fail(office)] == [401, 429]


def test_a_clock_that_is_set_back_refuses_nobody_for_long(office, clock):
    assert [fail(office) for _ in range(11)][-1] == 429
    clock.advance(-3_600)
    assert fail(office) == 401


def test_a_good_key_is_always_served(office):
    for number in range(40):
        assert fail(office) == (401 if number < 10 else 429)
        for headers in (bearer(office.acme), basic(office.acme), {"X-API-Key": office.acme}):
            assert office.bare.get("/memory/one/k", headers=headers).status_code == 200
        assert office.admin("GET", "/tenants")
        assert office.bare.get("/health", headers=bearer(BAD)).status_code == 200
    # No key at all is no key that fails; and who may not is nobody who is unknown.
    assert office.bare.get("/memory/one/k").status_code == 401
    wrong_kind = office.bare.get("/memory/one/k", headers=bearer(office.operator_key))
    assert wrong_kind.status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        bearer(BAD),
        bearer("x"),
        {"Authorization": "Bearer"},
        basic(BAD),
        basic("x", BAD),
        {"X-API-Key": BAD},
        {"X-API-Key": ""},
        {"Authorization": "Token x"},
        {"Authorization": "Basic !!!"},
        {"Authorization": ""},
        bearer(BAD) | {"X-API-Key": "x"},
    ],
    ids=str,
)
def test_whatever_is_shown_in_place_of_a_key_counts(office, headers):
    asked = [office.bare.get("/memory/one/k", headers=headers).status_code for _ in range(12)]
    assert asked == [401] * 10 + [429] * 2


def test_dead_keys_count(office, clock):
    dead = [office.key("acme", expires="1s")["key"], new_key().text]
    revoked = office.key("acme")
    office.admin("DELETE", f"/keys/{revoked['id']}")
    clock.advance(1)
    dead.append(revoked["key"])
    answers = [office.bare.get("/memory/one/k", headers=bearer(key)) for key in dead * 5]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429] * 5
    assert len({answer.text for answer in answers[10:]}) == 1


def test_metrics_count_them(office):
    before = figures(office)
    assert set(before.values()) == {0}
    for _ in range(13):
        fail(office)
    office.bare.get("/memory/one/k")
    assert figures(office) == {
        "botwire_failed_keys_total": 13,
        'botwire_quota_refusals_total{limit="failed_keys"}': 3,
    }


def test_an_open_server_counts_those_of_the_operator_api(make_server):
    server = make_server()
    statuses = [
        httpx.get(f"{server.url}/admin/v1/tenants", headers=bearer(BAD)).status_code
        for _ in range(12)
    ]
    assert statuses == [401] * 10 + [429] * 2
    assert httpx.get(f"{server.url}/memory/a", headers=bearer(BAD)).status_code == 200


def test_the_log_names_the_address_and_no_key(make_server):
    server = make_server()
    for _ in range(12):
        httpx.get(f"{server.url}/admin/v1/tenants", headers=bearer(BAD))
        httpx.get(f"{server.url}/admin/v1/tenants?key={BAD}", headers={"X-API-Key": BAD})
        httpx.get(f"{server.url}/{BAD}", headers=basic(BAD) | {"X-Request-ID": BAD})
    server.stop()
    assert server.log.count("keys that do not work within a minute from 127.0.0.1") == 1
    assert "bw_0" not in server.log


# Who it was.


def test_addresses_are_apart(office):
    for _ in range(11):
        fail(office, X_Forwarded_For="198.51.100.7")
    assert fail(office, X_Forwarded_For="198.51.100.7") == 429
    assert fail(office, X_Forwarded_For="198.51.100.8") == 401
    assert fail(office) == 401


@pytest.mark.parametrize(
    ("forwarded", "caller"),
    [
        ([], "127.0.0.1"),
        (["198.51.100.7"], "198.51.100.7"),
        (["  198.51.100.7  "], "198.51.100.7"),
        # The client can write what it likes before what the proxy adds.
        (["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
        (["1.1.1.1", "198.51.100.7"], "198.51.100.7"),
        (["198.51.100.7, 10.1.2.3"], "198.51.100.7"),
        (["198.51.100.7", "10.1.2.3, 10.9.9.9", "127.0.0.1"], "198.51.100.7"),
        (["10.1.2.3, 10.4.5.6"], "10.1.2.3"),
        # Ports, brackets, other ways to write the same.
        (["198.51.100.7:4711"], "198.51.100.7"),
        (["[2001:db8::7]:4711"], "2001:db8::/64"),
        (["[2001:db8::7]"], "2001:db8::/64"),
        (["2001:DB8:0:0:1:2:3:4"], "2001:db8::/64"),
        (["2001:db8:0:1::1"], "2001:db8:0:1::/64"),
        (["2001:db8:ffff::1"], "2001:db8:ffff::/64"),
        (["198.51.100.7, 2001:db8:ffff::1"], "198.51.100.7"),
        (["::ffff:198.51.100.7"], "198.51.100.7"),
        (["198.51.100.7, ::ffff:10.0.0.1"], "198.51.100.7"),
        (["fe80::1%eth0"], "fe80::/64"),
        # Nobody's word.
        ([""], "127.0.0.1"),
        ([","], "127.0.0.1"),
        (["unknown"], "127.0.0.1"),
        (["unix:"], "127.0.0.1"),
        (["_hidden, 10.1.2.3"], "10.1.2.3"),
        (["198.51.100.7, , 10.1.2.3"], "10.1.2.3"),
        (["198.51.100.7, garbage"], "127.0.0.1"),
        (["198.51.100.300"], "127.0.0.1"),
        (["0198.51.100.7"], "127.0.0.1"),
        (["198.51.100.7:"], "127.0.0.1"),
        (["198.51.100.7:port"], "127.0.0.1"),
        (["[2001:db8::7"], "127.0.0.1"),
        (["[]"], "127.0.0.1"),
        (["::1::"], "127.0.0.1"),
        (['"198.51.100.7"'], "127.0.0.1"),
        (["\xe9"], "127.0.0.1"),
        (["1" * 5000], "127.0.0.1"),
        ([", ".join(["10.0.0.1"] * 5000)], "10.0.0.1"),
        ([", ".join(["198.51.100.7"] + ["10.0.0.1"] * 31)], "198.51.100.7"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_behind_proxies_it_is_the_last_that_is_none_of_ours(office, forwarded, caller):
    noted: list[str] = []
    office.app.failures.add = noted.append
    lines = "".join(f"X-Forwarded-For: {line}\r\n" for line in forwarded).encode("latin-1")
    head = request("GET", "/memory/one/k", Authorization=f"Bearer {BAD}")
    assert status_of(exchange(office.address, head[:-2] + lines + b"\r\n")) == 401
    assert noted == [caller]


def test_nobody_is_believed_who_is_not_named(tmp_path):
    with Keyed(tmp_path, trusted_proxy=("10.0.0.0/8",)) as office:
        noted: list[str] = []
        office.app.failures.add = noted.append
        for name in ("X-Forwarded-For", "X-Real-IP", "Forwarded", "CF-Connecting-IP", "Client-IP"):
            fail(office, **{name: "198.51.100.7"})
        assert noted == ["127.0.0.1"] * 5


@pytest.mark.parametrize(("client", "caller"), [(None, "unix"), (("unix:", 0), "unix")])
def test_a_unix_socket_is_somebody_too(client, caller):
    headers = [(b"x-forwarded-for", b"198.51.100.7")]
    scope = {"client": client, "headers": headers}
    assert Proxies(["127.0.0.1"]).caller(scope) == caller
    assert Proxies(["unix"]).caller(scope) == "198.51.100.7"
    assert Proxies(["unix"]).caller({"client": client, "headers": []}) == caller


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("nginx", "an address, a network"),
        ("localhost", "an address, a network"),
        ("", "an address, a network"),
        ("10.0.0.0/33", "an address, a network"),
        ("10.0.0.256", "an address, a network"),
        ("10.0.0.1:80", "an address, a network"),
        ("[::1]", "an address, a network"),
        ("10.0.0.1/8", "10.0.0.0/8"),
        ("2001:db8::1/32", "2001:db8::/32"),
        ("0.0.0.0/0", "everybody"),
        ("::/0", "everybody"),
        ("*", "an address, a network"),
    ],
)
def test_what_is_no_proxy_stops_the_start(setting, hint):
    with pytest.raises(Unusable) as refused:
        Proxies(["127.0.0.1", setting])
    assert refused.value.message.startswith(f"--trusted-proxy {setting}: ")
    assert hint in refused.value.message


def test_a_mapped_network_is_the_one_it_maps():
    scope = {"client": ("10.1.2.3", 1), "headers": [(b"x-forwarded-for", b"198.51.100.7")]}
    assert Proxies(["::ffff:10.0.0.0/104"]).caller(scope) == "198.51.100.7"
    assert Proxies(["::ffff:10.1.2.3"]).caller(scope) == "198.51.100.7"


# What it costs.


def test_addresses_that_are_remembered_are_few(clock):
    failures = Failures(clock)
    for number in range(3 * MOST_ADDRESSES):
        failures.add(str(number))
    assert len(failures._recent) == MOST_ADDRESSES
    assert failures.count == 3 * MOST_ADDRESSES


def test_who_fails_again_and_again_is_not_forgotten(clock):
    failures = Failures(clock)
    refused = 0
    for number in range(3 * MOST_ADDRESSES):
        failures.add(f"other {number}")
        if number % 100 == 0:
            try:
                failures.add("again")
            except TooManyFailures:
                refused += 1
    assert refused > 200


def test_a_long_header_is_not_looked_through(monkeypatch):
    looked = []
    address = callers._address
    monkeypatch.setattr(callers, "_address", lambda text: looked.append(text) or address(text))
    forwarded = (b"x-forwarded-for", b",".join([b"10.0.0.1"] * 6_000))
    scope = {"client": ("10.0.0.1", 1), "headers": [forwarded]}
    assert Proxies(["10.0.0.0/8"]).caller(scope) == "10.0.0.1"
    assert len(looked) < 50


def test_a_connection_goes_on_after_429(office):
    """A proxy's connections must not be closed for a client of its."""
    with connected(office.address) as connection:
        for number in range(30):
            connection.sendall(
                request("GET", "/memory/one/k", close=False, Authorization=f"Bearer {BAD}")
            )
            assert status_of(connection.recv(65_536)) == (401 if number < 10 else 429)
        connection.sendall(
            request("GET", "/memory/one/k", close=False, Authorization=f"Bearer {office.acme}")
        )
        assert status_of(connection.recv(65_536)) == 200
