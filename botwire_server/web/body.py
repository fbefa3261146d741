"""What comes in and goes out: limited JSON, checked fields, checked queries, JSON answers."""

from __future__ import annotations

import gc
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from botwire_server.errors import Invalid, InvalidJson, TooLarge, WrongMediaType
from botwire_server.limits import CONTAINERS, DEPTH
from botwire_server.web.spool import Spooled, Spools

MANY_CONTAINERS = 10_000
LARGEST_AT_ONCE = 262_144

_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
# Levels that are taken off at the bottom of a nest at once, before its brackets are counted.
_PRUNED = 4
_BRACKETS = re.compile(rb"\[+|\]+")
_OPENING = ord("[")
_NO_OUTLINE = bytes(set(range(256)) - set(b'[]{}"'))

_NO_HEADERS: Mapping[str, str] = {}
_DIGIT = re.compile(rb"[0-9]")
_LONG_DIGITS = re.compile(rb"[0-9]{19}")
# An integer of so many digits: no part of a fraction or an exponent, and without one.
_LONG_INTEGER = re.compile(rb"(?<![0-9.eE+-])-?[0-9]{19,}+(?![.eE])")
_INT64 = range(-(2**63), 2**64)
MOST_PARAMETERS = 64


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
        ]
        for name, value in headers.items():
            self.raw_headers.append((name.lower().encode(), value.encode()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; what is large waits on the disk for who reads it slowly."""
        if len(self.body) <= LARGEST_AT_ONCE or "spools" not in scope:
            await super().__call__(scope, receive, send)
            return
        spools: Spools = scope["spools"]
        # What was stored is told in full; only what reads is refused.
        spool = spools.open(limited=scope["method"] in ("GET", "HEAD"))
        body, self.body = memoryview(self.body), b""
        with spool.kept():
            for start in range(0, len(body), LARGEST_AT_ONCE):
                await spool.write(body[start : start + LARGEST_AT_ONCE])
        del body
        await Spooled(spool, self.status_code, self.raw_headers)(scope, receive, send)


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
    if message.get("more_body", False):
        parts, size = [body], len(body)
        while message["type"] == "http.request" and message.get("more_body", False):
            if size > most:
                raise _too_large(most)
            message = await request.receive()
            parts.append(message.get("body", b""))
            size += len(parts[-1])
        body = b"".join(parts)
    if message["type"] != "http.request":
        raise ClientDisconnect
    if len(body) > most:
        raise _too_large(most)
    return body


def parse_json(body: bytes) -> Any:
    """Decode JSON that can be encoded again without loss; see `read_json`."""
    containers = body.count(b"[") + body.count(b"{")
    if containers > CONTAINERS:
        _refuse_many(body)
    # Of many new lists the garbage collector thinks that it must look for garbage among them,
    # again and again: that takes longer than the parsing.
    pausing = containers > MANY_CONTAINERS and gc.isenabled()
    if pausing:
        gc.disable()
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(
            f"The body is no valid JSON (line {error.lineno}, column {error.colno}).",
            where=("body",),
        ) from None
    finally:
        if pausing:
            gc.enable()
    if containers > DEPTH:
        _refuse_deep(body)
    # orjson reads 2^64 as a float. Only a body with so many digits in a row can hold such, and
    # they cover one of every nineteenth byte: looking there first is ten times as fast.
    if _DIGIT.search(body[18::19]) and _LONG_DIGITS.search(body):
        _refuse_big_integers(body)
    return value


def _too_large(most: int) -> TooLarge:
    return TooLarge(f"The body is larger than {most} bytes; send less at once.")


def _refuse_big_integers(body: bytes) -> None:
    for digits in _LONG_INTEGER.findall(_without_strings(body)):
        if len(digits) > 20 or int(digits) not in _INT64:
            raise Invalid(
                "The body holds an integer beyond 64 bits; send it as a string.", where=("body",)
            )


def _without_strings(json: bytes) -> bytes:
    """Valid JSON with nothing where its strings were."""
    if b"\\" in json:  # what is escaped ends no string
        json = json.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Two quotes in a row have nothing between them, whether they open or close.
    json = json.replace(b'""', b"")
    return b"".join(json.split(b'"')[::2]) if b'"' in json else json


def _refuse_many(body: bytes) -> None:
    """Count outside of strings, where a bracket is only a character."""
    outside = _without_strings(body)
    if outside.count(b"[") + outside.count(b"{") > CONTAINERS:
        raise Invalid(
            f"The body holds more than {CONTAINERS} lists and objects; send less at once.",
            where=("body",),
        )


def _refuse_deep(body: bytes) -> None:
    """Look at the brackets of valid JSON: ten times as fast as going through what it holds.

    Everybody waits meanwhile, and a megabyte has room for half a million lists.
    """
    if b"\\" in body:  # its characters must not be lost before the quotes behind them are
        body = _without_strings(body)
    outline = _without_strings(body.translate(_AS_SQUARE, _NO_OUTLINE))
    for _ in range(_PRUNED):
        outline = outline.replace(b"[]", b"")  # the empty ones, and so one level
    depth = _PRUNED
    for run in _BRACKETS.findall(outline):
        depth += len(run) if run[0] == _OPENING else -len(run)
        if depth > DEPTH + 1:
            raise Invalid(
                f"The body is nested deeper than {DEPTH} levels; flatten it.", where=("body",)
            )


def query(request: Request, *known: str, strict: bool) -> dict[str, str]:
    """The query's parameters among `known`. `strict` refuses others, as a write must.

    Keys go into paths unquoted, so that `k?x=1` arrives as key `k`: a write that ignored the
    rest would change another entry than the one that was meant.
    """
    raw: bytes = request.scope["query_string"]
    if not raw:
        return {}
    if raw.count(b"&") >= MOST_PARAMETERS:
        raise Invalid(f"The query may have {MOST_PARAMETERS} parameters.", where=("query",))
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict")
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
