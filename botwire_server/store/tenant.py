"""A tenant's reach: the only door to namespaces.

Whoever holds a `Tenant` can reach that tenant's namespaces and nothing else; no method takes a
tenant's id or a path.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Concatenate, ParamSpec, TypeVar

from botwire_server import limits as table
from botwire_server.errors import Closed, Damaged, Forbidden, Unavailable
from botwire_server.store import listings, names, sweeping, usage
from botwire_server.store.deadlines import Deadline
from botwire_server.store.directory import DataDirectory
from botwire_server.store.driver import Connection
from botwire_server.store.keys import Grant
from botwire_server.store.namespace import Namespace, Totals, no_more_writes
from botwire_server.store.room import Limits
from botwire_server.store.rows import UNMADE, TenantRow
from botwire_server.store.usage import Call
from botwire_server.store.views import View

P = ParamSpec("P")
T = TypeVar("T")

# A namespace that is purged between look-up and use is looked up again; more often than this in
# a row and something else is wrong.
ATTEMPTS = 5


class Tenant:
    """One tenant, within its limits and what the key allows. `call` is whom usage counts for,
    `deadline` is that of all its reads.
    """

    __slots__ = ("_directory", "_grant", "_limits", "_row", "call", "deadline")

    def __init__(
        self, directory: DataDirectory, row: TenantRow, *, limits: Limits, grant: Grant, call: Call
    ) -> None:
        self._directory = directory
        self._row = row
        self._limits = limits
        self._grant = grant
        self.call = call
        self.deadline = Deadline(directory.readers)

    def namespace(self, name: str) -> NamespaceRef:
        """A namespace by name, whether it exists or not. Raises `Invalid`."""
        names.check(name, "namespace", longest=table.NAMESPACE)
        return NamespaceRef(self, name)

    def require(self, scope: str) -> None:
        """Raise `Forbidden` unless the key may do this anywhere at all."""
        if scope not in self._grant.scopes:
            raise Forbidden(f"This key may not {scope}: its scopes do not cover it.")

    def namespace_by_id(self, id: str, scope: str) -> NamespaceRef | None:
        """The namespace with this id, if the key may do `scope` there.

        What the key's pattern leaves out is None, like what is another tenant's or nobody's. Raises
        `Forbidden` where the key may do it nowhere, whatever the id.
        """
        self.require(scope)
        row = self._directory.registry.namespace_by_id(self._row.id, id)
        if row is None or not self._grant.allows(scope, row.name):
            return None
        return NamespaceRef(self, row.name)

    async def namespaces(self, *, holding: str | None = None) -> list[str]:
        """The names of the namespaces that the key may read, in their order.

        `holding` is a field of `Totals`: those that have some of it.
        """
        await self._directory.note_changes()
        if not self._grant.allows_somewhere("read"):
            return []
        pages = listings.every(
            self._directory.registry,
            listings.namespaces,
            self._row.id,
            pattern=self._grant.pattern,
            holding=holding,
            shape=lambda held: held.row.name,
            behind=lambda held: held.row.name,
            deadline=self.deadline,
        )
        return [name async for page in pages for name in page]

    async def totals(self) -> tuple[int, Totals]:
        """How many namespaces the key may read, and what they hold."""
        if not self._grant.allows_somewhere("read"):
            return 0, Totals()
        return await self._directory.totals(
            self._row, pattern=self._grant.pattern, deadline=self.deadline
        )

    async def usage(self) -> dict[str, Any]:
        """Calls and holdings, as `usage.report` tells them."""
        if not self._grant.allows_everywhere("read"):
            raise Forbidden("This key may not read the whole tenant's usage.")
        await self._directory.settle()
        return await self._directory.registry.query_within(
            self.deadline, usage.report, self._row.id
        )

    async def made(self) -> TenantRow:
        """The tenant as the registry knows it, made where it does not."""
        if self._row.id == UNMADE:
            self._row = await self._directory.registry.ensure_tenant(self._row.name, self._row.tier)
            self.call = self.call._replace(tenant_id=self._row.id)
            self._directory.ledger.count(self.call, 0)
        return self._row

    def count_embeddings(self, embeddings: int) -> None:
        """Count texts that were embedded for this call."""
        self._directory.ledger.count_embeddings(self.call, embeddings)

    async def require_room_for_vectors(self, vectors: int) -> None:
        """Raise `QuotaExceeded` unless so many vectors more are within the limits."""
        if self._limits.vectors:
            await self._directory.require_room(self._row, self._limits, vectors=vectors)


class NamespaceRef:
    """A name inside a tenant. What it names is opened when asked for, and made when written to.

    A namespace that does not exist reads like an empty one, and reading creates nothing. Every
    verb raises `Forbidden` where the key's scopes or pattern do not cover it.
    """

    __slots__ = ("_directory", "_grant", "_limits", "_name", "_tenant", "_tenant_row")

    def __init__(self, tenant: Tenant, name: str) -> None:
        self._tenant = tenant
        self._directory = tenant._directory
        self._tenant_row = tenant._row
        self._limits = tenant._limits
        self._grant = tenant._grant
        self._name = name

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    def allows(self, scope: str) -> bool:
        """Whether the key may do this here."""
        return self._grant.allows(scope, self._name)

    def require(self, scope: str) -> None:
        """Raise `Forbidden` unless the key may do this here."""
        if not self.allows(scope):
            raise Forbidden(
                f"This key may not {scope} here: its scopes or its namespace pattern do not "
                "cover it."
            )

    async def read(
        self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit that reads. Raises `TooExpensive` or `Busy` past the deadline."""
        self.require("read")
        deadline = self._tenant.deadline
        for _ in range(ATTEMPTS):
            try:
                namespace = await self._existing()
                return await namespace.read_within(deadline, unit, *args, **kwargs)
            except Closed:
                continue
        raise _given_up()

    @asynccontextmanager
    async def view(self) -> AsyncIterator[View]:
        """One moment of it, for lists that `views.few` finds too long.

        Whoever reads in it when the namespace is removed gets `Closed`.
        """
        self.require("read")
        async with self._directory.gate.opened(self._tenant_row.id):
            namespace = await self._existing()
            async with namespace.view(self._tenant.deadline) as view:
                yield view

    async def write(
        self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit that stores something; committed and durable when this returns.

        Raises `QuotaExceeded` over a limit: then nothing was stored.
        """
        self.require("write")
        await self._require_certainty()
        for _ in range(ATTEMPTS):
            try:
                limits = self._limits if not self._limits.over_all else await self._within()
                namespace = self._opened() or await self._made(limits, unit, *args, **kwargs)
                return await namespace.write(unit, limits, *args, **kwargs)
            except Closed:
                continue
        raise _given_up()

    async def update(
        self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit that only changes what is there: like `write`, but it makes no namespace."""
        self.require("write")
        await self._require_certainty()
        for _ in range(ATTEMPTS):
            try:
                limits = self._limits if not self._limits.over_all else await self._within()
                return await (await self._existing()).write(unit, limits, *args, **kwargs)
            except Closed:
                continue
        raise _given_up()

    async def delete(
        self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit that only removes; never refused for a quota."""
        self.require("write")
        await self._require_certainty()
        return await self._run(Namespace.delete, unit, *args, **kwargs)

    async def purge(self) -> Totals | None:
        """Remove the namespace, file and all; what it held, or None if there was none."""
        self.require("purge")
        row = self._directory.find(self._tenant_row, self._name)
        if row is None:
            return None
        # Nobody waits for who reads it.
        opened = self._directory.pool.get(row)
        if opened is not None:
            opened.end_reads()
        # What has expired is gone already, and not counted. What is damaged goes as it is.
        with suppress(Damaged):
            await self._run(Namespace.delete, sweeping.sweep)
        actor = self._tenant.call.key_id or "open"
        receipt = await self._directory.purge_namespace(row, actor=actor)
        return None if receipt is None else Totals(*(receipt[name] for name in Totals._fields))

    async def _require_certainty(self) -> None:
        """Raise `Unavailable` while a crash could undo what is stored from now on.

        A purge or a restore that failed may lie in the registry's journal: a crash would make it
        true, and what was stored meanwhile would be gone with the rest.
        """
        registry = self._directory.registry
        if registry.doubtful:
            await registry.be_sure()

    async def _run(self, verb: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        for _ in range(ATTEMPTS):
            try:
                return await verb(await self._existing(), *args, **kwargs)
            except Closed:
                continue
        raise _given_up()

    async def _existing(self) -> Namespace:
        row = self._directory.find(self._tenant_row, self._name)
        if row is None:
            return self._directory.nowhere
        namespace = self._directory.pool.get(row)
        if namespace is None:
            began = time.monotonic()
            namespace = await self._directory.pool.open(row)
            self._tenant.deadline.opened(time.monotonic() - began)
        return namespace

    def _opened(self) -> Namespace | None:
        """The namespace, if it is there and open: nearly always, and without waiting."""
        row = self._directory.find(self._tenant_row, self._name)
        return None if row is None else self._directory.pool.get(row)

    async def _made(
        self,
        limits: Limits,
        unit: Callable[Concatenate[Connection, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Namespace:
        row = self._directory.find(self._tenant_row, self._name)
        if row is None:
            self._require_writes()
            if limits.room is not None or limits.namespace_bytes or kwargs.get("condition"):
                # What is refused must not leave an empty namespace: it is tried where nothing is.
                await self._directory.nowhere.write(unit, limits, *args, **kwargs)
            self._tenant_row = await self._tenant.made()
            row = await self._directory.create(
                self._tenant_row,
                self._name,
                most=self._limits.agents,
                counted=bool(self._limits.daily_writes),
            )
        return self._directory.pool.get(row) or await self._directory.pool.open(row)

    def _require_writes(self) -> None:
        """Raise `QuotaExceeded` where the name had its writes of the day before it was purged."""
        registry = self._directory.registry
        most = self._limits.daily_writes
        if most and registry.written(self._tenant_row.id, self._name).writes >= most:
            raise no_more_writes(self._limits, registry.now)

    async def _within(self) -> Limits:
        """The limits, with the room that is left."""
        return await self._directory.rooms.within(self._tenant_row, self._limits)


def _given_up() -> Unavailable:
    return Unavailable("This namespace is being removed and made again; try again.")
