"""`botwire-server backup`, `restore` and `backups`: everything, or one tenant, and back."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import click

from botwire_server import tiers
from botwire_server.cli.common import (
    ACTOR,
    POLL_SECONDS,
    common,
    confirm,
    finish_begun,
    opened,
    show_json,
    show_record,
    show_table,
)
from botwire_server.cli.terminal import Progress, printable, say
from botwire_server.errors import Unavailable, Unusable
from botwire_server.store import premises, swap
from botwire_server.store import restore as reading
from botwire_server.store.backup import KEEP
from botwire_server.store.backups import Backups, Plan, restore_everything, verify
from botwire_server.store.buckets import place_at
from botwire_server.store.destinations import place_apart
from botwire_server.store.places import LOCKED, Place
from botwire_server.store.provenance import Wishes

COLUMNS = ("generation", "scope", "installation", "began_at", "namespaces", "bytes", "damaged")
# Tenants that are named before a restore.
MOST_TOLD = 50


@click.command()
@click.argument("dest")
@click.option("--tenant", help="Only this tenant.")
@click.option(
    "--keep",
    type=click.IntRange(min=1),
    default=KEEP,
    show_default=True,
    help="Generations that stay; older ones are removed.",
)
@click.option("--full", is_flag=True, help="Copy also what has not changed.")
@common
def backup(
    dest: str,
    tenant: str | None,
    keep: int,
    full: bool,
    data_dir: Path,
    tiers_file: Path | None,
    as_json: bool,
) -> None:
    """Back up everything to DEST, a directory or s3://bucket/prefix, while the server runs.

    Every write acknowledged before it began is in it. Into the same DEST only what changed is
    copied again. Several servers may share a DEST: each looks at its own generations, and whatever
    else lies there is left alone. S3 takes credentials and endpoint from the usual AWS_ variables.
    """
    place = place_apart(dest, data_dir)
    if not (data_dir / "control.db").exists() and not swap.is_due(data_dir):
        # Not made: a mistyped name must not push good generations out by empty ones.
        raise Unusable(f"{data_dir} holds nothing to back up: name another --data-dir.")

    async def run() -> dict[str, Any]:
        async with _backups(data_dir, tiers_file) as backups:
            return await backups.make(place, tenant=tenant, keep=keep, full=full, progress=bar.show)

    bar = Progress("backing up")
    done = asyncio.run(run())
    bar.close()
    _show(done, as_json)
    for each in done["damaged"]:
        kept = "its last good copy is kept" if each["kept"] else "there is no copy of it"
        name = printable(f"{each['tenant']}/{each['namespace']}")
        say(f"{name}: {each['problem']} {kept}.", err=True)
    for id in done["unreadable"]:
        say(f"The manifest of generation {id} is damaged; nothing old was removed.", err=True)
    if done["damaged"] or done["unreadable"]:
        raise Unavailable(
            "The backup is made, but not everything is sound; the lines above say what."
        )


@click.command()
@click.argument("src")
@click.option("--tenant", help="Only this tenant, beside a running server.")
@click.option("--namespace", help="Only this namespace of the tenant.")
@click.option("--generation", help="Another than the newest; `backups SRC` lists them.")
@click.option("--verify", "verify_only", is_flag=True, help="Check everything, restore nothing.")
@click.option(
    "--from-installation",
    "installation",
    metavar="ID",
    help="Take the backup of another installation; `backups SRC` shows whose there are.",
)
@click.option("--with-keys", is_flag=True, help="Let keys of another installation's tenants work.")
@click.option("--with-operator-keys", is_flag=True, help="Let the operators' keys in it work.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
def restore(
    src: str,
    tenant: str | None,
    namespace: str | None,
    generation: str | None,
    verify_only: bool,
    installation: str | None,
    with_keys: bool,
    with_operator_keys: bool,
    yes: bool,
    data_dir: Path,
    tiers_file: Path | None,
    as_json: bool,
) -> None:
    """Restore the backup in SRC: everything, with the server stopped, or one tenant beside it.

    Everything is checked before anything is touched, and it takes place whole or not at all. What
    was stored since the backup is gone afterwards.

    The backup must be of this installation. Into an empty data directory any is taken, with the
    keys of its tenants; another's into one that is in use needs --from-installation, and its keys
    stay off.
    """
    if namespace is not None and (tenant is None or verify_only):
        raise Unusable("--namespace goes with --tenant, and not with --verify.")
    if (with_keys or with_operator_keys) and (tenant is not None or verify_only):
        raise Unusable("Keys are restored with everything, not with --tenant or --verify.")
    place = place_apart(src, data_dir)
    wishes = Wishes(installation, with_keys, with_operator_keys)
    bar = Progress("checking" if verify_only else "restoring")
    place.require()
    if verify_only:
        with _room_beside(data_dir) as room:
            done = verify(
                place,
                room,
                data_dir,
                tenant=tenant,
                generation=generation,
                wishes=wishes,
                progress=bar.show,
            )
    elif tenant is not None:
        done = asyncio.run(
            _restore_tenant(
                place, data_dir, tiers_file, tenant, namespace, generation, wishes, yes, bar
            )
        )
    else:
        premises.enter(data_dir, make=True)
        done = restore_everything(
            place,
            data_dir,
            generation=generation,
            wishes=wishes,
            agree=lambda plan: _agree(plan, data_dir, yes=yes),
            progress=bar.show,
        )
        asyncio.run(_note(data_dir, tiers_file, done))
    bar.close()
    _show(done, as_json)
    for each in done["not_up_to_date"]:
        what = (
            f"is as of {each['restored_from']}" if each["restored_from"] else "is not in the backup"
        )
        name = printable(f"{each['tenant']}/{each['namespace']}")
        say(f"{name} {what}: {each['problem']}", err=True)
    if done["notice"] is not None:
        say(done["notice"], err=True)


def _agree(plan: Plan, data_dir: Path, *, yes: bool) -> None:
    """Say what a restore is about to do, and ask."""
    if not yes:
        _tell(plan)
    if plan.standing == "lost":
        question = f"Make {data_dir} this installation, with these tenants and keys?"
    else:
        question = f"Replace everything in {data_dir} by the backup?"
    confirm(question, yes=yes, otherwise="Nothing was restored")


def _tell(plan: Plan) -> None:
    whose = {
        "own": "of this installation",
        "lost": f"of installation {plan.installation}",
        "foreign": f"of ANOTHER installation, {plan.installation}",
    }[plan.standing]
    lines = [f"Generation {plan.generation} {whose}, begun at {plan.began_at}.", ""]
    for each in plan.tenants[:MOST_TOLD]:
        keys = ", ".join(each["keys"]) or "no key that works"
        lines.append(
            f"  {printable(each['tenant'])}: {each['namespaces']} namespaces; keys: {keys}"
        )
    if len(plan.tenants) > MOST_TOLD:
        lines.append(f"  ... and {len(plan.tenants) - MOST_TOLD} tenants more")
    if plan.operator_keys:
        lines.append(f"  operators' keys that will work: {', '.join(plan.operator_keys)}")
    if plan.keys_off:
        lines.append(f"  keys that worked and will not: {plan.keys_off}")
    say("\n".join([*lines, ""]), err=True)


@click.command("backups")
@click.argument("src")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def list_(src: str, as_json: bool) -> None:
    """The generations of the backup in SRC, newest first."""
    found = reading.listing(place_at(src))
    if as_json:
        show_json(found)
    else:
        show_table(found, COLUMNS, empty="There is none.")


async def purge_from(
    data_dir: Path, tiers_file: Path | None, places: list[Place], tenant_id: str
) -> list[dict[str, Any]]:
    """Remove a tenant from backups, waiting for commands that write to them."""
    async with _backups(data_dir, tiers_file) as backups:
        done = []
        for place in places:
            waiting = False
            while True:
                try:
                    done.append(await backups.purge(place, tenant_id))
                    break
                except Unavailable as error:
                    if error.message != LOCKED:
                        raise
                if not waiting:
                    say(f"Waiting for another command on {place.shown} ...", err=True)
                waiting = True
                await asyncio.sleep(1)
        return done


async def purged_before(data_dir: Path, tiers_file: Path | None, id: str) -> str | None:
    """The id, if a tenant of this id was purged and there is none of this name."""
    async with _backups(data_dir, tiers_file) as backups:
        return None if backups.has(id) else await backups.purged_before(id)


@asynccontextmanager
async def _backups(
    data_dir: Path, tiers_file: Path | None, *, make: bool = False
) -> AsyncIterator[Backups]:
    async with opened(data_dir, tiers_file, make=make) as (_, registry):
        known = tiers.load(tiers_file or data_dir / tiers.FILE)
        yield Backups(registry, data_dir, tiers=known, actor=ACTOR)


async def _restore_tenant(
    place: Place,
    data_dir: Path,
    tiers_file: Path | None,
    tenant: str,
    namespace: str | None,
    generation: str | None,
    wishes: Wishes,
    yes: bool,
    bar: Progress,
) -> dict[str, Any]:
    async with _backups(data_dir, tiers_file, make=True) as backups:
        if backups.has(tenant):
            what = "everything" if namespace is None else f"namespace {namespace}, all"
            confirm(
                f"Replace {what} that tenant {tenant} has stored, by the backup?",
                yes=yes,
                otherwise="Nothing was restored",
            )
        done = await backups.restore_tenant(
            place,
            tenant,
            namespace=namespace,
            generation=generation,
            wishes=wishes,
            progress=bar.show,
        )
        # A server has what was replaced open, and closes and removes it; where none runs we do.
        while await backups.files_left(done["tenant_id"]):
            if not await finish_begun(data_dir):
                await asyncio.sleep(POLL_SECONDS)
            elif await backups.files_left(done["tenant_id"]):
                say(
                    "It is restored, and not everything that it replaces could be removed yet; the "
                    "lines above say why. That goes on with the next command, or with the server.",
                    err=True,
                )
                break
        return done


@contextmanager
def _room_beside(data_dir: Path) -> Iterator[Path]:
    """Where copies are looked at: in the data directory, or in the system's place for such things.

    A backup can be looked through on any machine, and that makes no data directory.
    """
    if premises.holds_data(data_dir):
        premises.enter(data_dir)
        yield data_dir
    else:
        with tempfile.TemporaryDirectory(prefix="botwire-server-") as name:
            yield Path(name)


async def _note(data_dir: Path, tiers_file: Path | None, done: dict[str, Any]) -> None:
    async with _backups(data_dir, tiers_file) as backups:
        outcome = f"{done['tenants']} tenants, {done['namespaces']} namespaces"
        await backups.note("restore", None, done["generation"], outcome)


def _show(done: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show_json(done)
    else:
        show_record(done)
