"""A tenant is purged at every moment of every request: whoever asks hears that it is gone.

The purge is put before the first, the second, ... time that a request asks the registry's thread
for something, until there is no such time left; once only begun, and once gone through.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from access import OPERATOR, PUBLIC, ROWS, Acme, each
from serving import PATIENCE
from tenancy import Keyed, bearer

from botwire_server.store import purges
from botwire_server.store.registry import Registry

MOST_MOMENTS = 20
# Of a request that nobody could have known to be too late, and of one that could.
FINE = (200, 201, 204, 304, 401, 404, 409, 412)

_numbers = itertools.count()


@pytest.fixture(scope="module")
def office(tmp_path_factory) -> Iterator[Keyed]:
    with Keyed(tmp_path_factory.mktemp("purged-meanwhile")) as office:
        yield office


@contextmanager
def purged(office: Keyed, tenant: str, *, before: int, whole: bool) -> Iterator[list[str]]:
    """Purge the tenant before the n-th thing that the registry is asked for from now on.

    What is yielded holds its id if that has happened; afterwards it has come to its end, also where
    it was the housekeeping that asked.
    """
    happened: list[str] = []
    ended = threading.Event()
    moments = itertools.count()
    change, query = Registry.change, Registry.query

    async def first(registry: Registry) -> None:
        if next(moments) != before:
            return
        row = registry.tenant(tenant)
        if row is None:  # the request has done it itself
            return
        happened.append(row.id)
        try:
            purge = await change(registry, purges.bury_tenant, row.id, actor="test")
            if whole:
                await office.app.directory.finish_purge(purge)
        finally:
            ended.set()

    async def changing(self: Registry, unit: Any, *args: Any, **more: Any) -> Any:
        if unit.__module__ != purges.__name__:
            await first(self)
        return await change(self, unit, *args, **more)

    async def querying(self: Registry, unit: Any, *args: Any, **more: Any) -> Any:
        if unit.__module__ != purges.__name__ or unit is purges.begun:
            await first(self)
        return await query(self, unit, *args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "change", changing)
        patch.setattr(Registry, "query", querying)
        yield happened
        assert not happened or ended.wait(PATIENCE)


@pytest.mark.parametrize("whole", [False, True], ids=["begun", "done"])
@each([row for row in ROWS if row.scope != PUBLIC])
def test_never_a_fault(office, row, whole):
    for moment in range(MOST_MOMENTS):
        acme = Acme(office, f"acme-{next(_numbers)}")
        acme.prepare()
        acme.names["doomed"] = acme.name
        key = office.operator_key if row.scope == OPERATOR else acme.key
        with purged(office, acme.name, before=moment, whole=whole) as happened:
            answer = acme.ask(row, bearer(key))
        assert answer.status_code in FINE, (moment, answer.text)
        if not happened:
            path = f"/admin/v1/tenants/{acme.name}?confirm={acme.name}"
            office.bare.delete(path, headers=bearer(office.operator_key))
            return
        if row.template.endswith(("/keys", "/rotate")) and answer.status_code == 201:
            made = answer.json()["key"]
            refused = office.bare.get("/memory/notes", headers=bearer(made))
            assert refused.status_code == 401, (moment, refused.text)
    raise AssertionError("there is no end to what it asks the registry for")
