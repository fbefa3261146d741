"""The operator API: what a product's back end needs to sign up and let go of its customers.

Only an operator's key gets in, and it reaches no tenant's data.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response

from botwire_server.errors import (
    Forbidden,
    Internal,
    Invalid,
    MethodNotAllowed,
    NotFound,
    QuotaExceeded,
    Refusal,
    TooExpensive,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from botwire_server.store import keys
from botwire_server.store.deadlines import Deadline
from botwire_server.store.operator import Operator, Pages
from botwire_server.tiers import UNLIMITED
from botwire_server.web.admin import definitions as d
from botwire_server.web.body import Json, read_json
from botwire_server.web.description import NO_QUERY, Answer, operation
from botwire_server.web.dialect import STATUS, Dialect, Resource, headers_of, of_class
from botwire_server.web.pieces import pieced

BASE = "/admin/v1"
TENANT = BASE + "/tenants/{tenant}"

CODES: dict[type[Refusal], str] = {
    Refusal: "REFUSED",
    Invalid: "INVALID",
    Unauthorized: "UNAUTHORIZED",
    Forbidden: "FORBIDDEN",
    NotFound: "NOT_FOUND",
    MethodNotAllowed: "METHOD_NOT_ALLOWED",
    TooLarge: "TOO_LARGE",
    TooExpensive: "TOO_EXPENSIVE",
    QuotaExceeded: "RATE_LIMITED",
    Unavailable: "UNAVAILABLE",
    Internal: "INTERNAL",
}


def dialect(operator_of: Callable[[str, Deadline], Operator]) -> Dialect:
    """The operator API; `operator_of` makes the operator of a key's id."""
    handlers = _Handlers(operator_of)
    return Dialect(
        title="Operator API",
        prefix="/admin/",
        operator=True,
        routes=[*_tenants(handlers), *_keys(handlers), *_reports(handlers)],
        refuse=refuse,
        refusal=d.REFUSAL,
    )


def _tenants(handlers: _Handlers) -> list[Resource]:
    path = (d.TENANT,)
    return [
        Resource(
            BASE + "/tenants",
            GET=operation(
                handlers.list_tenants,
                "list_tenants",
                "List the tenants with what they hold",
                answers={200: d.list_of("tenants", d.HELD)},
            ),
            POST=operation(
                handlers.create_tenant,
                "create_tenant",
                "Make a tenant",
                query=NO_QUERY,
                body=d.NEW_TENANT,
                answers={201: Answer("The tenant.", d.SHOWN)},
            ),
        ),
        Resource(
            TENANT + "/namespaces",
            GET=operation(
                handlers.list_namespaces,
                "list_namespaces",
                "List a tenant's namespaces with what they hold",
                path=path,
                query=d.LISTED,
                answers={200: d.list_of("namespaces", d.NAMESPACE)},
                refusals=(NotFound,),
            ),
            DELETE=operation(
                handlers.purge_namespaces,
                "purge_namespaces",
                "Remove a tenant's namespaces for good",
                notes="Either name or prefix says which.",
                path=path,
                query=d.PURGE,
                answers={200: Answer("The receipt.", d.RECEIPT)},
                refusals=(NotFound,),
            ),
        ),
        Resource(
            TENANT,
            GET=operation(
                handlers.show_tenant,
                "get_tenant",
                "Read what a tenant holds, and its keys",
                path=path,
                answers={200: Answer("The tenant.", d.SHOWN)},
                refusals=(NotFound,),
            ),
            PATCH=operation(
                handlers.set_tier,
                "set_tier",
                "Give a tenant another tier",
                path=path,
                query=NO_QUERY,
                body=d.CHANGE,
                answers={200: Answer("The tenant.", d.SHOWN)},
                refusals=(NotFound,),
            ),
            DELETE=operation(
                handlers.purge_tenant,
                "purge_tenant",
                "Remove a tenant with everything it has, for good",
                path=path,
                query=d.PURGE_TENANT,
                answers={200: Answer("The receipt.", d.RECEIPT)},
                refusals=(NotFound,),
            ),
        ),
    ]


def _keys(handlers: _Handlers) -> list[Resource]:
    return [
        Resource(
            TENANT + "/keys",
            GET=operation(
                handlers.list_keys,
                "list_tenant_keys",
                "List a tenant's keys",
                path=(d.TENANT,),
                answers={200: d.list_of("keys", d.KEY)},
                refusals=(NotFound,),
            ),
            POST=operation(
                handlers.create_key,
                "create_key",
                "Make a key of a tenant",
                path=(d.TENANT,),
                query=NO_QUERY,
                body=d.NEW_KEY,
                answers={201: Answer("The key.", d.MADE_KEY)},
                refusals=(NotFound,),
            ),
        ),
        Resource(
            BASE + "/keys",
            GET=operation(
                handlers.list_keys,
                "list_keys",
                "List all keys",
                answers={200: d.list_of("keys", d.KEY)},
            ),
        ),
        Resource(
            BASE + "/keys/{id}/rotate",
            POST=operation(
                handlers.rotate_key,
                "rotate_key",
                "Replace a key by a new one",
                path=(d.KEY_ID,),
                query=NO_QUERY,
                body=d.ROTATION,
                answers={201: Answer("The new key.", d.ROTATED_KEY)},
                refusals=(NotFound,),
            ),
        ),
        Resource(
            BASE + "/keys/{id}",
            DELETE=operation(
                handlers.revoke_key,
                "revoke_key",
                "Let a key work no longer",
                path=(d.KEY_ID,),
                query=NO_QUERY,
                answers={200: Answer("The key.", d.KEY)},
                refusals=(NotFound,),
            ),
        ),
    ]


