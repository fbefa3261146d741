"""What an operation takes and answers, said beside its handler.

An `Operation` names the fields its handler reads (see `fields`) and the shapes of its answers;
`openapi` makes the document out of all of them. What every operation of a dialect can answer
(no key, a limit used up, a fault) is added there and not repeated here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from botwire_server.errors import Refusal
from botwire_server.web.body import query as read_query
from botwire_server.web.fields import Field, Schema

Handler = Callable[[Request], Awaitable[Response]]

_NOTHING: Mapping[str, str] = MappingProxyType({})

STRING: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
BOOLEAN: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
SECONDS: Schema = {"type": "number", "description": "Unix seconds."}
TIME: Schema = {"type": "string", "format": "date-time"}
ETAG: Schema = {"type": "string", "description": "Of this entry as it is; for If-Match."}


def listed(schema: Schema | Shape) -> Schema:
    """A list of these."""
    return {"type": "array", "items": schema}


def or_null(schema: Schema | Shape) -> Schema:
    """This or null."""
    return {"anyOf": [schema, {"type": "null"}]}


@dataclass(frozen=True)
class Shape:
    """A JSON object in an answer, known by its name in the document."""

    name: str
    properties: Mapping[str, Any]
    optional: frozenset[str] = frozenset()

    def extended(self, name: str, /, **properties: Any) -> Shape:
        """The same with more properties."""
        return Shape(name, {**self.properties, **properties}, self.optional)


@dataclass(frozen=True)
class Answer:
    """What an answer of one status holds: its body (None: none) and its headers."""

    help: str
    content: Shape | Schema | None = None
    headers: Mapping[str, Schema] = field(default_factory=dict)
    media_type: str = "application/json"


class Query:
    """The parameters an operation takes. `strict` refuses others, as what changes things must.

    `ignored` are taken and mean nothing.
    """

    def __init__(
        self, *fields: Field[Any], strict: bool = False, ignored: tuple[str, ...] = ()
    ) -> None:
        self.fields = fields
        self._names = (*(field.name for field in fields), *ignored)
        self._strict = strict

    def read(self, request: Request) -> Mapping[str, str]:
        """The parameters that are given, for the fields' `of`."""
        if not request.scope["query_string"]:
            return _NOTHING
        return read_query(request, *self._names, strict=self._strict)


NO_QUERY = Query(strict=True)


class Body:
    """A JSON object of these fields; others are ignored. `most` bytes, where it has a limit of its
    own."""

    def __init__(
        self, *fields: Field[Any], most: int | None = None, example: Mapping[str, Any]
    ) -> None:
        self.fields = fields
        self.most = most
        self.example = example

    @property
    def schema(self) -> Schema:
        """The body as JSON Schema."""
        schema: Schema = {
            "type": "object",
            "properties": {field.name: described(field) for field in self.fields},
        }
        required = [field.name for field in self.fields if field.required]
        if required:
            schema["required"] = required
        if self.most is not None:
            schema["x-max-bytes"] = self.most
        return schema


class OneOf(Body):
    """A body of one of several shapes; the first that fits counts."""

    def __init__(self, *bodies: Body, example: Mapping[str, Any]) -> None:
        super().__init__(example=example)
        self.bodies = bodies

    @property
    def schema(self) -> Schema:
        """See `Body`."""
        return {"type": "object", "anyOf": [body.schema for body in self.bodies]}


def described(field: Field[Any]) -> Schema:
    """A body's field with its help; null is the same as missing."""
    schema = field.schema
    if not field.required and schema:
        if isinstance(schema.get("type"), str):
            schema = {**schema, "type": [schema["type"], "null"]}
            if "enum" in schema:
                schema["enum"] = [*schema["enum"], None]
            if "anyOf" in schema:
                schema["anyOf"] = [*schema["anyOf"], {"type": "null"}]
        else:
            schema = or_null(schema)
    return {**schema, "description": field.help}


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path: its handler, and what that reads and answers.

    `id` is its name in generated clients. `refusals` are those beyond what is common to all.
    """

    handler: Handler
    id: str
    summary: str
    notes: str = ""
    path: tuple[Field[Any], ...] = ()
    query: Query | None = None
    headers: tuple[Field[Any], ...] = ()
    body: Body | None = None
    answers: Mapping[int, Answer]
    refusals: tuple[type[Refusal], ...] = ()

    @property
    def asks(self) -> str:
        """The field that says how much is asked for, where the handler does not know better."""
        names = [field.name for field in (() if self.body is None else self.body.fields)]
        return next(
            (name for name in ("query", "num_episodes") if name in names),
            self.path[-1].name if self.path else "",
        )


def operation(handler: Handler, id: str, summary: str, **more: Any) -> Operation:
    """An `Operation`."""
    return Operation(handler=handler, id=id, summary=summary, **more)
