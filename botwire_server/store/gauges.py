"""What there is at the moment: what a scrape asks of the store, beside what was counted.

All of it from the registry, in one unit of work off the event loop: no namespace is opened for it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from botwire_server.store.directory import DataDirectory
from botwire_server.store.driver import Connection
from botwire_server.store.namespace import Totals

_HELD = ", ".join(f"total(n.{field})" for field in Totals._fields)


class Holdings(NamedTuple):
    """What somebody has: so many namespaces, and in them `held`."""

    namespaces: int
    held: Totals


class Gauges(NamedTuple):
    """A data directory at the moment."""

    open_namespaces: int
    queued: int  # units of work that wait, in all open namespaces
    longest_queue: int
    registry_queued: int
    tenants: int
    holdings: Holdings
    purges_waiting: int
    chores_waiting: int
    # Both empty unless asked for.
    names: dict[str, str]  # of tenants by id
    by_tenant: dict[str, Holdings]  # by name


async def gauges(
    directory: DataDirectory, *, most_tenants: int = 0, named: Sequence[str] = ()
) -> Gauges:
    """Look. `most_tenants` is of how many tenants, the oldest, it is told what each holds, and
    `named` are the ids of those whose names are wanted.
    """
    queues = [namespace.waiting for _, namespace in directory.pool.opened()]
    registry_queued = directory.registry.changes.waiting
    tenants, holdings, purges, chores = await directory.registry.query(_look)
    names: dict[str, str] = {}
    by_tenant: dict[str, Holdings] = {}
    if most_tenants:
        names, by_tenant = await directory.registry.query(_look_closer, most_tenants, named)
    return Gauges(
        open_namespaces=len(queues),
        queued=sum(queues),
        longest_queue=max(queues, default=0),
        registry_queued=registry_queued,
        tenants=tenants,
        holdings=holdings,
        purges_waiting=purges,
        chores_waiting=chores,
        names=names,
        by_tenant=by_tenant,
    )


def _look(connection: Connection) -> tuple[int, Holdings, int, int]:
    tenants, purges, chores = connection.execute(
        """SELECT (SELECT count(*) FROM tenants),
            (SELECT count(*) FROM purges WHERE receipt IS NULL),
            (SELECT count(*) FROM chores WHERE outcome IS NULL)"""
    ).fetchone()
    [all_] = connection.execute(f"SELECT count(*), {_HELD} FROM namespaces n")  # noqa: S608
    return tenants, _holdings(all_), purges, chores


def _look_closer(
    connection: Connection, most_tenants: int, named: Sequence[str]
) -> tuple[dict[str, str], dict[str, Holdings]]:
    by_tenant = {
        row[0]: _holdings(row[1:])
        for row in connection.execute(
            f"""SELECT t.name, count(n.id), {_HELD}
            FROM (SELECT id, name FROM tenants ORDER BY created_at, id LIMIT ?) t
            LEFT JOIN namespaces n ON n.tenant_id = t.id GROUP BY t.id""",  # noqa: S608
            (most_tenants,),
        )
    }
    names = connection.execute(
        "SELECT id, name FROM tenants WHERE id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(named)),),
    )
    return dict(names), by_tenant


def _holdings(row: tuple[float, ...]) -> Holdings:
    return Holdings(int(row[0]), Totals(*map(int, row[1:])))
