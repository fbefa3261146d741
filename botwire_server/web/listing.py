"""Answers that are lists: from one moment of the namespace, whole or by the page.

A list that fits into a slice is one read. A longer one is read slice by slice into a spool, so
that its length costs disk for a while and no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response

from botwire_server.errors import Closed, Unavailable
from botwire_server.store.tenant import ATTEMPTS, NamespaceRef
from botwire_server.store.views import Listing, View, few
from botwire_server.web.body import Json
from botwire_server.web.spool import Spool, Spooled, Spools

Row = TypeVar("Row", bound=Sequence[Any])

# What no JSON text holds: it stands for the list while what goes around it is made.
_HERE = b"\0"
COUNT: Final = None


@dataclass(frozen=True, kw_only=True)
class Listed(Generic[Row]):
    """A list in an answer: `head` first, then the rows in each array's own shape, and `count`.

    `unit` yields the rows when called with `asked`. With a `limit` there are so many at most, and
    `cursor` of the last one where more follow; `unit` takes that limit. `wrap` makes the answer.
    `COUNT` among the arrays says where the count stands in an answer that is made at once; in one
    that is read in slices it is known at the end only.
    """

    unit: Listing[Any, Row]
    asked: Mapping[str, Any] = field(default_factory=dict)
    head: Mapping[str, Any]
    arrays: Mapping[str, Callable[[Row], Any] | None]
    limit: int | None = None
    cursor: Callable[[Row], str] | None = None
    wrap: Callable[[Any], Json] = Json

    async def answer(self, request: Request, here: NamespaceRef) -> Response:
        """The answer. Raises `AnswerTooLarge`, and what reading raises."""
        asked = dict(self.asked)
        if self.limit is not None:
            asked["limit"] = self.limit + 1
        rows = await here.read(few, self.unit, **asked)
        if rows is not None:
            shown = rows[: self.limit]
            arrays = {
                name: len(shown) if shape is COUNT else [shape(row) for row in shown]
                for name, shape in self.arrays.items()
            }
            end = self._end(len(shown), rows[len(shown) - 1] if len(rows) > len(shown) else None)
            return self.wrap({**self.head, **arrays, **end})
        spools: Spools = request.scope["spools"]
        for _ in range(ATTEMPTS):
            spool = spools.open()
            # One that is closed was removed meanwhile, and perhaps made again.
            with suppress(Closed), spool.kept():
                async with here.view() as view:
                    await self._write(view, asked, spool)
                return Spooled(spool)
        raise Unavailable("This namespace is being removed and made again; try again.")

    async def _write(self, view: View, asked: Mapping[str, Any], spool: Spool) -> None:
        before, after = bytes(self.wrap(orjson.Fragment(_HERE)).body).split(_HERE)
        await spool.write(before + orjson.dumps(self.head)[:-1])
        end: dict[str, Any] = {}
        for name, shape in self.arrays.items():
            if shape is COUNT:
                continue
            lead = b',"%s":[' % name.encode()
            count = 0
            last: Row | None = None
            async for rows in view.slices(self.unit, **asked):
                shown = rows if self.limit is None else rows[: self.limit - count]
                if shown:
                    encoded = orjson.dumps([shape(row) for row in shown])
                    await spool.write(lead + encoded[1:-1])
                    lead, count, last = b",", count + len(shown), shown[-1]
                if len(shown) < len(rows):
                    end = self._end(count, last)
                    break
            else:
                end = self._end(count, None)
            await spool.write(b"]")
        await spool.write(b"," + orjson.dumps(end)[1:] + after)

    def _end(self, count: int, last: Row | None) -> dict[str, Any]:
        """What stands behind the rows; `last` is the last one where more follow."""
        if last is None or self.cursor is None:
            return {"count": count}
        return {"count": count, "cursor": self.cursor(last)}
