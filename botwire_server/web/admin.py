"""The operator API: what a product's back end needs to sign up and let go of its customers.

Only an operator's key gets in, and it reaches no tenant's data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from botwire_server.errors import (
    Forbidden,
    Internal,
    Invalid,
    MethodNotAllowed,
    NotFound,
    Refusal,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from botwire_server.store import keys
from botwire_server.store.operator import Operator
from botwire_server.tiers import UNLIMITED
from botwire_server.web.body import Json, query, read_json, text
from botwire_server.web.dialect import STATUS, Dialect, Resource, headers_of, of_class

CODES: dict[type[Refusal], str] = {
    Refusal: "REFUSED",
    Invalid: "INVALID",
    Unauthorized: "UNAUTHORIZED",
    Forbidden: "FORBIDDEN",
    NotFound: "NOT_FOUND",
    MethodNotAllowed: "METHOD_NOT_ALLOWED",
    TooLarge: "TOO_LARGE",
    Unavailable: "UNAVAILABLE",
    Internal: "INTERNAL",
}


def dialect(operator_of: Callable[[str], Operator]) -> Dialect:
    """The operator API; `operator_of` makes the operator of a key's id."""
    handlers = _Handlers(operator_of)
    base = "/admin/v1"
    tenant = base + "/tenants/{tenant}"
    return Dialect(
        prefix="/admin/",
        operator=True,
        routes=[
            Resource(base + "/tenants", GET=handlers.list_tenants, POST=handlers.create_tenant),
            Resource(tenant + "/keys", GET=handlers.list_keys, POST=handlers.create_key),
            Resource(
                tenant + "/namespaces",
                GET=handlers.list_namespaces,
                DELETE=handlers.purge_namespaces,
            ),
            Resource(tenant + "/usage", GET=handlers.tenant_usage),
            Resource(
                tenant,
                GET=handlers.show_tenant,
                PATCH=handlers.set_tier,
                DELETE=handlers.purge_tenant,
            ),
            Resource(base + "/keys", GET=handlers.list_keys),
            Resource(base + "/keys/{id}/rotate", POST=handlers.rotate_key),
            Resource(base + "/keys/{id}", DELETE=handlers.revoke_key),
            Resource(base + "/usage", GET=handlers.usage),
            Resource(base + "/audit", GET=handlers.audit),
        ],
        refuse=refuse,
    )


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


class _Handlers:
    def __init__(self, operator_of: Callable[[str], Operator]) -> None:
        self._operator_of = operator_of

    def _operator(self, request: Request) -> Operator:
        return self._operator_of(request.scope["operator"])

    async def list_tenants(self, request: Request) -> Response:
        return Json({"tenants": await self._operator(request).list_tenants()})

    async def create_tenant(self, request: Request) -> Response:
        query(request, strict=True)
        fields = await read_json(request)
        made = await self._operator(request).create_tenant(
            text(fields, "name") or "", tier=text(fields, "tier") or UNLIMITED
        )
        return Json(made, status_code=201)

    async def show_tenant(self, request: Request) -> Response:
        return Json(await self._operator(request).show_tenant(request.path_params["tenant"]))

    async def set_tier(self, request: Request) -> Response:
        query(request, strict=True)
        fields = await read_json(request)
        return Json(
            await self._operator(request).set_tier(
                request.path_params["tenant"], text(fields, "tier") or ""
            )
        )

    async def purge_tenant(self, request: Request) -> Response:
        name = request.path_params["tenant"]
        if query(request, "confirm", strict=True).get("confirm") != name:
            raise Invalid(
                "Repeat the tenant's name as ?confirm= to remove it with everything in it.",
                where=("query", "confirm"),
            )
        return Json(await self._operator(request).purge_tenant(name))

    async def list_namespaces(self, request: Request) -> Response:
        prefix = query(request, "prefix", strict=False).get("prefix", "")
        found = await self._operator(request).list_namespaces(
            request.path_params["tenant"], prefix=prefix
        )
        return Json({"namespaces": found})

    async def purge_namespaces(self, request: Request) -> Response:
        found = query(request, "name", "prefix", strict=True)
        tenant = request.path_params["tenant"]
        operator = self._operator(request)
        if ("name" in found) == ("prefix" in found):
            raise Invalid(
                "Say which namespaces to remove: either ?name= or ?prefix=.",
                where=("query", "name"),
            )
        if "name" in found:
            return Json(await operator.purge_namespace(tenant, found["name"]))
        return Json(await operator.purge_prefix(tenant, found["prefix"]))

    async def list_keys(self, request: Request) -> Response:
        tenant = request.path_params.get("tenant")
        return Json({"keys": await self._operator(request).list_keys(tenant)})

    async def create_key(self, request: Request) -> Response:
        query(request, strict=True)
        fields = await read_json(request)
        made = await self._operator(request).create_key(
            request.path_params["tenant"],
            label=text(fields, "label") or "",
            scopes=_scopes(fields),
            namespace=text(fields, "namespace") or keys.EVERYTHING,
            expires=text(fields, "expires"),
        )
        return Json(made, status_code=201)

    async def rotate_key(self, request: Request) -> Response:
        query(request, strict=True)
        fields = await read_json(request)
        made = await self._operator(request).rotate_key(
            request.path_params["id"], grace=text(fields, "grace")
        )
        return Json(made, status_code=201)

    async def revoke_key(self, request: Request) -> Response:
        query(request, strict=True)
        return Json(await self._operator(request).revoke_key(request.path_params["id"]))

    async def usage(self, request: Request) -> Response:
        return Json({"usage": await self._operator(request).usage()})

    async def tenant_usage(self, request: Request) -> Response:
        [found] = await self._operator(request).usage(request.path_params["tenant"])
        return Json(found)

    async def audit(self, request: Request) -> Response:
        tenant = query(request, "tenant", strict=False).get("tenant")
        return Json({"audit": await self._operator(request).audit(tenant)})


def _scopes(fields: dict[str, Any]) -> list[str]:
    scopes = fields.get("scopes") or []
    if not isinstance(scopes, list) or not all(isinstance(scope, str) for scope in scopes):
        raise Invalid(
            f"scopes must be a list of {', '.join(keys.SCOPES)}.", where=("body", "scopes")
        )
    return scopes
