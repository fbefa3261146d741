"""The application: who may come in, which dialect answers, what is logged.

Every request goes the same way: request id, credentials, route, answer, line in the log.
"""

from __future__ import annotations

import itertools
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import Message, Receive, Scope, Send

from botwire_server import __version__, tiers
from botwire_server.addresses import public_url
from botwire_server.config import Config
from botwire_server.embedding import NONE, Measured, embedder
from botwire_server.errors import (
    Internal,
    NotFound,
    QuotaExceeded,
    Refusal,
    Unavailable,
    Unusable,
    WrongKey,
)
from botwire_server.heartbeat import Heartbeat
from botwire_server.logs import describe
from botwire_server.logs import request_id as current_request
from botwire_server.metrics import LoopCounters, Requests
from botwire_server.store import chores, reembedding
from botwire_server.store.accepting import accept
from botwire_server.store.compacting import compact
from botwire_server.store.deadlines import Deadline
from botwire_server.store.directory import DataDirectory
from botwire_server.store.driver import Clock
from botwire_server.store.housekeeping import Housekeeping
from botwire_server.store.operator import Operator
from botwire_server.store.pool import capacity
from botwire_server.store.readiness import Prober, Readiness
from botwire_server.store.registry import DEFAULT_TENANT
from botwire_server.summarizer import summarizer
from botwire_server.web import admin, botwire, docs, metrics, mnemora, origins, ready
from botwire_server.web.auth import Door
from botwire_server.web.callers import Failures, Proxies
from botwire_server.web.dialect import Dialect
from botwire_server.web.observatory import Observatory, listens_at
from botwire_server.web.paths import normalize
from botwire_server.web.request_log import RequestLog
from botwire_server.web.spool import Spools

log = logging.getLogger(__name__)

# What nginx writes for a client that went away; nobody reads this answer.
CLIENT_GONE = 499
QUOTA = 429
# What a client or a proxy may call its request in our answers and log lines: nothing that a line
# of a log could be forged with, and nothing as long as an API key.
_REQUEST_ID = re.compile(rb"[0-9A-Za-z._-]{1,64}")
# A command may hold the data directory for a moment while a server starts.
LOCK_SECONDS = 2.0


def create_app(
    config: Config,
    *,
    clock: Clock = time.time,
    request_log: RequestLog | None = None,
    local: bool | None = None,
) -> App:
    """An application over `config.data_dir`, which is opened with the server and closed with it.

    `local` is whether only this machine reaches it, where that is not for `config.host` to say.
    """
    return App(config, clock=clock, request_log=request_log, local=local)