def _reports(handlers: _Handlers) -> list[Resource]:
    return [
        Resource(
            TENANT + "/usage",
            GET=operation(
                handlers.tenant_usage,
                "get_tenant_usage",
                "What a tenant has used and holds, by key and by day",
                path=(d.TENANT,),
                answers={200: Answer("The usage.", d.TENANT_USAGE)},
                refusals=(NotFound,),
            ),
        ),
        Resource(
            BASE + "/usage",
            GET=operation(
                handlers.usage,
                "list_usage",
                "The usage of all tenants",
                answers={200: d.list_of("usage", d.TENANT_USAGE)},
            ),
        ),
        Resource(
            BASE + "/audit",
            GET=operation(
                handlers.audit,
                "list_audit",
                "What was done, oldest first",
                query=d.AUDITED,
                answers={200: d.list_of("audit", d.AUDIT)},
                refusals=(NotFound,),
            ),
        ),
    ]


def refuse(error: Refusal, request_id: str) -> Response:
    """`{"error": {"code", "message"}, "request_id"}`."""
    status = of_class(error, STATUS)
    return Json(
        {
            "error": {"code": of_class(error, CODES), "message": error.message},
            "request_id": request_id,
        },
        status_code=status,
        headers=headers_of(error),
    )


async def listed(name: str, pages: Pages) -> Json:
    """A list of any length as an answer: each page is made while others are served."""
    parts = [b"["]
    async for page in pages:
        parts += [b"," if len(parts) > 1 else b"", page[1:-1]]
    return await pieced({name: (*parts, b"]")}, Json, limited=False)


class _Handlers:
    def __init__(self, operator_of: Callable[[str, Deadline], Operator]) -> None:
        self._operator_of = operator_of

    def _operator(self, request: Request) -> Operator:
        return self._operator_of(request.scope["operator"], request.scope["deadline"])

    async def list_tenants(self, request: Request) -> Response:
        return await listed("tenants", self._operator(request).tenants())

    async def create_tenant(self, request: Request) -> Response:
        NO_QUERY.read(request)
        fields = await read_json(request)
        made = await self._operator(request).create_tenant(
            d.NAME.of(fields) or "", tier=d.TIER.of(fields) or UNLIMITED
        )
        return Json(made, status_code=201)

    async def show_tenant(self, request: Request) -> Response:
        return Json(await self._operator(request).show_tenant(d.TENANT.of(request.path_params)))

    async def set_tier(self, request: Request) -> Response:
        NO_QUERY.read(request)
        fields = await read_json(request)
        return Json(
            await self._operator(request).set_tier(
                d.TENANT.of(request.path_params), d.NEW_TIER.of(fields) or ""
            )
        )

    async def purge_tenant(self, request: Request) -> Response:
        name = d.TENANT.of(request.path_params)
        if d.CONFIRM.of(d.PURGE_TENANT.read(request)) != name:
            raise d.CONFIRM.refusal(
                "Repeat the tenant's name as ?confirm= to remove it with everything in it."
            )
        return Json(await self._operator(request).purge_tenant(name))

    async def list_namespaces(self, request: Request) -> Response:
        prefix = d.PREFIX.of(d.LISTED.read(request)) or ""
        tenant = d.TENANT.of(request.path_params)
        return await listed("namespaces", self._operator(request).namespaces(tenant, prefix=prefix))

    async def purge_namespaces(self, request: Request) -> Response:
        found = d.PURGE.read(request)
        tenant = d.TENANT.of(request.path_params)
        operator = self._operator(request)
        name, prefix = d.ONE.of(found), d.MANY.of(found)
        if (name is None) == (prefix is None):
            raise d.ONE.refusal("Say which namespaces to remove: either ?name= or ?prefix=.")
        if name is not None:
            return Json(await operator.purge_namespace(tenant, name))
        return Json(await operator.purge_prefix(tenant, prefix or ""))

    async def list_keys(self, request: Request) -> Response:
        given = request.path_params
        tenant = d.TENANT.of(given) if "tenant" in given else None
        return await listed("keys", self._operator(request).keys(tenant))

    async def create_key(self, request: Request) -> Response:
        NO_QUERY.read(request)
        fields = await read_json(request)
        made = await self._operator(request).create_key(
            d.TENANT.of(request.path_params),
            label=d.LABEL.of(fields) or "",
            scopes=d.SCOPES.of(fields),
            namespace=d.PATTERN.of(fields) or keys.EVERYTHING,
            expires=d.EXPIRES.of(fields),
        )
        return Json(made, status_code=201)

    async def rotate_key(self, request: Request) -> Response:
        NO_QUERY.read(request)
        fields = await read_json(request)
        made = await self._operator(request).rotate_key(
            d.KEY_ID.of(request.path_params), grace=d.GRACE.of(fields)
        )
        return Json(made, status_code=201)

    async def revoke_key(self, request: Request) -> Response:
        NO_QUERY.read(request)
        return Json(await self._operator(request).revoke_key(d.KEY_ID.of(request.path_params)))

    async def usage(self, request: Request) -> Response:
        return await listed("usage", self._operator(request).usages())

    async def tenant_usage(self, request: Request) -> Response:
        tenant = d.TENANT.of(request.path_params)
        return Json(await self._operator(request).usage_of(tenant))

    async def audit(self, request: Request) -> Response:
        tenant = d.OF_TENANT.of(d.AUDITED.read(request))
        return await listed("audit", self._operator(request).audited(tenant))
