"""What this dialect's fields may be, and how it reads a body.

A batch's items are read by the same fields as a single body; `numbered` says which one is wrong.
"""

from __future__ import annotations

from typing import Any, TypeVar

from starlette.requests import Request

from botwire_server import limits
from botwire_server.errors import Invalid, TooLarge
from botwire_server.store import names
from botwire_server.web.body import parse_json, read_body
from botwire_server.web.description import Body, Query
from botwire_server.web.fields import NO_CONTROLS, Field, Values

T = TypeVar("T")

DEFAULT_SESSION = "default"

Fields = Values


async def read_fields(request: Request, body: Body) -> Fields:
    """The body as a JSON object, for its fields' `of`. No body at all is an empty object.

    Raises like `read_json`.
    """
    raw = await read_body(request)
    if body.most is not None:
        refuse_longer(raw, body.most)
    return object_of(raw)


def refuse_longer(body: bytes, most: int) -> None:
    """Raise `TooLarge` for a body of more than `most` bytes."""
    if len(body) > most:
        raise TooLarge(f"The body is larger than {most} bytes; send less at once.")


def object_of(body: bytes) -> Fields:
    """Decode a body; see `read_fields`."""
    value = parse_json(body) if body else {}
    if not isinstance(value, dict):
        raise Invalid('The body must be a JSON object, such as {"agent_id": "a"}.', where=("body",))
    return value


class Identifier(Field[str]):
    """An agent's or a session's id: 1 to 256 characters, no `#`, no control characters.

    Where it is missing, it is the `default`, if there is one.
    """

    def __init__(self, name: str, help: str, *, default: str | None = None, **more: Any) -> None:
        schema = {
            "type": "string",
            "minLength": 1,
            "maxLength": limits.ID,
            "pattern": NO_CONTROLS.replace("]", "#]"),
        }
        super().__init__(name, help, schema, required=default is None, default=default, **more)
        self._default = default

    def of(self, values: Values) -> str:
        """See `Field`."""
        value = values.get(self.name)
        if value is None and self._default is not None:
            return self._default
        if not isinstance(value, str):
            raise self.refusal(f"{self.name} is required and must be a string.")
        names.check(value, self.name, longest=limits.ID)
        if "#" in value:
            raise self.refusal(f"The {self.name} must not hold a #; leave it out.")
        return value


class Optional(Field[T | None]):
    """A field that may be missing: None then."""

    def __init__(self, field: Field[T]) -> None:
        super().__init__(field.name, field.help, field.schema, place=field.place)
        self._field = field

    def of(self, values: Values) -> T | None:
        """See `Field`."""
        return None if values.get(self.name) is None else self._field.of(values)


class Sentence(Field[str]):
    """A string of at most `longest` characters that is not empty or blank."""

    def __init__(self, name: str, help: str, *, longest: int) -> None:
        schema = {"type": "string", "maxLength": longest, "pattern": "\\S"}
        super().__init__(name, help, schema, required=True)
        self._longest = longest

    def of(self, values: Values) -> str:
        """See `Field`."""
        value = values.get(self.name)
        if not isinstance(value, str) or not value.strip():
            raise self.refusal(f"{self.name} is required and must be a string that is not empty.")
        self.refuse_longer(value, self._longest)
        return value


class Items(Field[list[Fields]]):
    """The `items` of a batch: 1 to `limits.ITEMS` objects."""

    def __init__(self, item: Body) -> None:
        schema = {
            "type": "array",
            "minItems": 1,
            "maxItems": limits.ITEMS,
            "items": item.schema,
        }
        super().__init__("items", "All of one agent.", schema, required=True)

    def of(self, values: Values) -> list[Fields]:
        """See `Field`."""
        value = values.get("items")
        if not isinstance(value, list) or not 1 <= len(value) <= limits.ITEMS:
            raise self.refusal(f"items must be a list of 1 to {limits.ITEMS} objects.")
        for number, item in enumerate(value):
            if not isinstance(item, dict):
                raise self.refusal(f"items[{number}] must be a JSON object.")
        return value


def numbered(number: int, error: Invalid) -> Invalid:
    """The refusal of a batch's item, saying which one it is."""
    return Invalid(f"items[{number}]: {error.message}", where=("body", "items", *error.where[1:]))


AGENT = Identifier("agent_id", "The agent: its name is that of a namespace.")
AGENT_IN_PATH = Identifier("agent_id", AGENT.help, place="path")
SESSION = Identifier("session_id", "The session.")
SESSION_IN_PATH = Identifier("session_id", SESSION.help, place="path")
# What changes something takes no query: `a?b` unquoted would mean agent `a`. A `tenant_id` is
# ignored: the tenant is the key's.
UNASKED = Query(strict=True, ignored=("tenant_id",))
