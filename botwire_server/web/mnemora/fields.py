"""Checked fields of a request's body, query and path.

Every function takes the mapping the field is in and its name, and raises `Invalid` naming the
field and what it must be. `where` says which part of the request that is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, time
from typing import Any

from starlette.requests import Request

from botwire_server.errors import Invalid, TooLarge
from botwire_server.store import names
from botwire_server.web.body import parse_json, query, read_body

DEFAULT_SESSION = "default"
LONGEST_ID = 256

Fields = Mapping[str, Any]


async def read_fields(request: Request, *, most: int | None = None) -> Fields:
    """The body as a JSON object of at most `most` bytes. No body at all is an empty object.

    Raises like `read_json`.
    """
    body = await read_body(request)
    if most is not None:
        refuse_longer(body, most)
    return object_of(body)


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


def refuse_query(request: Request) -> None:
    """Refuse a query on a request that changes something: `a?b` unquoted would mean agent `a`.

    A `tenant_id` is ignored: the tenant is the key's.
    """
    query(request, "tenant_id", strict=True)


def identifier(fields: Fields, name: str, *, where: str = "body") -> str:
    """An agent's or a session's id: 1 to 256 characters, no `#`, no control characters."""
    value = fields.get(name)
    if not isinstance(value, str):
        raise Invalid(f"{name} is required and must be a string.", where=(where, name))
    names.check(value, name, longest=LONGEST_ID)
    if "#" in value:
        raise Invalid(f"The {name} must not hold a #; leave it out.", where=(where, name))
    return value


def agent_id(fields: Fields, *, where: str = "body") -> str:
    """The `agent_id`."""
    return identifier(fields, "agent_id", where=where)


def session_id(fields: Fields, *, where: str = "body", default: str | None = None) -> str:
    """The `session_id`, or `default` where it is missing and there is one."""
    if default is not None and fields.get("session_id") is None:
        return default
    return identifier(fields, "session_id", where=where)


def optional_session_id(fields: Fields, *, where: str = "body") -> str | None:
    """The `session_id`, or None where it is missing."""
    return None if fields.get("session_id") is None else session_id(fields, where=where)


def text(fields: Fields, name: str, *, longest: int | None = None) -> str:
    """A string that is not empty or blank."""
    value = fields.get(name)
    if not isinstance(value, str) or not value.strip():
        raise Invalid(
            f"{name} is required and must be a string that is not empty.", where=("body", name)
        )
    if longest is not None and len(value) > longest:
        raise Invalid(
            f"{name} must have at most {longest} characters; this one has {len(value)}.",
            where=("body", name),
        )
    return value


def mapping(fields: Fields, name: str, *, required: bool = False) -> dict[str, Any]:
    """A JSON object; an empty one where it is missing and not `required`."""
    value = fields.get(name)
    if value is None and not required:
        return {}
    if not isinstance(value, dict):
        raise Invalid(f"{name} must be a JSON object.", where=("body", name))
    return value


def whole(fields: Fields, name: str, *, least: int, most: int) -> int | None:
    """A whole number, or None where it is missing or null."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise Invalid(
            f"{name} must be a whole number from {least} to {most}.", where=("body", name)
        )
    return value


def items(fields: Fields, *, most: int = 1_000) -> list[Fields]:
    """The `items` of a batch: 1 to `most` objects."""
    value = fields.get("items")
    if not isinstance(value, list) or not 1 <= len(value) <= most:
        raise Invalid(f"items must be a list of 1 to {most} objects.", where=("body", "items"))
    for number, item in enumerate(value):
        if not isinstance(item, dict):
            raise Invalid(f"items[{number}] must be a JSON object.", where=("body", "items"))
    return value


def numbered(number: int, error: Invalid) -> Invalid:
    """The refusal of a batch's item, saying which one it is."""
    return Invalid(f"items[{number}]: {error.message}", where=("body", "items", *error.where[1:]))


def moment(found: Mapping[str, str], name: str, *, end: bool = False) -> float | None:
    """An ISO 8601 time as Unix seconds, or None where it is missing; UTC where it has no offset.

    A date alone is its first moment, or its last with `end`.
    """
    given = found.get(name)
    if given is None:
        return None
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", given):
            at = datetime.combine(datetime.fromisoformat(given), time.max if end else time.min)
        else:
            # A `+` that was not quoted arrives as a space.
            at = datetime.fromisoformat(given[:11] + given[11:].replace(" ", "+"))
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise Invalid(
            f"{name} must be an ISO 8601 time, such as 2026-11-20T10:46:51+00:00.",
            where=("query", name),
        ) from None
