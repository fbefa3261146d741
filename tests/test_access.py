"""Every route of the running application against everybody who must not get in.

A route without a row in `access.ROWS` fails `test_every_route_has_its_row`.
"""

from __future__ import annotations

import itertools

import httpx
import pytest
from access import (
    KEYED,
    OF_OPERATORS,
    OF_TENANTS,
    OPERATOR,
    PUBLIC,
    ROWS,
    WITH_SCOPES,
    Acme,
    each,
)
from serving import FakeClock, exchange, request, status_of
from tenancy import Keyed, basic, bearer, shown

from botwire_server import __version__
from botwire_server.store.keys import new_key

_numbers = itertools.count()


@pytest.fixture(scope="module")
def acme(tmp_path_factory):
    with Keyed(tmp_path_factory.mktemp("access") / "data", clock=FakeClock()) as office:
        acme = Acme(office)
        acme.prepare()
        yield acme


@pytest.fixture(scope="module")
def dead_keys(acme):
    """Keys that do not work, whatever they once could."""
    expired = acme.office.key("acme", expires="0s")["key"]
    revoked = acme.office.key("acme")
    acme.office.admin("DELETE", f"/keys/{revoked['id']}")
    rotated = acme.office.key("acme")
    acme.office.admin("POST", f"/keys/{rotated['id']}/rotate")
    doomed = acme.office.tenant("gone")
    acme.office.admin("DELETE", "/tenants/gone?confirm=gone")
    return {
        "expired": expired,
        "revoked": revoked["key"],
        "rotated": rotated["key"],
        "purged": doomed,
        "unknown": new_key().text,
    }


def test_every_route_has_its_row(acme):
    routes = {
        (method, resource.path)
        for dialect in acme.office.app.dialects
        for resource in dialect.routes
        for method in resource.operations
    }
    rows = [(row.method, row.template) for row in ROWS]
    assert len(rows) == len(set(rows))
    assert routes - set(rows) == set(), "routes without a row"
    assert set(rows) - routes == set(), "rows without a route"


@each(ROWS)
def test_whoever_may_gets_in(acme, row):
    """Otherwise the refusals below would prove nothing."""
    acme.prepare()
    key = acme.office.operator_key if row.scope == OPERATOR else acme.key
    answer = acme.ask(row, {} if row.scope == PUBLIC else bearer(key))
    assert answer.is_success, answer.text
    acme.prepare()


@each(KEYED)
def test_without_a_key_that_works_nobody_gets_in(acme, dead_keys, row):
    acme.prepare()
    before = acme.holds()
    answers = {"none": shown(acme.ask(row, {}))}
    for name, key in dead_keys.items():
        answers[name] = shown(acme.ask(row, bearer(key)))
    answers["basic"] = shown(acme.ask(row, basic(dead_keys["expired"])))
    answers["x-api-key"] = shown(acme.ask(row, {"X-API-Key": dead_keys["revoked"]}))
    assert answers["none"][0] == 401
    assert {name for name, answer in answers.items() if answer != answers["none"]} == set()
    assert acme.holds() == before


@each(KEYED)
def test_no_other_method_gets_further(acme, dead_keys, row):
    for method in ("HEAD", "OPTIONS", "PATCH", "POST", "TRACE", "PUT", "DELETE", "GET", "QUERY"):
        path = row.path.replace("{", "").replace("}", "")
        answer = acme.office.bare.request(method, path, headers=bearer(dead_keys["revoked"]))
        assert answer.status_code == 401, method


@each(WITH_SCOPES)
def test_a_key_lacking_the_scope_or_the_namespace(acme, row):
    acme.prepare()
    before = acme.holds()
    others = [scope for scope in ("read", "write", "purge") if scope != row.scope]
    for grant, status in (
        ({"scopes": others}, 403),
        # An id names no namespace: out of reach is like unknown.
        ({"namespace": "elsewhere-*"}, 404 if "{memory}" in row.path else 403),
    ):
        answer = acme.ask(row, bearer(acme.office.key("acme", **grant)["key"]))
        assert answer.status_code == status, grant
        assert "of acme" not in answer.text
    assert acme.holds() == before


@each([row for row in ROWS if "{memory}" in row.path])
def test_an_id_out_of_reach_is_like_one_that_nobody_has(acme, row):
    """Byte for byte: whether the key may do it elsewhere, or nowhere."""
    acme.prepare()
    before = acme.holds()
    known = acme.names["memory"]
    digits = known.replace("-", "")
    ids = {
        "there": known,
        "in capitals": known.upper(),
        "a namespace that is not there": "0" * 8 + known[8:],
        "a memory that is not there": f"{known[:-4]}ffff",
        "no id of ours": "00000000-0000-4000-8000-000000000000",
        "no id at all": "x",
        "without dashes": digits,
    }
    for scopes in ([row.scope], ["read", "write", "purge"]):
        elsewhere = acme.office.key("acme", scopes=scopes, namespace="elsewhere-*")["key"]
        answers = set()
        for id in ids.values():
            acme.names["memory"] = id
            answers.add(repr(shown(acme.ask(row, bearer(elsewhere)))))
        assert len(answers) == 1, answers
        assert "404" in answers.pop()
    acme.names["memory"] = known
    without = [scope for scope in ("read", "write", "purge") if scope != row.scope]
    for pattern in ("*", "notes", "elsewhere-*"):
        key = acme.office.key("acme", scopes=without, namespace=pattern)["key"]
        answers = set()
        for id in ids.values():
            acme.names["memory"] = id
            answers.add(repr(shown(acme.ask(row, bearer(key)))))
        assert len(answers) == 1, answers
        assert "403" in answers.pop()
    acme.names["memory"] = known
    assert acme.holds() == before


