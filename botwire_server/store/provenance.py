"""Whose a backup is, and what that lets a restore take of it.

    own       the data directory's installation made it: its keys work again, but for those that
              were revoked or whose tenant was purged since
    lost      the data directory is empty, or has lost its registry: it becomes the installation
              of the backup, and tenants' keys work
    foreign   another installation made it: only when it is named, and its keys stay off

An operator's key reaches every tenant: of a backup that is not one's own it works only when that is
asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from botwire_server.errors import Damaged, Invalid, Unusable
from botwire_server.store import control_copies, copying, driver, installation, migrations
from botwire_server.store.driver import Connection, sqlite3
from botwire_server.store.generations import Generation
from botwire_server.store.installation import NONE, Own
from botwire_server.store.places import Missing, Place

Standing = Literal["own", "lost", "foreign"]

# Before this, SQLite trusts some of what a file says of itself more than it should.
SOUND_WITH_FOREIGN_FILES = (3, 53, 2)


class Wishes(NamedTuple):
    """What an operator said of a backup: whose to take, and which of its keys."""

    installation: str | None = None
    with_keys: bool = False
    with_operator_keys: bool = False


ANY = Wishes()


class Present(NamedTuple):
    """What a data directory has that a restore of everything must not undo."""

    own: Own
    keys_required: bool
    revoked: dict[str, float]  # keys, also those that no registry knows any more
    purged: dict[str, float]  # tenants
    receipts: list[tuple[Any, ...]]  # of their purges


def present(control: Path) -> Present | None:
    """What a registry says; None where there is none, or none to go by.

    One in which there never was a tenant or a key says nothing either. Raises `Unusable` where it
    is newer than this code.
    """
    if not control.exists():
        return None
    try:
        with copying.opened(control) as connection:
            return _present(connection)
    except Damaged:
        return None


def _present(connection: Connection) -> Present | None:
    [application_id] = connection.execute("PRAGMA application_id").fetchone()
    [steps] = connection.execute("PRAGMA user_version").fetchone()
    if application_id != migrations.CONTROL.application_id or steps < 1:
        return None
    if steps > len(migrations.CONTROL.steps):
        raise Unusable(
            "The registry here was written by a newer botwire-server: update this one. Nothing was "
            "changed."
        )
    own = installation.own(connection)
    keys = connection.execute("SELECT id, revoked_at FROM keys").fetchall()
    if not own.tenants and not keys:
        return None
    purged = connection.execute(
        """SELECT id, tenant_id, scope, actor, started_at, receipt FROM purges
        WHERE scope = 'tenant' AND receipt IS NOT NULL ORDER BY started_at"""
    ).fetchall()
    return Present(
        own,
        keys_required=control_copies.keys_required(connection),
        revoked=installation.revoked(connection)
        | {id: revoked_at for id, revoked_at in keys if revoked_at is not None},
        purged={tenant_id: started_at for _, tenant_id, _, _, started_at, _ in purged},
        receipts=purged,
    )


def of_generation(place: Place, generation: Generation, own: Own, scratch: Path) -> bool:
    """Whether a generation is of this installation.

    One from before there were ids is, if its registry names a tenant that is or was here.
    """
    if generation.installation is not None and own.id is not None:
        return generation.installation == own.id
    named = {copy.tenant_id for copy in generation.namespaces} | {generation.tenant_id}
    return bool(named & own.tenants) or bool(_tenants(place, generation, scratch) & own.tenants)


def _tenants(place: Place, generation: Generation, scratch: Path) -> set[str]:
    """The ids of the tenants in a generation's registry; none where that cannot be read."""
    file = scratch / f"control-{generation.id}.db"
    try:
        place.fetch(generation.control.path, file, size=generation.control.bytes)
        copying.inspect_control(file)
        return set(control_copies.tenants(file))
    except (Damaged, Missing):
        return set()
    finally:
        file.unlink(missing_ok=True)


def said(generation: Generation) -> str:
    """What a generation says of whose it is, as an operator names it."""
    return generation.installation or NONE


def require_wished(generation: Generation, present: Present | None, wishes: Wishes) -> None:
    """Raise `Invalid`: only a generation of another installation than is meant would do."""
    if wishes.installation is not None:
        raise Invalid(
            f"This backup holds nothing of installation {wishes.installation}: `backups` lists "
            "whose generations there are."
        )
    own = present.own.id if present is not None and present.own.id is not None else NONE
    whose = (
        "does not say of which installation it is, and holds no tenant of this one"
        if generation.installation is None
        else f"is of installation {generation.installation}"
    )
    raise Invalid(
        f"This backup {whose}; this data directory is installation {own}. Nothing was "
        f"changed. To take it all the same, give --from-installation {said(generation)}: its "
        "keys stay off unless you give --with-keys as well."
    )


def require_one(found: Iterable[str]) -> None:
    """Raise `Invalid` where a backup is of several installations and nobody said which is meant."""
    several = sorted(set(found))
    if len(several) > 1:
        raise Invalid(
            f"This backup is of several installations ({', '.join(several)}): say whose with "
            "--from-installation, or name a --generation (`backups` lists them)."
        )


def notice(standing: Standing) -> str | None:
    """What an operator is told where this SQLite is not one for files from elsewhere.

    Raises `Unusable` for a foreign backup.
    """
    if sqlite3.sqlite_version_info >= SOUND_WITH_FOREIGN_FILES:
        return None
    needed = ".".join(map(str, SOUND_WITH_FOREIGN_FILES))
    if standing == "foreign":
        raise Unusable(
            f"A backup of another installation is read with SQLite {needed} or newer, and this "
            f"Python has {driver.sqlite3.sqlite_version}: run `pip install pysqlite3`. Nothing was "
            "changed."
        )
    return (
        f"SQLite {driver.sqlite3.sqlite_version} read this backup; before {needed} a file that "
        "somebody has prepared can do harm. Make sure that nobody else writes to your backups."
    )
