"""The OpenAPI document of a server: its routes' operations, put together.

It is made of what the handlers read requests with, and says nothing about what is stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from botwire_server import __version__
from botwire_server.errors import (
    AnswerTooLarge,
    Conflict,
    Forbidden,
    Internal,
    Invalid,
    MethodNotAllowed,
    Misdirected,
    NotFound,
    QuotaExceeded,
    Refusal,
    StorageFull,
    TooExpensive,
    TooLarge,
    Unauthorized,
    Unavailable,
    WrongMediaType,
)
from botwire_server.web.description import Answer, Operation, Shape, described
from botwire_server.web.dialect import Dialect, Resource, of_class
from botwire_server.web.fields import Field, Schema

INTRODUCTION = """\
Memory for AI agents, over two published wire contracts and an operator API.

The tenant comes from the API key and from nothing else. While no key was ever made, none is needed
on this machine. The operator API and /metrics take operators' keys only. A path's names are
percent-encoded; a slash in a key or an agent's id may also stand as it is. HEAD is answered
wherever GET is. Fields that are not listed here are ignored in a body and refused in the query of
a request that changes something. What is too long, or comes too slowly, is answered 431, 413 or
408 before it is looked at."""

SCHEMES: Schema = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The API key: the usual way."},
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The API key.",
    },
    "basic": {
        "type": "http",
        "scheme": "basic",
        "description": "The API key as the user's name: http://KEY@host.",
    },
}

_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer"}
_ALWAYS: Mapping[str, Schema] = {
    "X-Request-ID": {**_TEXT, "description": "Under which the log knows this request."}
}

# What each refusal means, and the headers it brings.
REFUSALS: Mapping[type[Refusal], tuple[str, Mapping[str, Schema]]] = {
    Invalid: ("What was sent can never be accepted as it is.", {}),
    Unauthorized: ("No API key that works.", {"WWW-Authenticate": _TEXT}),
    Forbidden: ("The key may not do this, or a page of another origin is asking.", {}),
    NotFound: ("There is no such thing, or it is another tenant's.", {}),
    MethodNotAllowed: ("It does not do that.", {"Allow": _TEXT}),
    Conflict: ("It was changed meanwhile; nothing was stored.", {}),
    TooLarge: ("The body is over its limit.", {}),
    TooExpensive: ("It asks for more than a read may compute.", {}),
    AnswerTooLarge: ("It is more than one answer holds; ask for less, or by the page.", {}),
    WrongMediaType: ("The body does not say that it is JSON.", {}),
    Misdirected: ("The Host header names another server.", {}),
    QuotaExceeded: (
        "A limit of the tenant or of the namespace is used up, or too many keys that do not "
        "work came from this address.",
        {
            "X-RateLimit-Limit": _WHOLE,
            "X-RateLimit-Remaining": _WHOLE,
            "X-RateLimit-Reset": {**_WHOLE, "description": "Unix seconds, where time helps."},
            "Retry-After": {**_TEXT, "description": "A date, where time helps."},
        },
    ),
    Internal: ("A fault of the server; its log says more under the request id.", {}),
    Unavailable: (
        "It may work later.",
        {"Retry-After": {**_TEXT, "description": "Seconds, where others kept a read waiting."}},
    ),
    StorageFull: ("The server's disk is full; nothing was stored.", {}),
}
# The headers above that are not always there.
_SOMETIMES = ("X-RateLimit-Reset", "Retry-After")


def document(dialects: Sequence[Dialect], *, public_url: str | None = None) -> dict[str, Any]:
    """The whole document, as JSON would hold it; `public_url` is where its paths begin."""
    made = _Document()
    # The dialect that takes every path stands last among them, and first here.
    for dialect in reversed(dialects):
        for resource in dialect.routes:
            made.add(dialect, resource)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "botwire-server",
            "version": __version__,
            "description": INTRODUCTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        **({} if public_url is None else {"servers": [{"url": public_url}]}),
        "security": [{name: []} for name in SCHEMES],
        "tags": [{"name": name} for name in made.tags],
        "paths": made.paths,
        "components": {
            "securitySchemes": SCHEMES,
            "schemas": dict(sorted(made.schemas.items())),
            "responses": dict(sorted(made.responses.items())),
        },
    }


def plain_path(path: str) -> str:
    """A route's path as the document writes it: `{key}` for `{key:path}`."""
    return re.sub(r":\w+}", "}", path)


