"""A tenant's reach: the only door to namespaces.

Whoever holds a `Tenant` can reach that tenant's namespaces and nothing else; no method takes a
tenant's id or a path.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from botwire_server.errors import Closed, Unavailable
from botwire_server.store import names
from botwire_server.store.directory import DataDirectory
from botwire_server.store.driver import Connection
from botwire_server.store.namespace import Limits, Namespace, Totals
from botwire_server.store.registry import TenantRow

P = ParamSpec("P")
T = TypeVar("T")

# A namespace that is purged between look-up and use is looked up again; more often than this in
# a row and something else is wrong.
ATTEMPTS = 5


class Tenant:
    """One tenant, within its limits."""

    __slots__ = ("_directory", "_limits", "_row")

    def __init__(self, directory: DataDirectory, row: TenantRow, limits: Limits) -> None:
        self._directory = directory
        self._row = row
        self._limits = limits

    def namespace(self, name: str) -> NamespaceRef:
        """A namespace by name, whether it exists or not. Raises `Invalid`."""
        names.check(name, "namespace", longest=names.LONGEST_NAMESPACE)
        return NamespaceRef(self._directory, self._row, name, self._limits)

    def namespace_by_id(self, id: str) -> NamespaceRef | None:
        """A namespace of this tenant by its id, if it exists."""
        row = self._directory.find_by_id(self._row, id)
        return None if row is None else self.namespace(row.name)

    async def with_memories(self) -> list[NamespaceRef]:
        """The namespaces that hold memories."""
        return [self.namespace(name) for name in await self._directory.with_memories(self._row)]

    async def totals(self) -> tuple[int, Totals]:
        """How many namespaces there are, and what they hold."""
        return await self._directory.totals(self._row)


class NamespaceRef:
    """A name inside a tenant. What it names is opened when asked for, and made when written to.

    A namespace that does not exist reads like an empty one, and reading creates nothing.
    """

    __slots__ = ("_directory", "_limits", "_name", "_tenant")

    def __init__(
        self, directory: DataDirectory, tenant: TenantRow, name: str, limits: Limits
    ) -> None:
        self._directory = directory
        self._tenant = tenant
        self._name = name
        self._limits = limits

    @property
    def name(self) -> str:
        """Its name."""
        return self._name

    async def read(
        self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit that reads."""
        return await self._run(Namespace.read, unit, *args, **kwargs)

    async def write(
        self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit that stores something; committed and durable when this returns.

        Raises `QuotaExceeded` over a limit: then nothing was stored.
        """
        for _ in range(ATTEMPTS):
            try:
                return await (await self._made()).write(unit, self._limits, *args, **kwargs)
            except Closed:
                continue
        raise _given_up()

    async def delete(
        self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit that only removes; never refused for a quota."""
        return await self._run(Namespace.delete, unit, *args, **kwargs)

    async def purge(self) -> Totals | None:
        """Remove the namespace, file and all; what it held, or None if there was none."""
        row = self._directory.find(self._tenant, self._name)
        return None if row is None else await self._directory.purge(row)

    async def _run(self, verb: Callable[..., Awaitable[T]], *args: Any, **kwargs: Any) -> T:
        for _ in range(ATTEMPTS):
            try:
                return await verb(await self._existing(), *args, **kwargs)
            except Closed:
                continue
        raise _given_up()

    async def _existing(self) -> Namespace:
        row = self._directory.find(self._tenant, self._name)
        if row is None:
            return self._directory.nowhere
        return self._directory.pool.get(row) or await self._directory.pool.open(row)

    async def _made(self) -> Namespace:
        row = self._directory.find(self._tenant, self._name)
        if row is None:
            row = await self._directory.create(self._tenant, self._name)
        return self._directory.pool.get(row) or await self._directory.pool.open(row)


def _given_up() -> Unavailable:
    return Unavailable("This namespace is being removed and made again; try again.")
