"""API keys: how they look, how they are presented, what they allow, and how they end."""

from __future__ import annotations

import hashlib
import itertools
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import FakeClock, exchange, query, request, run_client, status_of, until
from tenancy import KEY_SHAPE, Keyed, basic, bearer, cli, shown

from botwire_server.store import keys
from botwire_server.store.keys import Grant

DAY = 86_400
JSON_VALUE = {"value": "v"}


@pytest.fixture(scope="module")
def clock():
    return FakeClock()


@pytest.fixture(scope="module")
def office(tmp_path_factory, clock):
    """A server with a clock that stands still, tenant acme and namespaces to read."""
    with Keyed(tmp_path_factory.mktemp("keys") / "data", clock=clock) as office:
        office.acme = office.tenant("acme")
        client = office.client(office.acme)
        for name in ("one", "two", "team-a", "team-b"):
            assert client.put(f"/memory/{name}/k", json=JSON_VALUE).is_success
        yield office


def get(office, headers, path="/memory/one/k"):
    return office.bare.get(path, headers=headers).status_code


# How a key looks, and what is kept of it.


def test_a_key_has_its_shape_and_its_checksum():
    made = [keys.new_key() for _ in range(200)]
    assert all(re.fullmatch(KEY_SHAPE, key.text) for key in made)
    assert all(key.text.startswith(f"bw_{key.id}_") for key in made)
    assert len({key.text for key in made}) == len({key.id for key in made}) == 200
    secrets = [key.text.split("_")[2][:43] for key in made]
    assert 62**43 > 2**256
    # Base 62 of 256 bits, least digit first: the lower digits are spread evenly.
    assert len({secret[:2] for secret in secrets}) > 150
    for key in made[:20]:
        assert keys.public_id(key.text) == key.id
        assert keys.is_key(key.text)
        for place in (3, 20, len(key.text) - 1):
            other = "x" if key.text[place] != "x" else "y"
            assert not keys.is_key(key.text[:place] + other + key.text[place + 1 :])
    assert keys.public_id("") is keys.public_id("bw_") is keys.public_id("x" * 100) is None


def test_only_the_sha_256_is_kept(office):
    made = office.key("acme", label="kept")
    [[stored]] = query(office.data / "control.db", "SELECT hash FROM keys WHERE id = ?", made["id"])
    assert stored == hashlib.sha256(made["key"].encode()).digest()
    secret = made["key"].split("_")[2].encode()
    assert not any(secret in path.read_bytes() for path in office.data.rglob("*") if path.is_file())
    listed = office.admin("GET", "/tenants/acme/keys")["keys"]
    assert made["id"] in [each["id"] for each in listed]
    assert not any("key" in each or "hash" in each for each in listed)


# How it is presented.


@pytest.mark.parametrize(
    "headers",
    [
        bearer,
        lambda key: {"Authorization": f"bearer   {key}"},
        basic,
        lambda key: basic("x", key),
        lambda key: basic(key, key),
        lambda key: {"X-API-Key": key},
        lambda key: {"X-API-Key": key} | bearer(key),
        lambda key: {"X-API-Key": key} | basic("x", key),
    ],
    ids=["bearer", "case", "user", "password", "both", "x-api-key", "same", "same-basic"],
)
def test_every_way_to_present_a_key(office, headers):
    assert get(office, headers(office.acme)) == 200


@pytest.mark.parametrize("form", ["http://{key}@{host}", "http://x:{key}@{host}/"])
def test_the_unmodified_client_presents_it_from_its_url(office, form):
    host = office.url.removeprefix("http://")
    said = run_client(
        form.format(key=office.acme, host=host),
        "from botwire import Memory\nm = Memory('one')\nprint(m.get('k'), m.keys())\n"
        "m._client.close()",
    )
    assert said.strip() == "v ['k']"


