"""Which installation a data directory is: an id of its own, made once, and where it lies.

Backups carry the id, so that two servers know their generations apart. A directory that was copied
carries it too: it is noticed by where it lies, until its operator says which of the two it is.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from botwire_server.store.driver import Connection
from botwire_server.store.moments import is_moment

_ID, _PLACE, _REVOKED = "installation", "place", "revoked:"
_KEY = re.compile("[0-9A-Za-z]{12}")
# What is said of a generation from before there were ids.
NONE = "none"


COPIED = "the data directory was copied or moved since it was last served"
REMEDY = (
    "If it is a copy, run `botwire-server doctor --new-installation` here; if it was moved and the "
    "other is gone, `botwire-server doctor --same-installation`. Until then both count as one, and "
    "each removes backups of the other."
)


class Own(NamedTuple):
    """An installation: its id, None before it has one, and every tenant that it has or had."""

    id: str | None
    tenants: frozenset[str]


def new_id() -> str:
    """An id for an installation."""
    return secrets.token_hex(8)


def place_of(data_dir: Path) -> str:
    """Where a directory lies: device, inode, and in which run of the machine that is so."""
    found = data_dir.stat()
    return f"{found.st_dev}:{found.st_ino}:{boot()}"


def is_another(noted: str, place: str) -> bool:
    """Whether a directory is not the one that was noted: another inode, or another device.

    A machine numbers its devices anew when it starts, so that they say nothing across that.
    """
    device, inode, run = noted.split(":", 2)
    device_now, inode_now, run_now = place.split(":", 2)
    return inode != inode_now or (run == run_now and device != device_now)


# Units of work on the registry.


def is_settled(connection: Connection, place: str) -> bool:
    """Whether the id is made, and where the directory lies is noted or another place."""
    noted = noted_place(connection)
    return (
        of(connection) is not None
        and noted is not None
        and (noted == place or is_another(noted, place))
    )


def settle(connection: Connection, place: str) -> None:
    """Make the id where there is none, and note where the directory lies unless it is a copy."""
    connection.execute(
        "INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING", (_ID, new_id())
    )
    noted = noted_place(connection)
    if noted is None or not is_another(noted, place):
        stay(connection, place)


def stay(connection: Connection, place: str) -> None:
    """Note where the directory lies: it was moved there, or its devices are numbered anew."""
    connection.execute(
        "INSERT INTO facts (name, value) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (_PLACE, place),
    )


def renew(connection: Connection, place: str) -> str:
    """Make an installation of its own of a copied directory; its id."""
    made = new_id()
    become(connection, made)
    stay(connection, place)
    return made


def become(connection: Connection, id: str) -> None:
    """Be this installation from now on."""
    connection.execute(
        "INSERT INTO facts (name, value) VALUES (?, ?)"
        " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (_ID, id),
    )


def of(connection: Connection) -> str | None:
    """The id of the installation."""
    found = _fact(connection, _ID)
    return None if found is None else str(found)


def noted_place(connection: Connection) -> str | None:
    """Where the directory was when that was last noted."""
    found = _fact(connection, _PLACE)
    return None if found is None else str(found)


def revoked(connection: Connection) -> dict[str, float]:
    """The keys that were revoked here and that no registry knows any more, with when they were."""
    rows = connection.execute(
        "SELECT substr(name, ?), value FROM facts WHERE substr(name, 1, ?) = ?",
        (len(_REVOKED) + 1, len(_REVOKED), _REVOKED),
    )
    return {str(id): at for id, at in rows if _KEY.fullmatch(str(id)) and is_moment(at)}


def note_revoked(connection: Connection, keys: Mapping[str, float]) -> None:
    """Remember keys that were revoked and that the registry does not know."""
    connection.executemany(
        "INSERT INTO facts (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING",
        [(_REVOKED + id, at) for id, at in keys.items()],
    )


def own(connection: Connection) -> Own:
    """The installation, with every tenant that it has or had."""
    rows = connection.execute(
        """SELECT id FROM tenants UNION SELECT tenant_id FROM purges
        UNION SELECT tenant_id FROM audit WHERE tenant_id IS NOT NULL"""
    )
    return Own(of(connection), frozenset(str(id) for [id] in rows))


def _fact(connection: Connection, name: str) -> object:
    row = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return None if row is None else row[0]


@cache
def boot() -> str:
    """Which run of this machine it is; a new one each time where that is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return os.urandom(8).hex()
