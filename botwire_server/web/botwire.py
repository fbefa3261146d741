"""The BotWire Memory dialect: routes, shapes and errors of the `botwire` client.

`--profile hosted` narrows it to what the hosted service accepts and answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from botwire_server.errors import Conflict, Invalid, MethodNotAllowed, NotFound, Refusal
from botwire_server.store import entries, names
from botwire_server.store.entries import Condition, Entry
from botwire_server.store.tenant import NamespaceRef, Tenant
from botwire_server.web.body import Json, header, number, query, query_number, read_json
from botwire_server.web.dialect import STATUS, Dialect, Resource, headers_of, of_class

LONGEST_TTL = 100 * 365 * 86_400
LONGEST_PAGE = 10_000

STATUSES = {**STATUS, Conflict: 412}


@dataclass(frozen=True)
class Hosted:
    """The hosted service's rules."""

    namespace = re.compile("[A-Za-z0-9_-]{1,64}")
    key = re.compile("[A-Za-z0-9_.-]{1,128}")
    longest_value = 100_000
    page = 100
    longest_page = 1_000


def dialect(*, hosted: bool) -> Dialect:
    """The dialect, with the rules of the hosted service or our wider ones."""
    handlers = _Handlers(Hosted() if hosted else None)
    return Dialect(
        prefix="/",
        routes=[
            Resource(
                "/memory/{namespace}/{key:path}",
                GET=handlers.get,
                PUT=handlers.put,
                DELETE=handlers.delete,
            ),
            Resource("/memory/{namespace}", GET=handlers.listing, DELETE=handlers.purge),
            Resource("/stats/memory", GET=handlers.stats),
            Resource("/health", GET=handlers.health),
        ],
        refuse=handlers.refuse,
        public=frozenset({"/health"}),
    )