@pytest.mark.parametrize("name", ["key", "api_key", "token", "access_token", "apikey", "x-api-key"])
def test_never_in_a_query(office, name):
    assert get(office, {}, f"/memory/one/k?{name}={office.acme}") == 401


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Basic",
        "Basic !!!",
        "Basic /w==",
        "Digest x",
        "Token {key}",
        "{key}",
    ],
)
def test_what_is_no_credential_is_401(office, value):
    headers = {"Authorization": value.format(key=office.acme)}
    assert get(office, headers) == 401


def test_two_different_credentials_are_refused(office):
    other = office.tenant("other")
    for one, two in itertools.permutations((office.acme, other)):
        assert get(office, bearer(one) | {"X-API-Key": two}) == 401
        assert get(office, basic("x", one) | {"X-API-Key": two}) == 401
        assert get(office, basic(one, two)) == 401
        for name in ("Authorization", "X-API-Key"):
            value = "" if name == "X-API-Key" else "Bearer "
            raw = request("GET", "/memory/one/k").replace(
                b"\r\n\r\n", f"\r\n{name}: {value}{one}\r\n{name}: {value}{two}\r\n\r\n".encode()
            )
            assert status_of(exchange(office.address, raw)) == 401


# Unknown, expired, revoked: all the same.


def test_unknown_expired_and_revoked_keys_answer_the_same_bytes(office, clock):
    expired = office.key("acme", expires="1h")["key"]
    revoked = office.key("acme")
    office.admin("DELETE", f"/keys/{revoked['id']}")
    rotated = office.key("acme")
    office.admin("POST", f"/keys/{rotated['id']}/rotate")
    assert get(office, bearer(expired)) == 200
    clock.advance(3_600)
    flipped = office.acme[:-1] + ("x" if office.acme[-1] != "x" else "y")
    altered = keys.new_key().text
    presented = [
        bearer(expired),
        bearer(revoked["key"]),
        bearer(rotated["key"]),
        bearer(altered),
        bearer(flipped),
        bearer("nonsense"),
        basic(expired),
        {"X-API-Key": revoked["key"]},
        {},
    ]
    for method, path in [
        ("GET", "/memory/one/k"),
        ("PUT", "/memory/one/k"),
        ("GET", "/nowhere"),
        ("GET", "/admin/v1/tenants"),
        ("DELETE", "/admin/v1/nowhere"),
    ]:
        answers = [
            shown(office.bare.request(method, path, headers=headers)) for headers in presented
        ]
        assert answers[0][0] == 401
        assert all(answer == answers[0] for answer in answers), (method, path)
        assert ("www-authenticate", "Bearer") in answers[0][1]


def test_expiry_is_to_the_second(office, clock):
    made = office.key("acme", expires="90d")
    clock.advance(90 * DAY - 1)
    assert get(office, bearer(made["key"])) == 200
    clock.advance(1)
    assert get(office, bearer(made["key"])) == 401


# What it allows.

OPERATIONS = {
    "read": [("GET", "/memory/{ns}/k"), ("GET", "/memory/{ns}")],
    "write": [("PUT", "/memory/{ns}/k"), ("DELETE", "/memory/{ns}/never")],
    "purge": [("DELETE", "/memory/{ns}?confirm={ns}")],
}


@pytest.mark.parametrize(
    "scopes", [["read"], ["write"], ["purge"], ["read", "write"], ["read", "purge"], []], ids=str
)
def test_scopes_and_pattern_decide(office, scopes):
    key = office.key("acme", scopes=scopes, namespace="team-*")
    client = office.client(key["key"])
    granted = scopes or ["read", "write", "purge"]
    assert key["scopes"] == granted
    for namespace in ("team-a", "team-fresh", "one", "ateam-a", "team", "TEAM-a"):
        for scope, requests in OPERATIONS.items():
            for method, path in requests:
                answer = client.request(
                    method, path.format(ns=namespace), json=JSON_VALUE if method == "PUT" else None
                )
                allowed = scope in granted and namespace.startswith("team-")
                assert (answer.status_code != 403) is allowed, (method, path, namespace)
                if not allowed:
                    assert "may not" in answer.json()["detail"]
    office.client(office.acme).put("/memory/team-a/k", json=JSON_VALUE)


