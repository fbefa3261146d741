"""Lists out of the registry, by the page and filtered by SQLite: however many tenants, keys or
namespaces there are, no page holds anybody up. Units of work on the registry.

Each page goes on behind the last row of the one before. What is there all the while stands in a
list exactly once.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple, TypeVar

from botwire_server.store.deadlines import Deadline
from botwire_server.store.driver import Connection
from botwire_server.store.keys import EVERYTHING
from botwire_server.store.names import first_behind
from botwire_server.store.namespace import Totals
from botwire_server.store.registry import Registry
from botwire_server.store.rows import KeyRow, NamespaceRow, TenantRow

Row = TypeVar("Row")
T = TypeVar("T")

PAGE = 100
# Reports are queries of their own, some for each key.
REPORTS = 50

_HELD = ", ".join(Totals._fields)


class Held(NamedTuple):
    """A namespace: when it was made, and what it holds as of last noted."""

    row: NamespaceRow
    created_at: float
    totals: Totals


async def every(
    registry: Registry,
    unit: Callable[..., list[Row]],
    *args: Any,
    shape: Callable[[Row], T],
    behind: Callable[[Row], Any],
    deadline: Deadline | None = None,
    **kwargs: Any,
) -> AsyncIterator[list[T]]:
    """The pages of a list, each row in a `shape`, which is made on the registry's thread.

    `behind` is what of a page's last row the next goes on from.
    """
    after = None

    def shaped(connection: Connection) -> tuple[list[T], Any]:
        rows = unit(connection, *args, after=after, **kwargs)
        return [shape(row) for row in rows], behind(rows[-1]) if rows else None

    while True:
        page, after = await registry.query_within(deadline, shaped)
        if not page:
            return
        yield page


def namespaces(
    connection: Connection,
    tenant_id: str,
    *,
    after: str | None = None,
    prefix: str = "",
    pattern: str = EVERYTHING,
    holding: str | None = None,
    limit: int = PAGE,
) -> list[Held]:
    """A tenant's namespaces by name: those that begin with `prefix` and fit the `pattern` of a key.

    `holding` is a field of `Totals`: those that have some of it.
    """
    wanted, parameters = _fitting(tenant_id, prefix, pattern)
    if holding is not None:
        assert holding in Totals._fields
        wanted += f" AND {holding} > 0"
    rows = connection.execute(
        f"""SELECT id, tenant_id, name, file, created_at, {_HELD} FROM namespaces
        WHERE {wanted} AND name > :after ORDER BY name LIMIT :limit""",  # noqa: S608
        parameters | {"after": after or "", "limit": limit},
    )
    return [Held(NamespaceRow(*row[:4]), row[4], Totals(*row[5:])) for row in rows]


def totals(
    connection: Connection, tenant_id: str, *, pattern: str = EVERYTHING
) -> tuple[int, Totals]:
    """How many namespaces of a tenant fit a key's pattern, and what they hold as of last noted."""
    wanted, parameters = _fitting(tenant_id, "", pattern)
    sums = ", ".join(f"total({name})" for name in Totals._fields)
    row = connection.execute(
        f"SELECT count(*), {sums} FROM namespaces WHERE {wanted}",  # noqa: S608
        parameters,
    ).fetchone()
    return row[0], Totals(*map(int, row[1:]))


class Tenant(NamedTuple):
    """A tenant, and what it has as of last noted."""

    row: TenantRow
    created_at: float
    namespaces: int
    totals: Totals


def tenants(
    connection: Connection, *, id: str | None = None, after: str | None = None, limit: int = PAGE
) -> list[Tenant]:
    """The tenants by name, or the one of this id, with what they hold as of last noted."""
    held = ", ".join(f"coalesce(sum(n.{name}), 0)" for name in Totals._fields)
    rows = connection.execute(
        f"""SELECT t.id, t.name, t.tier, t.created_at, count(n.id), {held}
        FROM (
            SELECT * FROM tenants WHERE purging_at IS NULL AND name > ?2
                {"AND id = ?1" if id is not None else "AND ?1 IS NULL"}
            ORDER BY name LIMIT ?3
        ) AS t LEFT JOIN namespaces n ON n.tenant_id = t.id GROUP BY t.id ORDER BY t.name""",  # noqa: S608
        (id, after or "", limit),
    )
    return [Tenant(TenantRow(*row[:3]), row[3], row[4], Totals(*row[5:])) for row in rows]


_KEYS = ", ".join(f"k.{field}" for field in KeyRow._fields)


def keys(
    connection: Connection,
    tenant_id: str | None = None,
    *,
    after: tuple[float, str] | None = None,
    limit: int = PAGE,
) -> list[tuple[KeyRow, str | None]]:
    """The keys of a tenant, or of all, with the tenant's name; oldest first, then by id."""
    created_at, id = after or (-1.0, "")
    rows = connection.execute(
        f"""SELECT {_KEYS}, t.name FROM keys k LEFT JOIN tenants t ON t.id = k.tenant_id
        WHERE {"k.tenant_id = ?1" if tenant_id is not None else "?1 IS NULL"}
            AND t.purging_at IS NULL AND (k.created_at, k.id) > (?2, ?3)
        ORDER BY k.created_at, k.id LIMIT ?4""",  # noqa: S608
        (tenant_id, created_at, id, limit),
    )
    return [(KeyRow(*row[:-1]), row[-1]) for row in rows]


def key(connection: Connection, id: str) -> tuple[KeyRow, str | None] | None:
    """The key of this id with its tenant's name."""
    row = connection.execute(
        f"""SELECT {_KEYS}, t.name FROM keys k LEFT JOIN tenants t ON t.id = k.tenant_id
        WHERE k.id = ? AND t.purging_at IS NULL""",  # noqa: S608
        (id,),
    ).fetchone()
    return None if row is None else (KeyRow(*row[:-1]), row[-1])


class Line(NamedTuple):
    """A line of the audit. `tenant` is its name, where it is still there."""

    number: int
    at: float
    actor: str
    action: str
    tenant: str | None
    tenant_id: str | None
    subject: str | None
    outcome: str


def audit(
    connection: Connection,
    tenant_id: str | None = None,
    *,
    after: int | None = None,
    limit: int = PAGE,
) -> list[Line]:
    """The lines of the audit, of a tenant or all; oldest first."""
    rows = connection.execute(
        f"""SELECT a.id, at, actor, action, t.name, a.tenant_id, subject, outcome
        FROM audit a LEFT JOIN tenants t ON t.id = a.tenant_id
        WHERE {"a.tenant_id = ?1" if tenant_id is not None else "?1 IS NULL"} AND a.id > ?2
        ORDER BY a.id LIMIT ?3""",  # noqa: S608
        (tenant_id, after or 0, limit),
    )
    return [Line(*row) for row in rows]


def _fitting(tenant_id: str, prefix: str, pattern: str) -> tuple[str, dict[str, Any]]:
    """The condition for a tenant's namespaces, and its parameters."""
    wanted = "tenant_id = :tenant"
    parameters = {"tenant": tenant_id}
    if prefix:
        wanted += " AND name >= :first"
        parameters["first"] = prefix
        end = first_behind(prefix)
        if end is not None:
            wanted += " AND name < :end"
            parameters["end"] = end
    if pattern != EVERYTHING:
        wanted += " AND name GLOB :pattern"
        parameters["pattern"] = glob(pattern)
    return wanted, parameters


def glob(pattern: str) -> str:
    """A key's pattern, in which only * is special, for SQLite's GLOB."""
    return "".join(f"[{letter}]" if letter in "?[" else letter for letter in pattern)
