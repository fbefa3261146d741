"""/openapi.json: every route is in it, and it says what the handlers do.

`test_the_document_and_the_handlers_agree` takes every field of every request, makes values of it
just inside and just outside of what the document says, and asks a server.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from serving import FakeClock
from tenancy import Keyed, bearer

from botwire_server.web import docs
from botwire_server.web.openapi import plain_path

METHODS = ("get", "put", "post", "patch", "delete")


@pytest.fixture(scope="module")
def office(tmp_path_factory):
    # A body has room for what is just beyond a field's own bounds.
    with Keyed(
        tmp_path_factory.mktemp("native") / "data", clock=FakeClock(), max_body_bytes=8 * 1024**2
    ) as office:
        yield office


@pytest.fixture(scope="module")
def reader(office):
    """The key of a tenant that has nothing, for tests in any order."""
    return office.tenant("reader")


@pytest.fixture(scope="module")
def strict_office(tmp_path_factory):
    with Keyed(
        tmp_path_factory.mktemp("hosted") / "data", profile="hosted", daily_writes=0
    ) as office:
        yield office


@pytest.fixture(params=["native", "hosted"])
def either(request, office, strict_office):
    return office if request.param == "native" else strict_office


def document_of(office: Keyed) -> dict[str, Any]:
    answer = office.bare.get("/openapi.json")
    assert answer.status_code == 200
    document: dict[str, Any] = answer.json()
    return document


def operations(document: dict[str, Any]):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def schemas_of(value: Any):
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from schemas_of(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from schemas_of(inner)


# Completeness.


def test_every_route_is_described(either):
    own = ("/docs", "/openapi.json")
    routes = {
        (plain_path(resource.path), method.lower())
        for dialect in either.app.dialects
        for resource in dialect.routes
        for method in resource.operations
        if not resource.path.startswith(own)
    }
    document = document_of(either)
    assert {(path, method) for path, method, _ in operations(document)} == routes


def test_it_is_whole(either):
    document = document_of(either)
    assert document["openapi"].startswith("3.1.")
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in document["tags"]}
    for path, method, operation in operations(document):
        said = f"{method} {path}"
        assert operation["summary"], said
        assert set(operation["tags"]) <= tags
        placed = [p["name"] for p in operation.get("parameters", []) if p["in"] == "path"]
        assert placed == re.findall(r"{(\w+)}", path), said
        assert any(status.startswith("2") for status in operation["responses"]), said
        for field in operation.get("parameters", []):
            assert field["description"] and field["schema"], said
    known = document["components"]
    for schema in schemas_of(document):
        if "$ref" in schema:
            _, _, kind, name = schema["$ref"].split("/")
            assert name in known[kind]
        if isinstance(schema.get("pattern"), str):
            re.compile(schema["pattern"])


def test_who_needs_a_key(either):
    for path, method, operation in operations(document_of(either)):
        public = operation.get("security") == []
        answer = either.bare.request(method, path.replace("{", "").replace("}", ""))
        assert (answer.status_code == 401) != public, f"{method} {path}"
        assert ("401" in operation["responses"]) != public
        if not public:
            assert {"403", "429", "500", "503"} <= set(operation["responses"])


def test_the_examples_are_accepted(office):
    key = office.tenant("examples")
    for path, method, operation in operations(document_of(office)):
        if "requestBody" in operation and path != "/v1/state/{agent_id}":
            example = operation["requestBody"]["content"]["application/json"]["example"]
            operator = path.startswith(("/admin", "/metrics"))
            at = filled(office, path, "examples")
            headers = bearer(office.operator_key if operator else key)
            answer = office.bare.request(method, at, json=example, headers=headers)
            assert answer.status_code < 300 or answer.status_code == 404, f"{path}: {answer.text}"


# Agreement.


def filled(office: Keyed, path: str, tenant: str) -> str:
    """A path that means something."""
    if "{id}" in path:
        path = path.replace("{id}", office.key(tenant)["id"])
    return re.sub(r"{\w+}", "fits", path.replace("{tenant}", tenant))


def inside(schema: dict[str, Any]) -> list[Any]:
    """Values at the bounds of a schema."""
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    found: list[Any] = []
    if "enum" in schema:
        return list(schema["enum"])
    if "null" in types:
        found.append(None)
    if "integer" in types or "number" in types:
        step = 1 if "integer" in types else 1e-6
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + step)
        found += [least, schema["maximum"]]
    if "boolean" in types:
        found += [True, False]
    if "string" in types and "pattern" not in schema and "anyOf" not in schema:
        found += ["x" * schema.get("minLength", 1), "é" * schema.get("maxLength", 300)]
    if "string" in types and "\\u0000" in schema.get("pattern", ""):
        found += ["x", "ü '\"%*"[: schema.get("maxLength")], "é" * schema["maxLength"]]
    if "anyOf" in schema and "string" in types:
        found += ["2026-11-20", "2026-11-20T10:46:51Z", "2026-11-20T10:46:51.5+01:00"]
    if "object" in types:
        found += [{}, {"a": {"b": [1, None]}}]
        found += [{"a": "x" * (most - 100)} for most in [schema.get("x-max-bytes")] if most]
    if "x-max-nested-in-lists" in schema:
        found.append({"a": [{}] * schema["x-max-nested-in-lists"]})
    return found


def outside(schema: dict[str, Any]) -> list[Any]:
    """Values just beyond the bounds."""
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    if not types:
        return []
    wrong = {"boolean": True, "number": 1.5, "string": "x", "array": [[]], "object": {"x": 1}}
    if "number" in types:
        wrong.pop("number")
    found: list[Any] = [value for kind, value in wrong.items() if kind not in types]
    if "integer" in types or "number" in types:
        step = 1 if "integer" in types else 1e-6
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + step)
        found += [least - step, schema["maximum"] + max(step, 1)]
    if "minLength" in schema:
        found.append("x" * (schema["minLength"] - 1))
    if "maxLength" in schema:
        found.append("é" * (schema["maxLength"] + 1))
    if "\\u0000" in schema.get("pattern", ""):
        found += ["a\x00b", "a\nb", "a\x7f", "a\x85"]
    elif "pattern" in schema:
        tried = ["", " \n", "!", "1x", "a b", "r", "e-1"]
        found += [value for value in tried if not re.search(schema["pattern"], value)]
    if "anyOf" in schema and "string" in types:
        found += ["yesterday", "2026-02-30", "2026-11-20T25:00:00Z"]
    if "enum" in schema:
        found.append("nothing of these")
    if "minItems" in schema:
        found += [[], [0] * (schema["maxItems"] + 1)]
    elif "maxItems" in schema:
        found.append(["read"] * (schema["maxItems"] + 1))
    if "x-max-bytes" in schema and "object" in types:
        found.append({"a": "é" * (schema["x-max-bytes"] // 2)})
    if "x-max-nested-in-lists" in schema:
        found.append({"a": [[{}]] * (schema["x-max-nested-in-lists"] // 2 + 1)})
    return found


# What is refused or absent for reasons that are no field's.
RULES = ("There is no such tier", "There is a tenant of this name", "Repeat the tenant's name",
         "Say which namespaces", "A namespace is not deleted", "Another word", "two words",
         "This key does not work")  # fmt: skip


def differences(office: Keyed, hosted: bool = False) -> list[str]:
    """Where the document and the server disagree."""
    tenant = "agree"
    if not any(row["tenant"] == tenant for row in office.admin("GET", "/tenants")["tenants"]):
        office.tenant(tenant)
    key = str(office.key(tenant)["key"])
    found = []

    def ask(path: str, method: str, at: str, **more: Any) -> httpx.Response:
        presented = bearer(office.operator_key if path.startswith(("/admin", "/metrics")) else key)
        more["headers"] = presented | more.get("headers", {})
        return office.bare.request(method, at, **more)

    def expect(fits: bool, what: str, answer: httpx.Response) -> None:
        refused = answer.status_code in (400, 405, 413, 422)
        if refused == fits and not (fits and any(rule in answer.text for rule in RULES)):
            found.append(f"{what}: {answer.status_code} {answer.text[:120]}")

    for path, method, operation in operations(document_of(office)):
        if "{id}" in path or (hosted and not path.startswith("/memory")):
            continue
        at = filled(office, path, tenant)
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        body = None if content is None else content["example"]
        for field in operation.get("parameters", []):
            name, place, schema = field["name"], field["in"], field["schema"]
            if place == "header":
                continue
            for fits, values in ((True, inside(schema)), (False, outside(schema))):
                for value in values:
                    if not isinstance(value, str | int) or isinstance(value, bool):
                        continue
                    what = f"{method} {path} {place} {name}={str(value)[:40]!r}"
                    if place == "query":
                        if schema["type"] == "string" and not isinstance(value, str):
                            continue
                        asked = f"{at}?{name}={quote(str(value), safe='')}"
                        expect(fits, what, ask(path, method, asked, json=body))
                    elif value != "" and name != "tenant" and "/" not in str(value):
                        target = path.replace(f"{{{name}}}", quote(str(value), safe=""))
                        asked = filled(office, target, tenant)
                        expect(fits, what, ask(path, method, asked, json=body))
        for shape in [] if content is None else content["schema"].get("anyOf", [content["schema"]]):
            base = {**body, **(EXTRA.get(tuple(shape.get("required", ())), {}))}
            for name, schema in shape["properties"].items():
                if name == "items":
                    continue
                for value in inside(schema):
                    if name in ("collection", "embedding") and value:
                        continue
                    sent = {**base, name: value}
                    answer = ask(path, method, at, json=sent)
                    expect(True, f"{method} {path} {name}={str(value)[:40]!r}", answer)
                for value in outside(schema):
                    if path == "/v1/memory" and name in ("type", "content", "data", "session_id"):
                        continue  # decides which shape it is
                    answer = ask(path, method, at, json={**base, name: value})
                    expect(False, f"{method} {path} {name}={str(value)[:40]!r}", answer)
            for name in shape.get("required", []):
                missing = {key: value for key, value in base.items() if key != name}
                if path != "/v1/memory":
                    expect(False, f"{method} {path} no {name}", ask(path, method, at, json=missing))
    return found


# What makes POST /v1/memory take a body for the shape with these required fields.
EXTRA: dict[tuple[str, ...], dict[str, Any]] = {
    ("agent_id", "session_id", "data"): {"session_id": "s", "data": {}},
    ("agent_id", "session_id", "type", "content"): {"session_id": "s", "type": "action"},
}


def test_the_document_and_the_handlers_agree(office):
    assert differences(office) == []


def test_the_document_and_the_handlers_agree_on_the_hosted_rules(strict_office):
    assert differences(strict_office, hosted=True) == []


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("maximum", lambda schema: schema["maximum"] + 1, "ttl_hours"),
        ("minimum", lambda schema: schema["minimum"] - 1, "limit"),
        ("maxLength", lambda schema: schema["maxLength"] + 1, "agent_id"),
    ],
)
def test_a_document_that_lies_is_found(office, monkeypatch, name, change, told):
    """The planted fault: bounds in the document that the handlers do not have."""
    document = json.loads(json.dumps(document_of(office)))
    for schema in schemas_of(document["paths"]):
        if isinstance(schema.get(name), int):
            schema[name] = change(schema)
    monkeypatch.setitem(globals(), "document_of", lambda office: document)
    assert any(told in difference for difference in differences(office))


# Serving it.


def test_it_is_kept_by_its_etag(office):
    answer = office.bare.get("/openapi.json")
    assert answer.headers["cache-control"] == "no-cache"
    again = office.bare.get("/openapi.json", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_the_page_loads_nothing_from_elsewhere(office):
    page = office.bare.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "'unsafe-" not in page.headers["content-security-policy"]
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(addresses) == len(docs.FILES) + 1
    assert not re.search(r"<(script|style)[^>]*>[^<]", page.text)
    for address in addresses:
        assert re.fullmatch(r"[a-z0-9./?=-]+", address) and not address.startswith("/")
        answer = office.bare.get("/" + address)
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        if "?v=" in address:
            assert "immutable" in answer.headers["cache-control"]
    own = docs.ASSETS / "docs.js"
    assert "http" not in own.read_text()


def test_an_address_that_names_other_content_is_asked_for_again(office):
    answer = office.bare.get("/docs/docs.js?v=0000000000000000")
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("path", ["/docs/", "/docs/x", "/docs/../config.py", "/docsx",
                                  "/docs/swagger-ui/LICENSE", "/docs/docs.html"])  # fmt: skip
def test_nothing_else_is_served(office, reader, path):
    assert office.bare.get(path).status_code == 401
    assert office.bare.get(path, headers=bearer(reader)).status_code == 404


def test_both_can_be_left_out(tmp_path):
    with Keyed(tmp_path / "data", no_docs=True) as office:
        client = office.client(office.tenant("acme"))
        for path in ("/docs", "/openapi.json", "/docs/docs.js"):
            assert office.bare.get(path).status_code == 401
            assert client.get(path).status_code == 404


def test_an_open_server_shows_the_page_to_its_user_alone(server):
    with httpx.Client(base_url=server.url) as client:
        typed = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Accept": "text/html"}
        assert client.get("/docs", headers=typed).status_code == 200
        own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
        assert client.put("/memory/docs/k", json={"value": 1}, headers=own).status_code == 200
        for headers in ({"Origin": "http://elsewhere"}, {"Sec-Fetch-Site": "cross-site"}):
            assert client.get("/openapi.json", headers=headers).status_code == 403
        assert client.get("/docs", headers={"Host": "elsewhere"}).status_code == 421