@each(OF_TENANTS)
def test_a_foreign_key_meets_nothing(acme, row):
    """What acme has answers another tenant like what nobody has, byte for byte."""
    acme.prepare()
    before = acme.holds()
    one, two = (acme.office.tenant(f"foreign-{next(_numbers)}") for _ in range(2))
    while_it_exists = shown(acme.ask(row, bearer(one)))
    assert acme.holds() == before
    acme.purge()
    once_it_is_gone = shown(acme.ask(row, bearer(two)))
    assert while_it_exists == once_it_is_gone
    assert while_it_exists[0] not in (401, 403, 500)


@each(OF_TENANTS)
def test_an_operators_key_is_none_of_a_tenant(acme, row):
    acme.prepare()
    before = acme.holds()
    answer = acme.ask(row, bearer(acme.office.operator_key))
    assert answer.status_code == 403
    assert "of acme" not in answer.text
    assert acme.holds() == before


@each(OF_OPERATORS)
def test_a_tenants_key_is_none_of_an_operator(acme, row):
    acme.prepare()
    before = acme.holds(), acme.office.admin("GET", "/tenants"), acme.office.admin("GET", "/keys")
    answer = acme.ask(row, bearer(acme.key))
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "FORBIDDEN"
    after = acme.holds(), acme.office.admin("GET", "/tenants"), acme.office.admin("GET", "/keys")
    assert after[0] == before[0]
    assert [key["id"] for key in after[2]["keys"]] == [key["id"] for key in before[2]["keys"]]
    assert [each["tenant"] for each in after[1]["tenants"]] == [
        each["tenant"] for each in before[1]["tenants"]
    ]


@each(OF_TENANTS)
def test_naming_another_tenant_changes_nothing(acme, row):
    """In the body, the query, a header or a cookie."""
    acme.prepare()
    before = acme.holds()
    id = acme.office.admin("GET", "/tenants/acme")["id"]
    names = ("tenant", "tenant_id", "tenantId", "account", "user", "api_key")
    stranger = acme.office.tenant(f"foreign-{next(_numbers)}")
    plain = acme.ask(row, bearer(stranger))
    for named in ("acme", id, acme.key):
        headers = bearer(stranger) | {
            "X-Tenant": named,
            "X-Tenant-Id": named,
            "Cookie": f"tenant={named}",
            "X-Forwarded-User": named,
        }
        if row.body is not None:
            again = acme.ask(row, headers, body=dict.fromkeys(names, named))
            assert again.status_code == plain.status_code
        else:
            again = acme.ask(row, headers)
            assert shown(again)[2] == shown(plain)[2] or row.method == "DELETE"
        if row.method == "GET":
            queried = httpx.URL(row.path).copy_merge_params(dict.fromkeys(names, named))
            answer = acme.office.bare.get(queried, headers=headers)
            assert shown(answer) == shown(plain)
    assert acme.holds() == before


@pytest.mark.parametrize(
    "path",
    [
        "/tenants/{id}/notes-{ns}.db",
        "/control.db",
        "/memory/..%2F{id}%2Fnotes/k",
        "/memory/%2e%2e/k",
        "/memory/acme%2Fnotes/k",
        "/memory/{id}/k",
        "/memory/notes%00/k",
        "/memory/notes'--/k",
        '/memory/notes"/k',
        "/memory/notes;/k",
        "/memory/%27%20OR%201=1--/k",
        "/memory/*/k",
        "/memory/%25/k",
    ],
)
def test_no_path_leads_to_another_tenant(acme, path):
    acme.prepare()
    before = acme.holds()
    shown_tenant = acme.office.admin("GET", "/tenants/acme")
    [row] = [
        row
        for row in acme.office.admin("GET", "/tenants/acme/namespaces")["namespaces"]
        if row["namespace"] == "notes"
    ]
    target = path.format(id=shown_tenant["id"], ns=row["id"])
    stranger = acme.office.tenant(f"foreign-{next(_numbers)}")
    for method, body in [("GET", b""), ("PUT", b'{"value": "mine"}'), ("DELETE", b"")]:
        answer = exchange(
            acme.office.address,
            request(method, target, body, Authorization=f"Bearer {stranger}"),
        )
        assert status_of(answer) in (200, 400, 404, 405), answer
        assert b"of acme" not in answer
    assert acme.holds() == before


@pytest.mark.parametrize(
    "path",
    ["/", "/nowhere", "/memory", "/memory/", "/v2/x", "/health/", "/Health", "/admin"],
)
def test_unknown_routes_need_a_key(acme, path):
    for method in ("GET", "PUT", "POST", "DELETE"):
        assert acme.office.bare.request(method, path).status_code == 401
    assert acme.office.bare.get(path, headers=bearer(acme.key)).status_code in (404, 405)


def test_what_needs_no_key_tells_nothing(acme):
    acme.prepare()
    for key in (None, acme.key, "nonsense"):
        answer = acme.office.bare.get("/health", headers={} if key is None else bearer(key))
        assert answer.status_code == 200
        assert answer.json() == {
            "status": "ok",
            "version": __version__,
            "embedder": "wordllama-256",
            "reembed_needed": False,
        }
