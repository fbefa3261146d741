"""How schemathesis is to ask this server: with the right key, and reading back what was accepted.

Runs in an environment of its own, without the project. `FUZZ_KEY` and `FUZZ_OPERATOR` are the keys.
"""

# mypy: disable-error-code="misc,untyped-decorator"

from __future__ import annotations

import json
import os
import urllib.parse
from typing import Any

import requests
import schemathesis

KEYS = {name: os.environ[f"FUZZ_{name.upper()}"] for name in ("key", "operator")}
_session = requests.Session()


def credentials(path: str) -> dict[str, str]:
    """The header that the path's dialect takes."""
    kind = "operator" if path.startswith(("/admin", "/metrics")) else "key"
    return {"Authorization": f"Bearer {KEYS[kind]}"}


@schemathesis.hook
def before_load_schema(context: Any, raw: dict[str, Any]) -> None:
    """Close the answers' shapes, so that what they hold and do not tell is found.

    Security schemes go: two credentials that differ are refused before anything else is seen, and
    who gets in without a key is shown elsewhere.
    """
    for operations in raw["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)
            for answer in operation["responses"].values():
                for content in answer.get("content", {}).values():
                    close(content["schema"])
    raw.pop("security", None)
    raw["components"].pop("securitySchemes", None)
    for schema in raw["components"]["schemas"].values():
        close(schema)


def close(schema: Any) -> None:
    """Let an object have no other properties than those that are listed."""
    if isinstance(schema, dict):
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
        for inner in schema.values():
            close(inner)
    elif isinstance(schema, list):
        for inner in schema:
            close(inner)


# What this runs with: learnt from answers, it would be revoked or purged.
OURS = {"fuzz", *(key.split("_")[1] for key in KEYS.values())}
# Rules that JSON Schema has no words for.
BEYOND_THE_SCHEMA = (
    "Repeat the tenant's name",
    "Say which namespaces to remove",
    "There is a tenant of this name",
    "There is no such tier",
    "This key does not work any more",
    "A namespace is not deleted by this alone",
    "A tenant's name must not hold a slash",
    "items must all have the same agent_id",
    "are two words for one thing",
    "embedding must not be all zero",
    "embedding must have",
    "beyond 64 bits",
    "nested deeper",
    "The path holds a control character",
    "The body must hold data and session_id",
    "must be an ISO 8601 time",
)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Present the key, and keep it."""
    case.headers = {**(case.headers or {}), **credentials(case.path)}
    if case.path.startswith("/admin") and case.method.upper() != "GET":
        for name, value in (case.path_parameters or {}).items():
            if value in OURS:
                case.path_parameters[name] = "another"


@schemathesis.check
def accepts_what_fits(context: Any, response: Any, case: Any) -> None:
    """What fits the document is taken, but for rules that it can only tell in words."""
    mode = case.meta.generation.mode if case.meta else None
    if mode is not None and mode.is_positive and response.status_code in (400, 415, 422):
        # Batches and routed bodies are checked by each item's own rules.
        routed = case.path in ("/v1/memory",)
        known = any(sentence in response.text for sentence in BEYOND_THE_SCHEMA)
        assert routed or known, f"fits, and is refused: {response.text[:200]}"


@schemathesis.check
def reads_back(context: Any, response: Any, case: Any) -> None:
    """What was accepted reads back as it was sent."""
    if not 200 <= response.status_code < 300 or not isinstance(case.body, dict):
        return
    method, path = case.method.upper(), case.path
    if (method, path) == ("PUT", "/memory/{namespace}/{key}"):
        found = read(response.request.url)
        if found is not None:
            same(found["value"], case.body["value"], "value")
        return
    if method != "POST" or not path.startswith("/v1/") or path.endswith(("search", "summarize")):
        return
    record = json.loads(response.content)["data"]
    for stored, given in zip(record.get("items", [record]), given_in(case.body), strict=True):
        if stored.get("deduplicated"):
            continue
        for name in ("data", "content", "metadata", "agent_id", "session_id", "type"):
            if given.get(name) is not None and name in stored:
                same(stored[name], given[name], name)


def given_in(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The items of a batch, or the one of a single body."""
    items: list[dict[str, Any]] = body.get("items", [body])
    return items


def read(url: str) -> Any:
    """What GET answers there; None where it has expired already."""
    plain = urllib.parse.urlsplit(url)._replace(query="").geturl()
    answer = _session.get(plain, headers=credentials("/memory"), timeout=30)
    if answer.status_code == 404:
        return None
    assert answer.status_code == 200, f"stored, and then GET answers {answer.status_code}"
    return json.loads(answer.content)


def same(found: Any, sent: Any, name: str) -> None:
    """Raise unless both are the same JSON."""
    # What was sent went through JSON once; a number may be written in more than one way.
    assert found == json.loads(json.dumps(sent)), f"{name} reads back otherwise"
