"""The operator API: every verb, its shapes and its refusals."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from serving import exchange, request, status_of
from tenancy import KEY_SHAPE, Keyed, bearer

TENANT_FIELDS = {
    *(
        "tenant",
        "id",
        "tier",
        "created_at",
        "namespaces",
        "entries",
        "states",
        "memories",
        "sessions",
    ),
    *("episodes", "vectors", "bytes"),
}
KEY_FIELDS = {
    *("id", "tenant", "operator", "label", "scopes", "namespace", "created_at", "last_used_at"),
    *("expires_at", "revoked_at"),
}


@pytest.fixture
def office(tmp_path):
    with Keyed(tmp_path / "data") as office:
        yield office


def test_the_life_of_a_customer(office):
    made = office.admin("POST", "/tenants", expect=201, name="acme", tier="free")
    assert set(made) == TENANT_FIELDS | {"keys"}
    assert (made["tenant"], made["tier"], made["namespaces"], made["keys"]) == (
        "acme",
        "free",
        0,
        [],
    )
    key = office.admin(
        *("POST", "/tenants/acme/keys"),
        expect=201,
        label="web",
        scopes=["write", "read"],
        namespace="support-*",
        expires="30d",
    )
    assert set(key) == KEY_FIELDS | {"key"}
    assert re.fullmatch(KEY_SHAPE, key["key"])
    assert (key["scopes"], key["namespace"]) == (["read", "write"], "support-*")
    client = office.client(key["key"])
    assert client.put("/memory/support-1/k", json={"value": "four"}).status_code == 200
    shown = office.admin("GET", "/tenants/acme")
    assert (shown["namespaces"], shown["entries"], shown["bytes"]) == (1, 1, 4)
    assert [set(each) for each in shown["keys"]] == [KEY_FIELDS]
    assert office.admin("GET", "/tenants")["tenants"] == [
        {name: shown[name] for name in TENANT_FIELDS}
    ]
    [namespace] = office.admin("GET", "/tenants/acme/namespaces?prefix=support-")["namespaces"]
    assert (namespace["namespace"], namespace["entries"], namespace["bytes"]) == ("support-1", 1, 4)
    assert office.admin("GET", "/tenants/acme/namespaces?prefix=x")["namespaces"] == []
    assert office.admin("PATCH", "/tenants/acme", tier="pro")["tier"] == "pro"
    usage = office.admin("GET", "/tenants/acme/usage")
    assert (usage["tenant"], usage["api_calls_today"], usage["namespaces"]) == ("acme", 1, 1)
    assert usage["storage_bytes"] == 4
    rotated = office.admin("POST", f"/keys/{key['id']}/rotate", expect=201, grace="1h")
    assert set(rotated) == KEY_FIELDS | {"key", "replaces"}
    assert office.admin("DELETE", f"/keys/{key['id']}")["revoked_at"] is not None
    receipt = office.admin("DELETE", "/tenants/acme?confirm=acme")
    assert (receipt["tenant"], receipt["scope"], receipt["entries"]) == ("acme", "tenant", 1)
    assert office.admin("GET", "/tenants")["tenants"] == []
    office.admin("GET", "/tenants/acme", expect=404)


def test_the_audit_says_what_was_done_and_by_which_key(office):
    office.tenant("acme")
    made = office.key("acme")
    office.admin("PATCH", "/tenants/acme", tier="free")
    new = office.admin("POST", f"/keys/{made['id']}/rotate")
    office.admin("DELETE", f"/keys/{new['id']}")
    office.client(office.key("acme")["key"]).put("/memory/n/k", json={"value": "v"})
    receipt = office.admin("DELETE", "/tenants/acme/namespaces?name=n")
    id = office.admin("GET", "/tenants/acme")["id"]
    lines = office.admin("GET", "/audit?tenant=acme")["audit"]
    assert [(line["action"], line["subject"]) for line in lines if line["subject"] != id][1:] == [
        ("create key", made["id"]),
        ("set tier", "free"),
        ("rotate key", f"{made['id']} to {new['id']}"),
        ("revoke key", new["id"]),
        ("create key", lines[-2]["subject"]),
        ("purge namespace", receipt["purge_id"]),
    ]
    assert lines[0]["action"] == "create tenant"
    operator = office.operator_key.split("_")[1]
    assert {line["actor"] for line in lines} == {operator}
    assert {line["tenant"] for line in lines} == {"acme"}
    assert all(re.match(r"2\d\d\d-\d\d-\d\dT.*Z", line["at"]) for line in lines)
    assert lines[-1]["outcome"] == "1 namespaces, 1 bytes"
    everything = office.admin("GET", "/audit")["audit"]
    assert everything[0]["actor"] == "command line"  # the operator's key itself
    assert lines == [line for line in everything if line["tenant_id"] == id]
    office.admin("DELETE", "/tenants/acme?confirm=acme")
    # The lines stay, without the name.
    after = office.admin("GET", "/audit")["audit"]
    assert len(after) == len(everything) + 1
    assert {line["tenant"] for line in after if line["tenant_id"] == id} == {id}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/tenants", {}, 400),
        ("POST", "/tenants", {"name": ""}, 400),
        ("POST", "/tenants", {"name": 5}, 400),
        ("POST", "/tenants", {"name": "a/b"}, 400),
        ("POST", "/tenants", {"name": ".."}, 400),
        ("POST", "/tenants", {"name": "x" * 129}, 400),
        ("POST", "/tenants", {"name": "a\nb"}, 400),
        ("POST", "/tenants", {"name": "acme"}, 400),
        ("POST", "/tenants", {"name": "x", "tier": "gold"}, 400),
        ("POST", "/tenants", {"name": "x", "tier": ["free"]}, 400),
        ("POST", "/tenants?name=x", {"name": "x"}, 400),
        ("GET", "/tenants/nobody", None, 404),
        ("GET", "/tenants/" + "x" * 300, None, 404),
        ("GET", "/tenants/%00", None, 404),
        ("GET", "/tenants/' OR 1=1--", None, 404),
        ("PATCH", "/tenants/acme", {}, 400),
        ("PATCH", "/tenants/acme", {"tier": "gold"}, 400),
        ("PATCH", "/tenants/nobody", {"tier": "free"}, 404),
        ("PUT", "/tenants/acme", {}, 405),
        ("DELETE", "/tenants", None, 405),
        ("DELETE", "/tenants/nobody?confirm=nobody", None, 404),
        ("DELETE", "/tenants/acme", None, 400),
        ("DELETE", "/tenants/acme?confirm=acm", None, 400),
        ("DELETE", "/tenants/acme/namespaces", None, 400),
        ("DELETE", "/tenants/acme/namespaces?name=a&prefix=b", None, 400),
        ("DELETE", "/tenants/acme/namespaces?prefix=", None, 400),
        ("DELETE", "/tenants/acme/namespaces?name=nothing", None, 404),
        ("DELETE", "/tenants/acme/namespaces?prefix=nothing", None, 404),
        ("DELETE", "/tenants/acme/namespaces?nam=nothing", None, 400),
        ("POST", "/tenants/nobody/keys", {}, 404),
        ("POST", "/keys/nothing/rotate", {"grace": "1h"}, 404),
        ("POST", "/keys/nothing/rotate", {"grace": "soon"}, 404),
        ("GET", "/tenants/nobody/usage", None, 404),
        ("GET", "/audit?tenant=nobody", None, 404),
        ("GET", "/nowhere", None, 404),
        ("GET", "", None, 404),
    ],
)
def test_refusals_have_one_shape(office, method, path, body, status):
    office.tenant("acme")
    answer = office.client(office.operator_key).request(method, f"/admin/v1{path}", json=body)
    assert answer.status_code == status, answer.text
    refused = answer.json()
    assert set(refused) == {"error", "request_id"}
    assert set(refused["error"]) == {"code", "message"}
    assert refused["request_id"] == answer.headers["x-request-id"]
    assert refused["error"]["message"][-1] in ".:?"
    assert ("allow" in answer.headers) is (status == 405)
    assert [each["tenant"] for each in office.admin("GET", "/tenants")["tenants"]] == ["acme"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"name": "x"', b"\xff", b'{"name":' + b"[" * 100]
)
def test_a_body_that_is_no_object_is_400(office, body):
    answer = exchange(
        office.address,
        request(
            *("POST", "/admin/v1/tenants", body),
            Content_Type="application/json",
            Content_Length=str(len(body)),
            Authorization=f"Bearer {office.operator_key}",
        ),
    )
    assert status_of(answer) == 400


def test_a_form_is_415(office):
    client = office.client(office.operator_key)
    assert client.post("/admin/v1/tenants", data={"name": "x"}).status_code == 415


def test_two_sign_ups_of_one_name_make_one_tenant(office):
    """Whoever gets 201 owns the tenant: nobody else may have been told so."""

    def sign_up(_):
        return office.bare.post(
            "/admin/v1/tenants", json={"name": "acme"}, headers=bearer(office.operator_key)
        ).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(sign_up, range(8))) == [201] + [400] * 7


def test_names_that_need_quoting(office):
    for name in ("Grüße", "a b", "a?b", "a#b", "100%", "a&b", "O'Hara"):
        made = office.client(office.operator_key).post("/admin/v1/tenants", json={"name": name})
        assert made.status_code == 201
        quoted = name.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
        assert office.admin("GET", f"/tenants/{quoted}")["tenant"] == name
        confirm = quoted.replace("&", "%26")
        assert office.admin("DELETE", f"/tenants/{quoted}?confirm={confirm}")["tenant"] == name
