"""The table of routes, and a tenant that has everything the rows name.

`test_access` holds it against everybody who must not get in; there a route without a row fails: add
one line for it. `path` names what tenant `acme` has; `{...}` are what `prepare` made. `scope` is
what a key must have: read, write or purge; NOTHING (any key), PUBLIC or OPERATOR.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from tenancy import Keyed, shown

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
    Row("DELETE", TENANT, ADMIN + "/tenants/{doomed}?confirm={doomed}", OPERATOR),
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
    """Tenant acme (or `name`), what it stores, and everybody's keys."""

    def __init__(self, office: Keyed, name: str = "acme") -> None:
        self.office = office
        self.name = name
        self.key = office.tenant(name)
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
            "doomed": "doomed",
            "rotated": self.office.key(self.name)["id"],
            "revoked": self.office.key(self.name)["id"],
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
        for row in self.office.admin("GET", f"/tenants/{self.name}/namespaces")["namespaces"]:
            self.office.admin("DELETE", f"/tenants/{self.name}/namespaces?name={row['namespace']}")

    def ask(self, row: Row, headers: dict[str, str], **more: Any) -> httpx.Response:
        """The row's request with these headers."""
        # Unlike format, leaves other braces alone.
        path = row.path.replace("/tenants/acme", f"/tenants/{self.name}")
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