class App:
    """The ASGI application. `dialects` are tried in order by prefix; the last takes every path."""

    def __init__(
        self, config: Config, *, clock: Clock, request_log: RequestLog | None, local: bool | None
    ) -> None:
        self.config = config
        self.local = config.loopback if local is None else local
        # Where clients find it, whatever it listens on.
        self.public_url = public_url(config.public_url, setting="--public-url")
        self._summarizer = summarizer(config.summarizer, config.summarizer_key)
        self._embedder = Measured(embedder(config.embedder, config.embedder_key))
        self._spools = Spools(config.data_dir, most_bytes=config.max_answer_bytes)
        self.requests = Requests(tenants=config.metrics_tenants)
        # How many connections there are, where the server tells.
        self.connections: Callable[[], int] = int
        self.loop = LoopCounters()
        self.stopping = False
        operators = admin.dialect(self._operator)
        self._metrics = metrics.dialect(
            self._sources,
            tenants=config.metrics_tenants,
            refuse=operators.refuse,
            refusal=operators.refusal,
        )
        shown_here = config.metrics == "on"
        # Where the figures have an address of their own, what answers there.
        self.metrics_address = listens_at(config.metrics)
        self.observatory = Observatory(
            page=metrics.Page(self._sources, tenants=config.metrics_tenants),
            health=self._health,
            state=self._state,
            new_id=self._new_id,
            local=self.metrics_address is not None and self.metrics_address.local,
        )
        apis = [
            operators,
            ready.dialect(self._state),
            *([self._metrics] if shown_here else []),
            mnemora.dialect(
                checkpoint_ids=config.checkpoint_rule == "id", summarizer=self._summarizer
            ),
            botwire.dialect(hosted=config.profile == "hosted"),
        ]
        about = apis[-1]
        documents = (
            []
            if config.no_docs
            else docs.dialects(
                apis, refuse=about.refuse, refusal=about.refusal, public_url=self.public_url
            )
        )
        self.dialects: Sequence[Dialect] = [*documents, *apis]
        self._clock = clock
        self._origins = origins.Origins(config.allow_origin)
        self._proxies = Proxies(config.trusted_proxy)
        self.failures = Failures(clock)
        self._request_log = request_log
        self.directory: DataDirectory
        self._door: Door
        self._prober: Prober
        # Why it could not start.
        self.failure: Unusable | None = None
        self._public = frozenset[str]().union(*(dialect.public for dialect in self.dialects))
        self._router = Router(
            # Prefixes keep them apart; those that are asked most are tried first.
            [resource for dialect in reversed(self.dialects) for resource in dialect.routes],
            redirect_slashes=False,
            default=_no_route,
        )
        boot = secrets.token_hex(4)
        self._request_ids = (f"{boot}{number:08x}" for number in itertools.count(1))
        self._by_tenant = config.metrics_tenants

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request, or the lifespan."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)

    def refuse(
        self, path: str, error: Refusal, status: int, scope: MutableMapping[str, Any] | None = None
    ) -> Response:
        """The answer for a request that was refused on its way in, in the dialect of the path.

        `scope` is its request's, where its head had come: then the request is counted when it
        ends. Otherwise it is counted here.
        """
        request_id = "" if scope is None else scope.get("request_id", "")
        if not request_id:
            request_id = self._new_id()
        if scope is None:
            self._note("-", "-", status, 0.0, request_id)
        else:
            scope["request_id"] = request_id
            scope["rejected"] = status
        response = self._refusal(path, error, request_id)
        response.raw_headers.append((b"x-request-id", request_id.encode()))
        sent = [] if scope is None else scope["headers"]
        origin = self._origins.asking(sent, dict(sent), is_open=self._door.is_open)
        response.raw_headers += self._origins.readable(origin)
        return response

    def _refusal(self, path: str, error: Refusal, request_id: str) -> Response:
        path = "/" + path.lstrip("/")
        return self._dialect(path).refuse(error, request_id)

    def _new_id(self) -> str:
        return next(self._request_ids)

    def _note(self, method: str, route: str, status: int, seconds: float, id: str) -> None:
        self.requests.add(method, route, status, seconds)
        if self._request_log is not None:
            self._request_log.add(method, route, status, seconds, id)

    def _dialect(self, path: str) -> Dialect:
        for dialect in self.dialects:
            if path.startswith(dialect.prefix):
                return dialect
        return self.dialects[-1]

    def _operator(self, key_id: str, deadline: Deadline | None = None) -> Operator:
        """What the operator with this key may do."""
        directory = self.directory
        return Operator(
            directory.registry,
            self._door.tiers,
            actor=key_id,
            finish_purge=directory.finish_purge,
            settle=directory.settle,
            deadline=deadline,
        )

    def _health(self) -> dict[str, Any]:
        """What every dialect says of this server to whoever asks.

        Namespaces that wait for `reembed` are searched by keywords until it is through. How many
        they are is nobody's business.
        """
        return {
            "status": "ok",
            "version": __version__,
            "embedder": self._embedder.name,
            "reembed_needed": self._waiting(),
        }

    async def _state(self) -> ready.State:
        """What `/ready` says."""
        if self.stopping:
            found = Readiness(registry=True, disk=True)
        else:
            found = await self._prober.look()
        embedder = "failing" if self._embedder.counters.failing else "ok"
        return ready.State(
            stopping=self.stopping,
            registry=found.registry,
            disk=found.disk,
            embedder=NONE if self._embedder.name == NONE else embedder,
            reembed_needed=found.registry and not self.stopping and self._waiting(),
        )

    def _waiting(self) -> bool:
        model = self._embedder.name
        try:
            return model != NONE and self.directory.registry.any_waiting(model)
        except Unavailable:  # that is for /ready to tell
            return False

    def _sources(self) -> metrics.Sources:
        """What `/metrics` tells of."""
        return metrics.Sources(
            requests=self.requests,
            directory=self.directory,
            embedder=self._embedder.counters,
            embedder_name=self._embedder.name,
            connections=self.connections(),
            loop=self.loop,
            failed_keys=self.failures.count,
        )

    async def _admit(self, scope: Scope, header: Mapping[bytes, bytes]) -> None:
        """Let in who may come in; count who shows a key that does not work."""
        try:
            await self._identify(scope, header)
        except WrongKey:
            self.failures.add(self._proxies.caller(scope))
            raise

    async def _identify(self, scope: Scope, header: Mapping[bytes, bytes]) -> None:
        """Find out who asks, before any route is looked at: `tenant` or `operator`."""
        path = scope["path"]
        dialect = self._dialect(path)
        if path in dialect.public:
            self._door.admit_anybody(scope["headers"], header)
            scope["health"] = self._health
        elif dialect.operator:
            if dialect is self._metrics:
                self._door.admit_scraper(scope["headers"], header)
            else:
                scope["operator"] = self._door.admit_operator(scope["headers"], header)
                scope["deadline"] = Deadline(self.directory.readers)
        else:
            tenant = scope["tenant"] = await self._door.admit(scope["headers"], header)
            scope["deadline"] = tenant.deadline
        # For the connection: who was let in keeps a place longer.
        scope["admitted"] = path not in dialect.public

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        header = dict(scope["headers"])
        sent_id = header.get(b"x-request-id")
        if sent_id is not None and _REQUEST_ID.fullmatch(sent_id):
            request_id = sent_id.decode()
        else:
            request_id = next(self._request_ids)
        current_request.set(request_id)
        origin = self._origins.asking(scope["headers"], header, is_open=self._door.is_open)
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode()))
                message["headers"] += self._origins.readable(origin)
            await send(message)

        try:
            try:
                normalize(scope)
                scope["max_body_bytes"] = self.config.max_body_bytes
                scope["request_id"] = request_id
                scope["started"] = started
                scope["embedder"] = self._embedder
                scope["spools"] = self._spools
                scope["header"] = header
                if origin is not None and origins.is_preflight(scope, header):
                    self._door.admit_anybody(scope["headers"], header)
                    await origins.preflight()(scope, receive, answer)
                else:
                    await self._admit(scope, header)
                    await self._router(scope, receive, answer)
            except Refusal as error:
                scope["refused"] = error
                await self._refusal(scope["path"], error, request_id)(scope, receive, answer)
            except ClientDisconnect:
                status = CLIENT_GONE
            except Exception as error:
                log.error("unexpected: %s", describe(error))
                if status:  # the answer was under way: cut it short, it must not look whole
                    raise
                failure = Internal(request_id)
                await self._refusal(scope["path"], failure, request_id)(scope, receive, answer)
        finally:
            route = scope.get("route")
            self._note(
                scope["method"],
                "-" if route is None else route.path,
                # What the protocol has answered meanwhile; and a handler that was cancelled.
                scope.get("rejected", status) or CLIENT_GONE,
                time.perf_counter() - started,
                request_id,
            )
            if status == QUOTA or self._by_tenant:
                self._note_more(scope, status)

    def _note_more(self, scope: Scope, status: int) -> None:
        refused = scope.get("refused")
        if isinstance(refused, QuotaExceeded):
            self.requests.refused[refused.kind] += 1
        tenant = scope.get("tenant")
        if self._by_tenant and tenant is not None:
            self.requests.add_for_tenant(tenant.call.tenant_id, status)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            async with self._opened():
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Unusable as error:
            self.failure = error
            await send({"type": "lifespan.startup.failed", "message": error.message})
        else:
            await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        config = self.config
        directory = await DataDirectory.open(
            config.data_dir,
            durability=config.durability,
            clock=self._clock,
            most_open=config.open_namespaces or capacity(),
            patience=LOCK_SECONDS,
            read_seconds=config.read_seconds,
        )
        try:
            self._door = Door(directory, config, local=self.local, pages=self._origins.local)
            if self._origins.elsewhere and self._door.is_open():
                log.warning(
                    "--allow-origin %s: not answered before the first key is made",
                    " ".join(self._origins.elsewhere),
                )
            self.directory = directory
            await directory.warn_of_copy()
            self._prober = Prober(directory)
            housekeeping = Housekeeping(
                directory,
                self._clock,
                can={
                    chores.REEMBED: reembedding.chore(self._embedder.embed),
                    chores.COMPACT: compact,
                    chores.ACCEPT: accept,
                },
            )
            housekeeping.start()
            heartbeat = Heartbeat(self.loop)
            heartbeat.start()
            try:
                yield
            finally:
                self.stopping = True
                heartbeat.stop()
                await housekeeping.stop()
                await self._prober.stop()
        finally:
            await directory.close()
            await self._summarizer.close()
            await self._embedder.close()
            if self._request_log is not None:
                self._request_log.flush()

    async def make_first_key(self) -> str | None:
        """The first key of a server that needs keys and has none, to be shown once."""
        registry = self.directory.registry
        if not self._door.always_keyed or registry.keys_required():
            return None
        operator = self._operator("first start")
        await registry.ensure_tenant(DEFAULT_TENANT, tiers.UNLIMITED)
        made = await operator.create_key(DEFAULT_TENANT, label="made at the first start")
        return str(made["key"])


async def _no_route(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotFound("There is nothing at this path.")