def test_a_refusal_does_not_say_whether_there_is_something(office):
    client = office.client(office.key("acme", scopes=["write"], namespace="none-*")["key"])
    for method, exists, missing in [
        ("GET", "/memory/one/k", "/memory/xxx/k"),
        ("GET", "/memory/one", "/memory/xxx"),
        ("DELETE", "/memory/one/k", "/memory/xxx/k"),
        ("DELETE", "/memory/one?confirm=one", "/memory/xxx?confirm=xxx"),
    ]:
        assert shown(client.request(method, exists)) == shown(client.request(method, missing))


def test_totals_of_a_limited_key_are_of_what_it_reads(office):
    client = office.client(office.key("acme", scopes=["read"], namespace="team-a")["key"])
    assert client.get("/stats/memory").json()["total_namespaces"] == 1
    client = office.client(office.key("acme", scopes=["write"])["key"])
    assert client.get("/stats/memory").json() == {
        "total_entries": 0,
        "total_namespaces": 0,
        "total_bytes": 0,
    }


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*", ["", "x", "a\nb"], []),
        ("acme", ["acme"], ["acme-", "xacme", "ACME", ""]),
        ("acme-*", ["acme-", "acme-x", "acme-*"], ["acme", "xacme-"]),
        ("*-acme", ["-acme", "x-acme"], ["acme", "-acmex"]),
        ("a*a", ["aa", "aba", "aaa"], ["a", "ab", "ba"]),
        ("a*b*c", ["abc", "axbyc", "abbc"], ["acb", "ac", "abcx"]),
        ("**", ["", "x"], []),
        ("a.c?[x]", ["a.c?[x]"], ["abc?[x]", "a.cx"]),
        ("é*", ["é", "éa"], ["e", "e\u0301"]),
    ],
)
def test_patterns(pattern, matching, other):
    grant = Grant(frozenset({"read"}), pattern)
    assert all(grant.allows("read", name) for name in matching)
    assert not any(grant.allows("read", name) for name in other)
    assert not grant.allows("write", matching[0])


def test_no_name_makes_a_pattern_slow():
    """A regular expression takes a tenth of a second here, on the event loop."""
    grant = Grant(frozenset({"read"}), "*a*a*a*b")
    for _ in range(10_000):
        grant.allows("read", "a" * 256)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scopes": ["admin"]},
        {"scopes": "read"},
        {"scopes": [1]},
        {"namespace": "*****"},
        {"namespace": "x" * 257},
        {"namespace": "a\u0007"},
        {"expires": "soon"},
        {"expires": "-1d"},
        {"expires": 5},
        {"label": "x" * 201},
        {"label": "\u001b[2J"},
        {"label": ["x"]},
    ],
    ids=str,
)
def test_a_key_that_cannot_be_is_refused(office, wrong):
    office.admin("POST", "/tenants/acme/keys", expect=400, **wrong)


# Operators.


def test_an_operators_key_reaches_no_data_and_a_tenants_no_operation(office):
    for method, path in [
        ("GET", "/memory/one/k"),
        ("PUT", "/memory/one/k"),
        ("GET", "/stats/memory"),
        ("GET", "/nowhere"),
    ]:
        answer = office.bare.request(
            method, path, headers=bearer(office.operator_key), json=JSON_VALUE
        )
        assert answer.status_code == 403
    for path in ("/tenants", "/keys", "/usage", "/audit", "/nowhere"):
        assert get(office, bearer(office.acme), f"/admin/v1{path}") == 403


# When it was last used.