class _Handlers:
    def __init__(self, hosted: Hosted | None) -> None:
        self._hosted = hosted

    async def get(self, request: Request) -> Response:
        namespace, key = self._names(request)
        entry = await _namespace(request, namespace).read(entries.get, key)
        if entry is None:
            raise NotFound("There is no entry with this key in this namespace.")
        etag = _etag(entry)
        if_none_match = header(request, b"if-none-match")
        if if_none_match is not None and _lists(if_none_match, etag, weak=True):
            return Response(status_code=304, headers={"ETag": etag})
        answer: dict[str, Any] = {
            "namespace": namespace,
            "key": key,
            "value": orjson.Fragment(entry.value),
            "created_at": entry.created_at,
            "updated_at": entry.updated_at,
        }
        if entry.expires_at is not None:
            answer["expires_at"] = entry.expires_at
        return Json(answer, headers={"ETag": etag})

    async def put(self, request: Request) -> Response:
        namespace, key = self._names(request)
        query(request, strict=True)
        fields = await read_json(request)
        value = self._value(fields)
        encoded = orjson.dumps(value)
        entry = await _namespace(request, namespace).write(
            entries.put,
            key,
            encoded,
            size=entries.size_of(value, encoded),
            ttl=None if self._hosted else _ttl(fields),
            condition=self._condition(request),
        )
        return Json(
            {"namespace": namespace, "key": key, "stored": True, "bytes": entry.size},
            headers={"ETag": _etag(entry)},
        )

    async def delete(self, request: Request) -> Response:
        namespace, key = self._names(request)
        query(request, strict=True)
        found = await _namespace(request, namespace).delete(
            entries.delete, key, condition=self._condition(request)
        )
        if not found:
            raise NotFound("There is no entry with this key in this namespace.")
        return Json({"deleted": True, "namespace": namespace, "key": key})

    async def listing(self, request: Request) -> Response:
        namespace = self._namespace_name(request)
        prefix, limit, cursor = self._page(request)
        page = await _namespace(request, namespace).read(
            entries.listing, prefix=prefix, limit=limit, cursor=cursor
        )
        details = orjson.Fragment(page.entries)
        if self._hosted:
            return Json({"namespace": namespace, "count": page.count, "keys": details})
        answer = {
            "namespace": namespace,
            "count": page.count,
            "keys": orjson.Fragment(page.keys),
            "entries": details,
        }
        if page.cursor is not None:
            answer["cursor"] = f"r{page.cursor}"
        return Json(answer)

    async def purge(self, request: Request) -> Response:
        namespace = self._namespace_name(request)
        confirm = query(request, "confirm", strict=True).get("confirm")
        if self._hosted or confirm != namespace:
            raise MethodNotAllowed(
                "A namespace is not deleted by this alone: repeat its name as ?confirm= to remove "
                "it with everything in it.",
                allowed=("GET",),
            )
        held = await _namespace(request, namespace).purge()
        if held is None:
            raise NotFound("There is no such namespace.")
        return Json({"deleted": True, "namespace": namespace, **held._asdict()})

    async def stats(self, request: Request) -> Response:
        tenant: Tenant = request.scope["tenant"]
        namespaces, held = await tenant.totals()
        return Json(
            {
                "total_entries": held.entries,
                "total_namespaces": namespaces,
                "total_bytes": held.bytes,
            }
        )

    async def health(self, request: Request) -> Response:
        return Json(request.scope["health"]())

    def refuse(self, error: Refusal, request_id: str) -> Response:
        """`{"detail": "<sentence>"}`; a wrong body is a 422 list in the hosted service."""
        status = of_class(error, STATUSES)
        detail: Any = error.message
        if (
            self._hosted
            and status == 400
            and isinstance(error, Invalid)
            and error.where[:1] in (("body",), ("query",))
        ):
            status = 422
            detail = [{"type": "value_error", "loc": error.where, "msg": error.message}]
        return Json({"detail": detail}, status_code=status, headers=headers_of(error))

    def _names(self, request: Request) -> tuple[str, str]:
        namespace = self._namespace_name(request)
        key: str = request.path_params["key"]
        names.check(key, "key", longest=names.LONGEST_KEY)
        if self._hosted and not self._hosted.key.fullmatch(key):
            raise Invalid(
                "The key may have 1 to 128 letters, digits, and . _ - only (hosted profile).",
                where=("path", "key"),
            )
        return namespace, key

    def _namespace_name(self, request: Request) -> str:
        name: str = request.path_params["namespace"]
        # %2F arrives decoded: `a%2Fb` would be read as key `b` of namespace `a`.
        raw: bytes = request.scope["raw_path"]
        if b"%" in raw and b"%2f" in b"/".join(raw.split(b"/", 3)[:3]).lower():
            raise Invalid(
                "The namespace must not hold a slash here; the /v1 routes reach such ones.",
                where=("path", "namespace"),
            )
        if self._hosted and not self._hosted.namespace.fullmatch(name):
            raise Invalid(
                "The namespace may have 1 to 64 letters, digits, and _ - only (hosted profile).",
                where=("path", "namespace"),
            )
        return name

    def _value(self, fields: Mapping[str, Any]) -> Any:
        if "value" not in fields:
            raise Invalid('The body needs a "value".', where=("body", "value"))
        value = fields["value"]
        if self._hosted:
            if not isinstance(value, str):
                raise Invalid("value must be a string (hosted profile).", where=("body", "value"))
            if len(value) > self._hosted.longest_value:
                # 400 there, unlike other faults of the body.
                raise Invalid(f"The value has more than {self._hosted.longest_value} characters.")
        return value

    def _condition(self, request: Request) -> Condition | None:
        if_match = header(request, b"if-match")
        if_none_match = header(request, b"if-none-match")
        if self._hosted or (if_match is None and if_none_match is None):
            return None

        def holds(entry: Entry | None) -> bool:
            etag = None if entry is None else _etag(entry)
            if if_match is not None and not (etag and _lists(if_match, etag)):
                return False
            return if_none_match is None or not (etag and _lists(if_none_match, etag, weak=True))

        return holds

    def _page(self, request: Request) -> tuple[str, int | None, int | None]:
        if self._hosted:
            found = query(request, "limit", strict=False)
            most = self._hosted.longest_page
            limit = query_number(found, "limit", least=1, most=most)
            return "", limit or self._hosted.page, None
        found = query(request, "prefix", "limit", "cursor", strict=False)
        limit = query_number(found, "limit", least=1, most=LONGEST_PAGE)
        cursor = found.get("cursor")
        if cursor is not None and not re.fullmatch("r[0-9]{1,18}", cursor):
            raise Invalid(
                "cursor must be one that an earlier answer gave.", where=("query", "cursor")
            )
        return found.get("prefix", ""), limit, None if cursor is None else int(cursor[1:])


def _namespace(request: Request, name: str) -> NamespaceRef:
    tenant: Tenant = request.scope["tenant"]
    return tenant.namespace(name)


def _ttl(fields: Mapping[str, Any]) -> float | None:
    ttl = number(fields, "ttl_seconds", least=0, most=LONGEST_TTL)
    if ttl is not None and ttl <= 0:
        raise Invalid("ttl_seconds must be more than 0.", where=("body", "ttl_seconds"))
    return ttl


def _etag(entry: Entry) -> str:
    # The time keeps apart the revisions of a namespace that was removed and begun anew.
    return f'"{int(entry.updated_at * 1e6):x}-{entry.revision:x}"'


def _lists(header: str, etag: str, *, weak: bool = False) -> bool:
    """Whether an If-Match or If-None-Match header names this ETag."""
    for item in header.split(","):
        item = item.strip()
        if weak:
            item = item.removeprefix("W/")
        if item in ("*", etag):
            return True
    return False
