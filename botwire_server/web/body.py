"""What comes in and goes out: limited JSON, checked fields, checked queries, JSON answers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from botwire_server.errors import Invalid, InvalidJson, TooLarge, WrongMediaType

DEEPEST = 64

_NO_HEADERS: Mapping[str, str] = {}
_DIGIT = re.compile(rb"[0-9]")
_LONG_DIGITS = re.compile(rb"[0-9]{19}")
_INT64 = range(-(2**63), 2**64)


class Json(Response):
    """A JSON answer; `content` may hold `orjson.Fragment`s."""

    def __init__(
        self, content: Any, status_code: int = 200, headers: Mapping[str, str] = _NO_HEADERS
    ) -> None:
        # Starlette's own constructor costs more than encoding the answer.
        self.status_code = status_code
        self.background = None
        self.body = orjson.dumps(content)
        self.raw_headers = [
            (b"content-length", b"%d" % len(self.body)),
            (b"content-type", b"application/json"),
            *((name.lower().encode(), value.encode()) for name, value in headers.items()),
        ]


def header(request: Request, name: bytes) -> str | None:
    """A header of the request; the last where it is repeated."""
    value: bytes | None = request.scope["header"].get(name)
    return None if value is None else value.decode("latin-1")


async def read_json(request: Request) -> dict[str, Any]:
    """The body as a JSON object.

    Raises `WrongMediaType`, `TooLarge`, `InvalidJson`, or `Invalid` for nesting deeper than 64,
    integers beyond 64 bits, and anything but an object.
    """
    value = parse_json(await read_body(request))
    if not isinstance(value, dict):
        raise Invalid('The body must be a JSON object, such as {"value": "text"}.', where=("body",))
    return value


async def read_body(request: Request) -> bytes:
    """The body, up to the limit of the server."""
    content_type = header(request, b"content-type") or ""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise WrongMediaType(
            "Send the body as JSON, with the header Content-Type: application/json."
        )
    most: int = request.scope["max_body_bytes"]
    declared = header(request, b"content-length")
    if declared is not None and int(declared) > most:
        raise _too_large(most)
    message = await request.receive()
    body: bytes = message.get("body", b"")
    while message["type"] == "http.request" and message.get("more_body", False):
        if len(body) > most:
            raise _too_large(most)
        message = await request.receive()
        body += message.get("body", b"")
    if message["type"] != "http.request":
        raise ClientDisconnect
    if len(body) > most:
        raise _too_large(most)
    return body


def parse_json(body: bytes) -> Any:
    """Decode JSON that can be encoded again without loss; see `read_json`."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(
            f"The body is no valid JSON (line {error.lineno}, column {error.colno}).",
            where=("body",),
        ) from None
    if body.count(b"[") + body.count(b"{") > DEEPEST:
        _refuse_deep(value)
    # orjson reads 2^64 as a float. Only a body with so many digits in a row can hold such, and
    # they cover one of every nineteenth byte: looking there first is ten times as fast.
    if _DIGIT.search(body[18::19]) and _LONG_DIGITS.search(body):
        _refuse_big_integers(body)
    return value


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"The body is larger than {most} bytes; send less at once.")


def _refuse_big_integers(body: bytes) -> None:
    def parse_int(digits: str) -> int:
        if len(digits) > 20 or int(digits) not in _INT64:
            raise Invalid(
                "The body holds an integer beyond 64 bits; send it as a string.", where=("body",)
            )
        return 0

    json.loads(body, parse_int=parse_int)


def _refuse_deep(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST + 1):
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(v for v in item.values() if isinstance(v, dict | list))
            elif isinstance(item, list):
                inner.extend(v for v in item if isinstance(v, dict | list))
        if not inner:
            return
        level = inner
    raise Invalid(f"The body is nested deeper than {DEEPEST} levels; flatten it.", where=("body",))


def query(request: Request, *known: str, strict: bool) -> dict[str, str]:
    """The query's parameters among `known`. `strict` refuses others, as a write must.

    Keys go into paths unquoted, so that `k?x=1` arrives as key `k`: a write that ignored the
    rest would change another entry than the one that was meant.
    """
    raw: bytes = request.scope["query_string"]
    if not raw:
        return {}
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=64
        )
    except ValueError:
        raise Invalid("The query string is no valid UTF-8.", where=("query",)) from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in known:
            if name in found:
                raise Invalid(f"{name} is given twice; give it once.", where=("query", name))
            found[name] = value
        elif strict:
            raise Invalid(
                "This request takes no such query. If the ? belongs to the key, write it as %3F.",
                where=("query",),
            )
    return found
