"""Who used how much: calls by key and day, and what a tenant held at the end of each day.

Reading must not cost a write, so calls are counted in memory and flushed every second and at the
end; after a kill at most the last second is missing. Limits are checked against the memory, which
is exact: one server at a time holds a data directory.
"""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta
from typing import Any, NamedTuple

from botwire_server.errors import QuotaExceeded, Refusal
from botwire_server.store import spent
from botwire_server.store.driver import Connection
from botwire_server.store.namespace import day_of, midnight_after
from botwire_server.store.registry import Registry

DAYS_KEPT = 90
# Holdings and last-used times may be a minute old.
SLOW_EVERY = 60

NO_KEY = ""


class Call(NamedTuple):
    """Whom a call counts for; no key in an open server."""

    tenant_id: str
    key_id: str


class Ledger:
    """The counters of a running server."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._day = day_of(registry.now)
        self._today: dict[str, int] = defaultdict(int)
        self._unflushed: dict[tuple[int, str, str], list[int]] = {}
        self._used: dict[str, float] = {}
        self._slow_at = 0.0

    async def load(self) -> None:
        """Take up the counts of the day."""
        rows = await self._registry.query(_calls_on, self._day)
        self._today = defaultdict(int, rows)

    def count(self, call: Call, limit: int) -> None:
        """Count a call of now, or raise `QuotaExceeded` when the tenant has had its `limit`."""
        now = self._registry.now
        if now >= (self._day + 1) * 86_400:
            self._day = day_of(now)
            self._today.clear()
        if limit and self._today[call.tenant_id] >= limit:
            raise QuotaExceeded(
                f"This tenant has had its {limit} calls of the day (UTC); it can go on after "
                "midnight UTC.",
                limit=limit,
                resets_at=midnight_after(now),
                kind="calls",
            )
        self._today[call.tenant_id] += 1
        self._counter(call)[0] += 1
        if call.key_id:
            self._used[call.key_id] = now

    def count_embeddings(self, call: Call, embeddings: int) -> None:
        """Count texts that were embedded for a call."""
        self._counter(call)[1] += embeddings

    async def flush(self, *, all: bool = False) -> None:
        """Write down what was counted; `all` also what may wait for a minute."""
        now = self._registry.now
        unflushed, self._unflushed = self._unflushed, {}
        used: dict[str, float] = {}
        slow = all or now >= self._slow_at
        if slow:
            self._slow_at = now + SLOW_EVERY
            used, self._used = self._used, {}
        if unflushed or used or slow:
            try:
                await self._registry.change(_flush, unflushed, used, slow)
            except Refusal:  # none of it was written down: keep it for the next time
                for key, counts in unflushed.items():
                    counter = self._unflushed.setdefault(key, [0] * len(counts))
                    counter[:] = map(sum, zip(counter, counts, strict=True))
                self._used = used | self._used
                raise

    def _counter(self, call: Call) -> list[int]:
        key = (self._day, *call)
        counter = self._unflushed.get(key)
        if counter is None:
            counter = self._unflushed[key] = [0, 0]
        return counter


def report(connection: Connection, tenant_id: str) -> dict[str, Any]:
    """A tenant's usage: today, this month, per key, and by day for up to 90 days."""
    today = day_of(connection.now)
    month = _day(today).replace(day=1)
    first_of_month = (month - date(1970, 1, 1)).days

    def calls(where: str, *parameters: Any) -> dict[str, int]:
        row = connection.execute(
            f"""SELECT total(calls) FILTER (WHERE day = ?2), total(calls),
                total(embeddings) FROM calls
            WHERE tenant_id = ?1 AND day >= ?3 {where}""",  # noqa: S608
            (tenant_id, today, first_of_month, *parameters),
        ).fetchone()
        return {
            "api_calls_today": int(row[0]),
            "api_calls_month": int(row[1]),
            "embeddings_generated_month": int(row[2]),
        }

    held = connection.execute(
        "SELECT count(*), total(vectors), total(bytes) FROM namespaces WHERE tenant_id = ?",
        (tenant_id,),
    ).fetchone()
    ids = connection.execute(
        "SELECT id, label FROM keys WHERE tenant_id = ? ORDER BY created_at", (tenant_id,)
    ).fetchall()
    return {
        **calls(""),
        "namespaces": held[0],
        "vectors_stored": int(held[1]),
        "storage_bytes": int(held[2]),
        "billing_period": f"{month:%Y-%m}",
        "keys": [{"id": id, "label": label, **calls("AND key_id = ?4", id)} for id, label in ids],
        "days": _days(connection, tenant_id, today),
    }


def _days(connection: Connection, tenant_id: str, today: int) -> list[dict[str, Any]]:
    calls = dict(
        connection.execute(
            "SELECT day, sum(calls) FROM calls WHERE tenant_id = ? GROUP BY day", (tenant_id,)
        ).fetchall()
    )
    held = {
        row[0]: row[1:]
        for row in connection.execute(
            "SELECT day, namespaces, vectors, bytes FROM holdings WHERE tenant_id = ?", (tenant_id,)
        )
    }
    if not calls and not held:
        return []
    days = []
    last = (0, 0, 0)  # a day on which nothing changed holds what the day before held
    for day in range(max(min([*calls, *held]), today - DAYS_KEPT + 1), today + 1):
        last = held.get(day, last)
        days.append(
            {
                "day": f"{_day(day)}",
                "api_calls": calls.get(day, 0),
                "namespaces": last[0],
                "vectors_stored": last[1],
                "storage_bytes": last[2],
            }
        )
    return days


def _day(day: int) -> date:
    return date(1970, 1, 1) + timedelta(days=day)


def _calls_on(connection: Connection, day: int) -> list[tuple[str, int]]:
    return connection.execute(
        "SELECT tenant_id, sum(calls) FROM calls WHERE day = ? GROUP BY tenant_id", (day,)
    ).fetchall()


def _flush(
    connection: Connection,
    unflushed: dict[tuple[int, str, str], list[int]],
    used: dict[str, float],
    slow: bool,
) -> None:
    # A tenant that was purged meanwhile must not come back as an account.
    connection.executemany(
        """INSERT INTO calls (day, tenant_id, key_id, calls, embeddings)
        SELECT ?1, ?2, ?3, ?4, ?5 WHERE EXISTS (SELECT 1 FROM tenants WHERE id = ?2)
        ON CONFLICT (tenant_id, key_id, day) DO UPDATE SET
            calls = calls + excluded.calls, embeddings = embeddings + excluded.embeddings""",
        [(*key, *counts) for key, counts in unflushed.items()],
    )
    connection.executemany(
        "UPDATE keys SET last_used_at = ? WHERE id = ?", [(at, id) for id, at in used.items()]
    )
    if slow:
        spent.forget_earlier(connection)
        today = day_of(connection.now)
        connection.execute(
            """INSERT INTO holdings (day, tenant_id, namespaces, vectors, bytes)
            SELECT ?, t.id, count(n.id), total(n.vectors), total(n.bytes)
            FROM tenants t LEFT JOIN namespaces n ON n.tenant_id = t.id GROUP BY t.id HAVING true
            ON CONFLICT (tenant_id, day) DO UPDATE SET
                namespaces = excluded.namespaces, vectors = excluded.vectors,
                bytes = excluded.bytes""",
            (today,),
        )
        for table in ("calls", "holdings"):
            connection.execute(
                f"DELETE FROM {table} WHERE day <= ?",  # noqa: S608
                (today - DAYS_KEPT,),
            )
