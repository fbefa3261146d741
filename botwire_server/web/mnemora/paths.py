"""Paths with names in them that may hold anything, slashes included.

The client puts ids into paths as they are. Where that leaves two readings, the path with the
longest fixed ending that has the method wins; so a path that exists only for POST hides no agent
of that name. A slash sent as %2F always belongs to the name.
"""

from __future__ import annotations

from urllib.parse import unquote

from starlette.requests import Request
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from botwire_server.errors import Refusal
from botwire_server.store.tenant import NamespaceRef, Tenant
from botwire_server.web.dialect import Resource
from botwire_server.web.mnemora.envelope import refuse

# This client keeps connections beyond the event loop they belong to, and fails on the next one.
_REUSES_DEAD_CONNECTIONS = b"mnemora-sdk/0.1."


class Path(Resource):
    """A resource whose path is matched before it is decoded.

    A method it does not have is left to the resources behind it.
    """

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource.path, tag=resource.tag, **resource.operations)
        self.app = _closing(self.app)
        self._answers = {
            *resource.operations,
            *({"HEAD"} if "GET" in resource.operations else ()),
        }

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See `Route`."""
        found = self.path_regex.match(scope["raw_path"].decode("latin-1"))
        if found is None:
            return Match.NONE, {}
        params = {name: unquote(value) for name, value in found.groupdict().items()}
        known = scope["method"] in self._answers
        return Match.FULL if known else Match.PARTIAL, {"path_params": params}


def namespace(request: Request, agent_id: str) -> NamespaceRef:
    """The namespace of an agent, of the tenant who asks."""
    tenant: Tenant = request.scope["tenant"]
    return tenant.namespace(agent_id)


def _closing(app: ASGIApp) -> ASGIApp:
    """`app`, closing the connection after each answer for clients that cannot keep one."""

    async def closing(scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["header"].get(b"user-agent", b"").startswith(_REUSES_DEAD_CONNECTIONS):
            await app(scope, receive, send)
            return

        async def last(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            await app(scope, receive, last)
        except Refusal as error:
            scope["refused"] = error
            await refuse(error, scope["request_id"])(scope, receive, last)

    return closing
