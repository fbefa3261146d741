"""What the operator's commands share: options, the registry, tables, progress."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

from botwire_server import tiers
from botwire_server.cli.terminal import Progress, printable, printable_json, say, table
from botwire_server.config import Config, variable
from botwire_server.errors import Unavailable, Unusable
from botwire_server.store import premises, purges, replacing, swap
from botwire_server.store.directory import DataDirectory
from botwire_server.store.driver import require_driver
from botwire_server.store.lock import Occupied
from botwire_server.store.operator import Operator
from botwire_server.store.registry import Registry

T = TypeVar("T")

ACTOR = "command line"
POLL_SECONDS = 0.1
MOST_OPEN = 32


def common(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --data-dir, --tiers and --json."""
    for option in (
        click.option(
            "--data-dir",
            envvar=variable("data_dir"),
            default=lambda: Config().data_dir,
            show_default="the user data directory",
            type=click.Path(file_okay=False, path_type=Path, resolve_path=True),
            help="Where the server stores everything.",
        ),
        click.option(
            "--tiers",
            "tiers_file",
            envvar=variable("tiers"),
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            show_default="tiers.toml in the data directory",
            help="TOML file with tiers of limits.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print JSON for programs."),
    ):
        command = option(command)
    return command


def operate(
    data_dir: Path,
    tiers_file: Path | None,
    action: Callable[[Operator], Awaitable[T]],
    *,
    make: bool = False,
) -> T:
    """Run what an operator does on a data directory, whether a server runs there or not.

    `make` is for what a new server begins with: the directory is made where there is none.
    """

    async def run() -> T:
        async with opened(data_dir, tiers_file, make=make) as (operator, _):
            return await action(operator)

    return asyncio.run(run())


@asynccontextmanager
async def opened(
    data_dir: Path, tiers_file: Path | None, *, make: bool = False
) -> AsyncIterator[tuple[Operator, Registry]]:
    """An operator and the registry of a data directory; `make` makes one where there is none."""
    # What fails is told in a sentence; its SQLite code is for a server's log.
    logging.getLogger("botwire_server.store.database").setLevel(logging.CRITICAL)
    require_driver()
    premises.enter(data_dir, make=make)
    if swap.is_due(data_dir):
        await finish_begun(data_dir)
    registry = await Registry.open(data_dir, durability="full", clock=time.time)

    async def finish_purge(purge_id: str) -> dict[str, Any]:
        return await _finish_purge(data_dir, registry, purge_id)

    try:
        buried = await registry.query(purges.unfinished)
        replaced = await registry.query(replacing.due)
        if buried or replaced:
            await finish_begun(data_dir)
        known = tiers.load(tiers_file or data_dir / tiers.FILE)
        yield Operator(registry, known, actor=ACTOR, finish_purge=finish_purge), registry
    finally:
        await registry.close()


async def _finish_purge(data_dir: Path, registry: Registry, purge_id: str) -> dict[str, Any]:
    """Wait until the server has removed everything; do it here where none runs."""
    bar = Progress("removing namespaces")
    while True:
        receipt = await registry.query(purges.receipt_of, purge_id)
        bar.show(*await registry.query(purges.progress, purge_id))
        if receipt is not None:
            bar.close()
            return receipt
        if not await finish_begun(data_dir):
            await asyncio.sleep(POLL_SECONDS)
        elif await registry.query(purges.receipt_of, purge_id) is None:
            raise Unavailable(
                "The purge is begun, and not everything could be removed yet; the lines above say "
                "why. It goes on with the next command, or with the server."
            )


async def finish_begun(data_dir: Path) -> bool:
    """Finish what was begun; False if a server runs, which does it itself."""
    try:
        directory = await DataDirectory.open(
            data_dir, durability="full", clock=time.time, most_open=MOST_OPEN
        )
    except Occupied:
        return False
    await directory.close()  # opening has finished them
    return True


def confirm(question: str, *, yes: bool, otherwise: str = "Nothing was removed") -> None:
    """Ask before something is lost; `--yes` answers."""
    if yes:
        return
    try:
        agreed = click.confirm(printable(question), err=True)
    except click.Abort:  # nobody is there to ask
        say("", err=True)
        agreed = False
    if not agreed:
        raise Unusable(f"{otherwise}: answer y, or give --yes.")


def show_json(value: Any) -> None:
    """Print JSON, indented."""
    click.echo(printable_json(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()))


def show_record(record: Mapping[str, Any]) -> None:
    """Print the fields of one thing, a line each."""
    width = max(map(len, record))
    for name, value in record.items():
        if not isinstance(value, list | dict):
            say(f"{name:<{width}}  {_cell(value)}")


def show_table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], *, empty: str) -> None:
    """Print things as a table with these columns, or the sentence `empty`."""
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    if not cells:
        say(empty)
        return
    table([[column.replace("_", " ") for column in columns], *cells])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return printable(",".join(map(str, value)))
    return printable(value)