def test_the_last_use_is_noted_about_once_a_minute(office, clock):
    made = office.key("acme", label="used")

    def last_used():
        rows = office.admin("GET", "/tenants/acme/keys")["keys"]
        return next(row["last_used_at"] for row in rows if row["id"] == made["id"])

    assert last_used() is None
    assert get(office, bearer(made["key"])) == 200
    clock.advance(61)
    until(last_used, "the first use was noted")
    first = last_used()
    clock.advance(5)
    assert get(office, bearer(made["key"])) == 200
    assert last_used() == first  # not worth a write yet
    clock.advance(61)
    until(lambda: last_used() > first, "the second use was noted")


# Its end.


def test_rotated_without_grace(office):
    old = office.key("acme", label="ci", scopes=["read"], namespace="o*", expires="30d")
    new = office.admin("POST", f"/keys/{old['id']}/rotate")
    assert new["replaces"] == old["id"]
    assert new["key"] != old["key"]
    inherited = ("tenant", "label", "scopes", "namespace", "expires_at", "operator")
    assert {name: new[name] for name in inherited} == {name: old[name] for name in inherited}
    assert get(office, bearer(old["key"])) == 401
    assert get(office, bearer(new["key"])) == 200
    assert get(office, bearer(new["key"]), "/memory/two/k") == 403
    office.admin("POST", f"/keys/{old['id']}/rotate", expect=400)


def test_rotated_with_grace(office, clock):
    old = office.key("acme")
    new = office.admin("POST", f"/keys/{old['id']}/rotate", grace="24h")
    clock.advance(DAY - 1)
    assert get(office, bearer(old["key"])) == get(office, bearer(new["key"])) == 200
    clock.advance(1)
    assert get(office, bearer(old["key"])) == 401
    assert get(office, bearer(new["key"])) == 200
    assert new["expires_at"] is None


def test_grace_never_lengthens_a_life(office, clock):
    old = office.key("acme", expires="1h")
    office.admin("POST", f"/keys/{old['id']}/rotate", grace="24h")
    clock.advance(3_600)
    assert get(office, bearer(old["key"])) == 401


def test_a_clock_set_back_revives_no_rotated_key(office, clock):
    old = office.key("acme")
    office.admin("POST", f"/keys/{old['id']}/rotate")
    clock.advance(-60)
    try:
        assert get(office, bearer(old["key"])) == 401
    finally:
        clock.advance(60)


def test_two_rotations_at_once_make_one_successor(office):
    old = office.key("acme")
    with ThreadPoolExecutor(8) as pool:
        url = f"/admin/v1/keys/{old['id']}/rotate"
        answers = list(
            pool.map(
                lambda _: office.bare.post(url, headers=bearer(office.operator_key), json={}),
                range(8),
            )
        )
    assert sorted(answer.status_code for answer in answers) == [201] + [400] * 7


def test_revoked(office):
    made = office.key("acme")
    assert get(office, bearer(made["key"])) == 200
    first = office.admin("DELETE", f"/keys/{made['id']}")
    assert first["revoked_at"] is not None
    assert get(office, bearer(made["key"])) == 401
    assert office.admin("DELETE", f"/keys/{made['id']}") == first  # safe to repeat
    office.admin("POST", f"/keys/{made['id']}/rotate", expect=400)
    office.admin("DELETE", "/keys/nonesuch", expect=404)
    office.admin("POST", "/keys/nonesuch/rotate", expect=404)


def test_an_operators_key_is_rotated_and_revoked_like_others(office):
    made = cli(office.data, "keys", "create", "--operator", "--json")
    key = re.search(KEY_SHAPE, made.stdout)[0]
    assert get(office, bearer(key), "/admin/v1/tenants") == 200
    id = key.split("_")[1]
    new = office.admin("POST", f"/keys/{id}/rotate")
    assert get(office, bearer(key), "/admin/v1/tenants") == 401
    assert new["operator"] is True
    office.admin("DELETE", f"/keys/{new['id']}")
    assert get(office, bearer(new["key"]), "/admin/v1/tenants") == 401
