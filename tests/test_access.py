"""Every route of the running application against everybody who must not get in.

A route without a row in `ROWS` fails `test_every_route_has_its_row`: add one line for it. `path`
names what tenant `acme` has; `{...}` are what `prepare` made. Its `scope` is what a key must have:
read, write or purge; USAGE (read, everywhere), NOTHING (any key), PUBLIC or OPERATOR.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from serving import FakeClock, exchange, request, status_of
from tenancy import Keyed, basic, bearer, shown

from botwire_server import __version__
from botwire_server.store.keys import new_key
from botwire_server.web import docs

NOTHING, PUBLIC, OPERATOR = "nothing", "public", "operator"


@dataclass(frozen=True)
class Row:
    """A request that succeeds for the owner (or the operator) of what it names."""

    method: str
    template: str
    path: str
    scope: str
    body: dict[str, Any] | None = None

    @property
    def id(self) -> str:
        return f"{self.method} {self.template}"


ADMIN = "/admin/v1"
TENANT = ADMIN + "/tenants/{tenant}"
STATE = "/v1/state/{agent_id:path}"
EPISODES = "/v1/memory/episodic/{agent_id:path}"
MEMORY = "/v1/memory/semantic/{memory_id}"

ROWS = [
    # The BotWire dialect.
    Row("GET", "/memory/{namespace}/{key:path}", "/memory/notes/k", "read"),
    Row("PUT", "/memory/{namespace}/{key:path}", "/memory/notes/k", "write", {"value": "new"}),
    Row("DELETE", "/memory/{namespace}/{key:path}", "/memory/notes/k", "write"),
    Row("GET", "/memory/{namespace}", "/memory/notes", "read"),
    Row("DELETE", "/memory/{namespace}", "/memory/notes?confirm=notes", "purge"),
    Row("GET", "/stats/memory", "/stats/memory", NOTHING),
    Row("GET", "/health", "/health", PUBLIC),
    # Of the whole server.
    Row("GET", "/ready", "/ready", PUBLIC),
    Row("GET", "/metrics", "/metrics", OPERATOR),
    Row("GET", "/openapi.json", "/openapi.json", PUBLIC),
    Row("GET", "/docs", "/docs", PUBLIC),
    *(Row("GET", f"/docs/{name}", f"/docs/{name}", PUBLIC) for name in docs.FILES),
    # The Mnemora dialect. A search without an agent covers what the key may read.
    Row("GET", "/v1/health", "/v1/health", PUBLIC),
    Row("POST", "/v1/state", "/v1/state", "write", {"agent_id": "notes", "data": {"a": 1}}),
    Row("GET", STATE + "/sessions", "/v1/state/notes/sessions", "read"),
    Row("DELETE", STATE + "/{session_id}", "/v1/state/notes/s", "write"),
    Row("GET", STATE, "/v1/state/notes?session_id=s", "read"),
    Row(
        "PUT",
        STATE,
        "/v1/state/notes",
        "write",
        {"session_id": "s", "data": {"a": 2}, "version": 1},
    ),
    Row(
        "POST",
        "/v1/memory/episodic",
        "/v1/memory/episodic",
        "write",
        {"agent_id": "notes", "session_id": "s", "type": "action", "content": "of acme"},
    ),
    Row(
        "POST",
        "/v1/memory/episodic/batch",
        "/v1/memory/episodic/batch",
        "write",
        {"items": [{"agent_id": "notes", "session_id": "s", "type": "action", "content": "x"}]},
    ),
    Row(
        "GET",
        EPISODES + "/sessions/{session_id:path}",
        "/v1/memory/episodic/notes/sessions/s",
        "read",
    ),
    Row("GET", EPISODES, "/v1/memory/episodic/notes", "read"),
    Row("POST", EPISODES + "/summarize", "/v1/memory/episodic/notes/summarize", "write", {}),
    Row(
        "POST",
        "/v1/memory/semantic",
        "/v1/memory/semantic",
        "write",
        {"agent_id": "notes", "content": "said number {number}"},
    ),
    Row(
        "POST",
        "/v1/memory/semantic/batch",
        "/v1/memory/semantic/batch",
        "write",
        {"items": [{"agent_id": "notes", "content": "one of several"}]},
    ),
    Row(
        "POST",
        "/v1/memory/semantic/search",
        "/v1/memory/semantic/search",
        "read",
        {"agent_id": "notes", "query": "of acme"},
    ),
    Row("GET", MEMORY + "/history", "/v1/memory/semantic/{memory}/history", "read"),
    Row("GET", MEMORY, "/v1/memory/semantic/{memory}", "read"),
    Row("DELETE", MEMORY, "/v1/memory/semantic/{memory}", "write"),
    Row(
        "POST",
        "/v1/memory",
        "/v1/memory",
        "write",
        {"agent_id": "notes", "content": "said number {number}"},
    ),
    Row(
        "POST",
        "/v1/memory/search",
        "/v1/memory/search",
        "read",
        {"agent_id": "notes", "query": "of acme"},
    ),
    Row("GET", "/v1/memory/{agent_id:path}", "/v1/memory/notes", "read"),
    Row("DELETE", "/v1/memory/{agent_id:path}", "/v1/memory/notes", "purge"),
    Row("GET", "/v1/usage", "/v1/usage", NOTHING),
    # The operator API.
    Row("GET", ADMIN + "/tenants", ADMIN + "/tenants", OPERATOR),
    Row("POST", ADMIN + "/tenants", ADMIN + "/tenants", OPERATOR, {"name": "fresh-{number}"}),
    Row("GET", TENANT, ADMIN + "/tenants/acme", OPERATOR),
    Row("PATCH", TENANT, ADMIN + "/tenants/acme", OPERATOR, {"tier": "unlimited"}),
    Row("DELETE", TENANT, ADMIN + "/tenants/doomed?confirm=doomed", OPERATOR),
    Row("GET", TENANT + "/keys", ADMIN + "/tenants/acme/keys", OPERATOR),
    Row("POST", TENANT + "/keys", ADMIN + "/tenants/acme/keys", OPERATOR, {}),
    Row("GET", TENANT + "/namespaces", ADMIN + "/tenants/acme/namespaces", OPERATOR),
    Row(
        "DELETE",
        TENANT + "/namespaces",
        ADMIN + "/tenants/acme/namespaces?name=doomed",
        OPERATOR,
    ),
    Row("GET", TENANT + "/usage", ADMIN + "/tenants/acme/usage", OPERATOR),
    Row("GET", ADMIN + "/keys", ADMIN + "/keys", OPERATOR),
    Row("POST", ADMIN + "/keys/{id}/rotate", ADMIN + "/keys/{rotated}/rotate", OPERATOR, {}),
    Row("DELETE", ADMIN + "/keys/{id}", ADMIN + "/keys/{revoked}", OPERATOR),
    Row("GET", ADMIN + "/usage", ADMIN + "/usage", OPERATOR),
    Row("GET", ADMIN + "/audit", ADMIN + "/audit", OPERATOR),
]

OF_TENANTS = [row for row in ROWS if row.scope not in (PUBLIC, OPERATOR)]
WITH_SCOPES = [row for row in OF_TENANTS if row.scope != NOTHING]
OF_OPERATORS = [row for row in ROWS if row.scope == OPERATOR]
KEYED = [row for row in ROWS if row.scope != PUBLIC]

_numbers = itertools.count()


def each(rows):
    return pytest.mark.parametrize("row", rows, ids=[row.id for row in rows])


class Acme:
    """Tenant acme, what it stores, and everybody's keys."""

    def __init__(self, office: Keyed) -> None:
        self.office = office
        self.key = office.tenant("acme")
        self.client = office.client(self.key)
        self.names: dict[str, str] = {}

    def prepare(self) -> None:
        """Have everything that the rows name."""
        for namespace, key in [("notes", "k"), ("notes", "other"), ("doomed", "k")]:
            answer = self.client.put(f"/memory/{namespace}/{key}", json={"value": "of acme"})
            assert answer.status_code == 200
        said = {"agent_id": "notes", "session_id": "s"}
        self.client.delete("/v1/state/notes/s")
        self.post("/v1/state", **said, data={"text": "of acme"})
        self.post("/v1/memory/episodic", **said, type="action", content="of acme")
        memory = self.post("/v1/memory/semantic", agent_id="notes", content="It is of acme.")
        if "doomed" not in [
            row["tenant"] for row in self.office.admin("GET", "/tenants")["tenants"]
        ]:
            self.office.admin("POST", "/tenants", name="doomed")
        self.names = {
            "rotated": self.office.key("acme")["id"],
            "revoked": self.office.key("acme")["id"],
            "memory": memory["id"],
        }

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        """Store something over /v1; the record."""
        answer = self.client.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def holds(self) -> list[Any]:
        """Everything that acme has, byte for byte."""
        found: list[Any] = []
        for namespace in ("notes", "doomed"):
            listing = self.client.get(f"/memory/{namespace}")
            found.append(listing.content)
            for key in listing.json()["keys"]:
                found.append(shown(self.client.get(f"/memory/{namespace}/{key}")))
        found.append(self.client.get("/stats/memory").content)
        found.append(self.client.get("/v1/memory/notes").json()["data"])
        found.append(self.client.get("/v1/memory/episodic/notes").json()["data"])
        return found

    def purge(self) -> None:
        """Have nothing any more."""
        for row in self.office.admin("GET", "/tenants/acme/namespaces")["namespaces"]:
            self.office.admin("DELETE", f"/tenants/acme/namespaces?name={row['namespace']}")

    def ask(self, row: Row, headers: dict[str, str], **more: Any) -> httpx.Response:
        """The row's request with these headers."""
        # Unlike format, leaves other braces alone.
        path = row.path
        for name, value in self.names.items():
            path = path.replace(f"{{{name}}}", value)
        body = row.body
        if body is not None:
            number = str(next(_numbers))
            body = {
                name: value.replace("{number}", number) if isinstance(value, str) else value
                for name, value in body.items()
            } | more.pop("body", {})
        return self.office.bare.request(row.method, path, headers=headers, json=body, **more)


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
    for grant in ({"scopes": others}, {"namespace": "elsewhere-*"}):
        answer = acme.ask(row, bearer(acme.office.key("acme", **grant)["key"]))
        assert answer.status_code == 403, grant
        assert "of acme" not in answer.text
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
