"""How a command has a chore done in namespaces: by the server, or here where none runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from botwire_server.cli.common import MOST_OPEN, POLL_SECONDS
from botwire_server.cli.terminal import Progress
from botwire_server.store import chores
from botwire_server.store.chores import Chore, State
from botwire_server.store.directory import DataDirectory
from botwire_server.store.lock import Occupied
from botwire_server.store.registry import Registry

# The chores this process can do, for as long as it is entered.
Able = Callable[[], AbstractAsyncContextManager[Mapping[str, Chore]]]


async def carry_out(
    data_dir: Path,
    registry: Registry,
    kind: str,
    *,
    tenant: str | None,
    namespace: str | None = None,
    able: Able,
    label: str,
) -> list[State]:
    """Ask for a chore and wait until it is done everywhere; how it ended."""
    bar = Progress(label)
    asked_at = await registry.change(chores.ask, kind, tenant, namespace)
    here = asyncio.create_task(_do_here(data_dir, kind, able))
    while True:
        states = await registry.query(chores.states, kind, asked_at)
        bar.show(sum(each.done for each in states), sum(each.total for each in states))
        if all(each.outcome is not None for each in states):
            break
        if here.done():
            here.result()
            here = asyncio.create_task(_do_here(data_dir, kind, able))
        await asyncio.sleep(POLL_SECONDS)
    bar.close()
    await here  # not cancelled: it may be closing the data directory
    return states


async def _do_here(data_dir: Path, kind: str, able: Able) -> None:
    """Do what is due in this process; nothing where a server runs, which does it itself."""
    try:
        directory = await DataDirectory.open(
            data_dir, durability="full", clock=time.time, most_open=MOST_OPEN
        )
    except Occupied:
        await asyncio.sleep(POLL_SECONDS)
        return
    try:
        async with able() as can:
            while await directory.registry.query(chores.due, kind):
                await chores.do_due(directory, can)
    finally:
        await directory.close()
