"""What every /v1 answer is wrapped in, and how this dialect says no.

A success is `{"data", "meta": {"request_id", "latency_ms"}}`, a refusal is
`{"error": {"code", "message"}, "meta": {"request_id"}}`; the client breaks on any other shape.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from botwire_server.errors import (
    AnswerTooLarge,
    Conflict,
    Damaged,
    Forbidden,
    Internal,
    Invalid,
    InvalidJson,
    Misdirected,
    NotFound,
    QuotaExceeded,
    Refusal,
    TooExpensive,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from botwire_server.web.body import Json
from botwire_server.web.description import NUMBER, STRING, Answer, Shape
from botwire_server.web.dialect import STATUS, headers_of, of_class
from botwire_server.web.fields import Schema


class Unroutable(Invalid):
    """The body has the shape of no kind of memory."""


# The contract knows no other codes but NAMESPACE_DAMAGED and TOO_EXPENSIVE: the status says the
# rest.
CODES: Mapping[type[Refusal], str] = {
    Invalid: "VALIDATION_ERROR",
    InvalidJson: "INVALID_JSON",
    Unroutable: "UNROUTABLE_PAYLOAD",
    Unauthorized: "UNAUTHORIZED",
    Forbidden: "FORBIDDEN",
    Misdirected: "FORBIDDEN",
    NotFound: "NOT_FOUND",
    Conflict: "VERSION_CONFLICT",
    TooLarge: "PAYLOAD_TOO_LARGE",
    TooExpensive: "TOO_EXPENSIVE",
    AnswerTooLarge: "PAYLOAD_TOO_LARGE",
    QuotaExceeded: "RATE_LIMITED",
    Unavailable: "INTERNAL_ERROR",
    Damaged: "NAMESPACE_DAMAGED",
    Internal: "INTERNAL_ERROR",
    Refusal: "VALIDATION_ERROR",
}


META = Shape("Meta", {"request_id": STRING, "latency_ms": NUMBER})
SEARCH_META = META.extended(
    "SearchMeta",
    mode={"enum": ["hybrid", "vector", "keyword"], "description": "How it was found."},
    notice={"type": "string", "description": "Why not as it was asked for."},
)
SEARCH_META = replace(SEARCH_META, optional=frozenset({"notice"}))
REFUSAL = Shape(
    "MnemoraRefusal",
    {
        "error": Shape(
            "MnemoraError",
            {"code": {"type": "string", "enum": sorted(set(CODES.values()))}, "message": STRING},
        ),
        "meta": Shape("RefusalMeta", {"request_id": STRING}),
    },
)


def wrapped(data: Shape | Schema, *, help: str = "", meta: Shape = META) -> Answer:
    """An answer of this dialect with `data` in it."""
    return Answer(
        help or "Done.",
        {
            "type": "object",
            "properties": {"data": data, "meta": meta},
            "required": ["data", "meta"],
        },
    )


def success(
    request: Request, data: Any, status: int = 200, *, meta: Mapping[str, Any] | None = None
) -> Json:
    """Wrap `data`; it may hold `orjson.Fragment`s. `meta` is added to the answer's own."""
    latency = (time.perf_counter() - request.scope["started"]) * 1000
    own = {"request_id": request.scope["request_id"], "latency_ms": round(latency, 2)}
    return Json({"data": data, "meta": own if meta is None else {**own, **meta}}, status)


def refuse(error: Refusal, request_id: str) -> Response:
    """The answer for a refusal."""
    return Json(
        {
            "error": {"code": of_class(error, CODES), "message": error.message},
            "meta": {"request_id": request_id},
        },
        of_class(error, STATUS),
        headers_of(error),
    )


def iso(seconds: float) -> str:
    """Unix seconds as 2026-11-20T10:46:51.123456+00:00."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def iso_or_none(seconds: float | None) -> str | None:
    """`iso`, and None for None."""
    return None if seconds is None else iso(seconds)