class _Document:
    def __init__(self) -> None:
        self.paths: dict[str, dict[str, Any]] = {}
        self.schemas: dict[str, Schema] = {}
        self.responses: dict[str, Any] = {}
        self.tags: dict[str, None] = {}

    def add(self, dialect: Dialect, resource: Resource) -> None:
        """Take in a resource."""
        tag = resource.tag or dialect.title
        self.tags[tag] = None
        path = self.paths.setdefault(plain_path(resource.path), {})
        for method, operation in resource.operations.items():
            made = self._operation(dialect, operation, public=resource.path in dialect.public)
            path[method.lower()] = {"tags": [tag], **made}

    def _operation(self, dialect: Dialect, operation: Operation, *, public: bool) -> dict[str, Any]:
        made: dict[str, Any] = {"operationId": operation.id, "summary": operation.summary}
        if operation.notes:
            made["description"] = operation.notes
        queried = () if operation.query is None else operation.query.fields
        parameters = [*operation.path, *queried, *operation.headers]
        if parameters:
            made["parameters"] = [_parameter(field) for field in parameters]
        if operation.body is not None:
            content: dict[str, Any] = {"schema": self.resolved(operation.body.schema)}
            if operation.body.example is not None:
                content["example"] = operation.body.example
            made["requestBody"] = {"required": True, "content": {"application/json": content}}
        answers: dict[int, Any] = {
            status: self._answer(answer) for status, answer in operation.answers.items()
        }
        refused: dict[int, dict[type[Refusal], None]] = {}
        for refusal in _refusals(operation, public=public):
            refused.setdefault(of_class(refusal, dialect.statuses), {})[refusal] = None
        for status, refusals in refused.items():
            answers.setdefault(status, self._refusal(dialect, *refusals))
        made["responses"] = {str(status): answers[status] for status in sorted(answers)}
        if public:
            made["security"] = []
        return made

    def _answer(self, answer: Answer) -> dict[str, Any]:
        made: dict[str, Any] = {
            "description": answer.help,
            "headers": _headers({**_ALWAYS, **answer.headers}),
        }
        if answer.content is not None:
            made["content"] = {answer.media_type: {"schema": self.resolved(answer.content)}}
        return made

    def _refusal(self, dialect: Dialect, *refusals: type[Refusal]) -> dict[str, Any]:
        name = dialect.refusal.name + "Or".join(refusal.__name__ for refusal in refusals)
        help = " ".join(REFUSALS[refusal][0] for refusal in refusals)
        headers = {name: it for refusal in refusals for name, it in REFUSALS[refusal][1].items()}
        self.responses[name] = self._answer(Answer(help, dialect.refusal, headers))
        return {"$ref": f"#/components/responses/{name}"}

    def resolved(self, value: Any) -> Any:
        """A schema with references in place of the shapes in it, which become components."""
        if isinstance(value, Shape):
            made = {
                "type": "object",
                "properties": self.resolved(dict(value.properties)),
                "required": [name for name in value.properties if name not in value.optional],
            }
            if self.schemas.setdefault(value.name, made) != made:
                raise ValueError(f"two shapes are called {value.name}")
            return {"$ref": f"#/components/schemas/{value.name}"}
        if isinstance(value, dict):
            return {name: self.resolved(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [self.resolved(inner) for inner in value]
        return value


def _refusals(operation: Operation, *, public: bool) -> Iterable[type[Refusal]]:
    yield from operation.refusals
    yield Invalid
    if operation.body is not None:
        yield from (TooLarge, WrongMediaType)
    if not public:
        yield from (Unauthorized, QuotaExceeded, TooExpensive)
    yield from (Forbidden, Misdirected, Internal, Unavailable, StorageFull)


def _parameter(field: Field[Any]) -> dict[str, Any]:
    schema = field.schema if field.place != "body" else described(field)
    return {
        "name": field.name,
        "in": field.place,
        "required": field.required or field.place == "path",
        "description": field.help,
        "schema": schema,
    }


def _headers(headers: Mapping[str, Schema]) -> dict[str, Any]:
    return {
        name: {
            "schema": {key: value for key, value in schema.items() if key != "description"},
            **({"description": schema["description"]} if "description" in schema else {}),
            "required": name not in _SOMETIMES,
        }
        for name, schema in headers.items()
    }
