"""The BotWire Memory dialect: routes, shapes and errors of the `botwire` client.

`--profile hosted` narrows it to what the hosted service accepts and answers.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from botwire_server import limits
from botwire_server.errors import (
    AnswerTooLarge,
    Conflict,
    Invalid,
    MethodNotAllowed,
    NotFound,
    Refusal,
)
from botwire_server.store import entries
from botwire_server.store.entries import NEWEST, Condition, Detail, Entry
from botwire_server.store.tenant import NamespaceRef, Tenant
from botwire_server.web.body import LARGEST_AT_ONCE, Json, header, read_json
from botwire_server.web.botwire.rules import (
    CONFIRM,
    HOSTED,
    IF_CHANGED,
    IF_MATCH,
    IF_NONE_MATCH,
    NATIVE,
    PREFIX,
    PURGE,
    Rules,
    Tags,
)
from botwire_server.web.description import (
    BOOLEAN,
    ETAG,
    NO_QUERY,
    SECONDS,
    STRING,
    WHOLE,
    Answer,
    Shape,
    listed,
    operation,
)
from botwire_server.web.dialect import STATUS, Dialect, Resource, headers_of, of_class
from botwire_server.web.fields import JSON
from botwire_server.web.listing import COUNT, Listed
from botwire_server.web.pieces import pieced
from botwire_server.web.shapes import TOTALS

STATUSES = {**STATUS, Conflict: 412}

STORED = Shape(
    "Stored", {"namespace": STRING, "key": STRING, "stored": {"const": True}, "bytes": WHOLE}
)
ENTRY = Shape(
    "Entry",
    {
        "namespace": STRING,
        "key": STRING,
        "value": JSON,
        "created_at": SECONDS,
        "updated_at": SECONDS,
        "expires_at": SECONDS,
    },
    optional=frozenset({"expires_at"}),
)
DELETED = Shape("Deleted", {"deleted": {"const": True}, "namespace": STRING, "key": STRING})
DETAIL = Shape("EntryDetail", {"key": STRING, "bytes": WHOLE, "updated_at": SECONDS})
LISTING = Shape(
    "Listing",
    {
        "namespace": STRING,
        "count": WHOLE,
        "keys": listed(STRING),
        "entries": listed(DETAIL),
        "cursor": STRING,
    },
    optional=frozenset({"cursor"}),
)
HOSTED_LISTING = Shape("Listing", {"namespace": STRING, "count": WHOLE, "keys": listed(DETAIL)})
PURGED = Shape(
    "PurgedNamespace",
    {
        "deleted": {"const": True},
        "namespace": STRING,
        **TOTALS,
    },
)
STATS = Shape("Stats", {"total_entries": WHOLE, "total_namespaces": WHOLE, "total_bytes": WHOLE})
HEALTH = Shape(
    "Health",
    {"status": {"const": "ok"}, "version": STRING, "embedder": STRING, "reembed_needed": BOOLEAN},
)
REFUSAL = Shape("BotwireRefusal", {"detail": STRING})


def dialect(*, hosted: bool) -> Dialect:
    """The dialect, with the rules of the hosted service or our wider ones."""
    rules = HOSTED if hosted else NATIVE
    handlers = _Handlers(rules)
    return Dialect(
        title="BotWire Memory",
        prefix="/",
        routes=[*_entries(handlers, rules), *_reports(handlers)],
        refuse=handlers.refuse,
        refusal=REFUSAL,
        statuses=STATUSES,
        public=frozenset({"/health"}),
    )


def _entries(handlers: _Handlers, rules: Rules) -> list[Resource]:
    path = (rules.namespace, rules.key)
    conflict = () if rules.hosted else (Conflict,)
    unchanged = Answer("It still has the ETag of If-None-Match.", headers={"ETag": ETAG})
    listing = HOSTED_LISTING if rules.hosted else LISTING
    return [
        Resource(
            "/memory/{namespace}/{key:path}",
            GET=operation(
                handlers.get,
                "get_entry",
                "Read an entry",
                path=path,
                headers=(IF_CHANGED,),
                answers={200: Answer("The entry.", ENTRY, {"ETag": ETAG}), 304: unchanged},
                refusals=(NotFound,),
            ),
            PUT=operation(
                handlers.put,
                "put_entry",
                "Store an entry",
                path=path,
                query=NO_QUERY,
                headers=rules.conditions,
                body=rules.entry,
                answers={200: Answer("It is stored.", STORED, {"ETag": ETAG}), **rules.wrong},
                refusals=conflict,
            ),
            DELETE=operation(
                handlers.delete,
                "delete_entry",
                "Delete an entry",
                path=path,
                query=NO_QUERY,
                headers=rules.conditions,
                answers={200: Answer("It is gone.", DELETED), **rules.wrong},
                refusals=(NotFound, *conflict),
            ),
        ),
        Resource(
            "/memory/{namespace}",
            GET=operation(
                handlers.listing,
                "list_entries",
                "List a namespace's keys, newest first",
                path=(rules.namespace,),
                query=rules.listing,
                answers={200: Answer("The keys.", listing), **rules.wrong},
                refusals=(AnswerTooLarge,),
            ),
            DELETE=operation(
                handlers.purge,
                "purge_namespace",
                "Remove a namespace with everything in it",
                path=(rules.namespace,),
                query=PURGE,
                answers={200: Answer("What it held.", PURGED), **rules.wrong},
                refusals=(NotFound, MethodNotAllowed),
            ),
        ),
    ]


def _reports(handlers: _Handlers) -> list[Resource]:
    return [
        Resource(
            "/stats/memory",
            GET=operation(
                handlers.stats,
                "get_stats",
                "What the tenant holds",
                answers={200: Answer("Of the namespaces that the key may read.", STATS)},
            ),
        ),
        Resource(
            "/health",
            GET=operation(
                handlers.health,
                "get_health",
                "Whether the server is alive",
                answers={200: Answer("It is.", HEALTH)},
            ),
        ),
    ]


class _Handlers:
    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._hosted = rules.hosted

    async def get(self, request: Request) -> Response:
        namespace, key = self._names(request)
        entry = await _namespace(request, namespace).read(entries.get, key)
        if entry is None:
            raise NotFound("There is no entry with this key in this namespace.")
        etag = _etag(entry)
        if_none_match = _tags(request, IF_CHANGED)
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
        if len(entry.value) > LARGEST_AT_ONCE:
            return await pieced(
                {**answer, "value": entry.value}, partial(Json, headers={"ETag": etag})
            )
        return Json(answer, headers={"ETag": etag})

    async def put(self, request: Request) -> Response:
        namespace, key = self._names(request)
        NO_QUERY.read(request)
        fields = await read_json(request)
        value = self._rules.value.of(fields)
        encoded = orjson.dumps(value)
        self._rules.value.refuse_larger(encoded, limits.VALUE)
        entry = await _namespace(request, namespace).write(
            entries.put,
            key,
            encoded,
            size=entries.size_of(value, encoded),
            ttl=None if self._rules.ttl is None else self._rules.ttl.of(fields),
            condition=self._condition(request),
        )
        return Json(
            {"namespace": namespace, "key": key, "stored": True, "bytes": entry.size},
            headers={"ETag": _etag(entry)},
        )

    async def delete(self, request: Request) -> Response:
        namespace, key = self._names(request)
        NO_QUERY.read(request)
        found = await _namespace(request, namespace).delete(
            entries.delete, key, condition=self._condition(request)
        )
        if not found:
            raise NotFound("There is no entry with this key in this namespace.")
        return Json({"deleted": True, "namespace": namespace, "key": key})

    async def listing(self, request: Request) -> Response:
        namespace = self._namespace_name(request)
        prefix, limit, cursor = self._page(request)
        listed = Listed(
            unit=entries.listing,
            asked={"prefix": prefix, "before": NEWEST if cursor is None else cursor},
            head={"namespace": namespace},
            arrays={"count": COUNT, "keys": _detail}
            if self._hosted
            else {"count": COUNT, "keys": _key, "entries": _detail},
            limit=limit,
            cursor=None if self._hosted else _cursor,
        )
        return await listed.answer(request, _namespace(request, namespace))

    async def purge(self, request: Request) -> Response:
        namespace = self._namespace_name(request)
        confirm = CONFIRM.of(PURGE.read(request))
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
        return self._namespace_name(request), self._rules.key.of(request.path_params)

    def _namespace_name(self, request: Request) -> str:
        # %2F arrives decoded: `a%2Fb` would be read as key `b` of namespace `a`.
        raw: bytes = request.scope["raw_path"]
        if b"%" in raw and b"%2f" in b"/".join(raw.split(b"/", 3)[:3]).lower():
            raise Invalid(
                "The namespace must not hold a slash here; the /v1 routes reach such ones.",
                where=("path", "namespace"),
            )
        return self._rules.namespace.of(request.path_params)

    def _condition(self, request: Request) -> Condition | None:
        if self._hosted:
            return None
        if_match = _tags(request, IF_MATCH)
        if_none_match = _tags(request, IF_NONE_MATCH)
        if if_match is None and if_none_match is None:
            return None

        def holds(entry: Entry | None) -> bool:
            etag = None if entry is None else _etag(entry)
            if if_match is not None and not (etag and _lists(if_match, etag)):
                return False
            return if_none_match is None or not (etag and _lists(if_none_match, etag, weak=True))

        return holds

    def _page(self, request: Request) -> tuple[str, int | None, int | None]:
        rules = self._rules
        found = rules.listing.read(request)
        limit = rules.limit.of(found) or rules.page
        cursor = None if rules.cursor is None else rules.cursor.of(found)
        return PREFIX.of(found) or "", limit, cursor


def _namespace(request: Request, name: str) -> NamespaceRef:
    tenant: Tenant = request.scope["tenant"]
    return tenant.namespace(name)


def _tags(request: Request, field: Tags) -> str | None:
    name = field.name
    return field.of({name: header(request, name.lower().encode())})


def _key(detail: Detail) -> str:
    return detail.key


def _detail(detail: Detail) -> dict[str, Any]:
    return {"key": detail.key, "bytes": detail.size, "updated_at": detail.updated_at}


def _cursor(detail: Detail) -> str:
    return f"r{detail.revision}"


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
