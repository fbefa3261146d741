"""Where a data directory lies: that it is there, and that nobody else can change what is in it.

A directory is made only for who says so: a mistyped name must not become an empty server. One that
others may write to is refused, as they could put files of theirs in the place of ours. Where the
platform lets a group write to it (Kubernetes' fsGroup, OpenShift) or has root own it, what lies in
it must be this user's, and is closed to others.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from botwire_server.errors import Unusable
from botwire_server.store import causes, swap
from botwire_server.store.migrations import sync_directory

CONTROL = "control.db"
# What a server makes at the top of its data directory. Below `tenants` nobody else gets.
OURS = (CONTROL, f"{CONTROL}-wal", f"{CONTROL}-shm", "lock", "tenants", swap.PLACE)


class Concern(NamedTuple):
    """What is not well with a directory's rights, and what to do. `fatal` ones stop a start."""

    fatal: bool
    says: str
    remedy: str


def enter(path: Path, *, make: bool = False) -> None:
    """See that a data directory is there and nobody else's; `make` it where there is none.

    Raises `Unusable`.
    """
    try:
        if path.exists() and not path.is_dir():
            raise Unusable(f"{path} is no directory: name another --data-dir.")
        if make:
            _make(path)
        elif not path.exists():
            raise Unusable(
                f"There is no data directory {path}: name the right one with --data-dir. "
                "`botwire-server serve` and `botwire-server tenants create` make one."
            )
        if not make and not holds_data(path):
            raise Unusable(
                f"{path} holds nothing of a server: name the right one with --data-dir. "
                "`botwire-server serve` and `botwire-server tenants create` begin there."
            )
        for concern in concerns(path):
            if concern.fatal:
                raise Unusable(f"{path} is not used: {concern.says}. {concern.remedy}")
        if shared(path):
            _close_to_others(path)
    except OSError as error:
        raise unusable(path, error) from error


def holds_data(path: Path) -> bool:
    """Whether a server has ever stored something there."""
    return (path / CONTROL).exists() or swap.is_due(path) or any(path.glob("tenants/*/*.db"))


def shared(path: Path) -> bool:
    """Whether somebody besides this user may make and rename files there."""
    found = path.stat()
    return found.st_uid != os.geteuid() or bool(found.st_mode & 0o022)


def concerns(path: Path) -> Iterator[Concern]:
    """What of a data directory's rights is not well. It looks and changes nothing."""
    found = path.stat()
    me = os.geteuid()
    sticky = found.st_mode & stat.S_ISVTX
    groups = {os.getegid(), *os.getgroups()}
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        yield Concern(
            True,
            f"it belongs to user {found.st_uid}, and this is user {me}, who may not write there",
            "Run the server and its commands as the user that owns it.",
        )
        return
    if found.st_mode & 0o002 and not sticky:
        yield Concern(
            True, "every user of this machine may write to it", f"Run `chmod o-w {path}`."
        )
    elif found.st_mode & 0o020 and not sticky and found.st_gid not in groups:
        yield Concern(
            True,
            f"group {found.st_gid}, which is not this user's, may write to it",
            f"Run `chmod g-w {path}`.",
        )
    if not shared(path):
        if found.st_mode & 0o077:
            yield Concern(
                False, "it can be entered by other users of this machine", f"chmod 700 {path}"
            )
        return
    yield from _foreign(path, {me, found.st_uid} if me == 0 else {me})
    yield Concern(False, *_sharing(path, found))


def unusable(path: Path, error: OSError) -> Unusable:
    """A data directory with which the system does not let us work."""
    says, remedy = causes.of(error)
    return Unusable(
        f"{error.filename or path} cannot be used as data directory: {says}. Name another "
        f"--data-dir, or {remedy}."
    )


def _make(path: Path) -> None:
    missing = [parent for parent in path.absolute().parents if not parent.exists()]
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Its own name must survive a power loss too, also if whoever made it did not come to that.
    for parent in (path.absolute().parent, *(made.parent for made in missing)):
        # Not everybody may look into what is above their data directory.
        with contextlib.suppress(PermissionError):
            sync_directory(parent)


def _sharing(path: Path, found: os.stat_result) -> tuple[str, str]:
    who = []
    if found.st_uid != os.geteuid():
        who.append(f"user {found.st_uid}")
    if found.st_mode & 0o020:
        who.append(f"group {found.st_gid}")
    if found.st_mode & 0o002:
        who.append("everybody")
    return (
        f"{' and '.join(who)} may put files into it, and this is user {os.geteuid()}",
        "Where the platform makes it so (fsGroup, OpenShift), leave it. Elsewhere give it to the "
        f"server's user alone: chown and chmod 700 {path}.",
    )


def _foreign(path: Path, owners: set[int]) -> Iterator[Concern]:
    """What lies at the top of a shared directory under a name of ours and is not ours."""
    for name in OURS:
        try:
            found = (path / name).lstat()
        except FileNotFoundError:
            continue
        if found.st_uid not in owners:
            yield Concern(
                True,
                f"{name} in it belongs to user {found.st_uid}, and others may put files there",
                "If it is your server's, give it back (chown -R); if you do not know it, move it "
                "away.",
            )
        elif stat.S_ISLNK(found.st_mode):
            yield Concern(
                True,
                f"{name} in it is a link, and others may put files there",
                "Put what it leads to in its place, or close the directory: chmod 700.",
            )


def _close_to_others(path: Path) -> None:
    """Take from others what a platform gave them of our files, such as fsGroup at every mount."""
    for name in OURS:
        file = path / name
        with contextlib.suppress(FileNotFoundError):
            found = file.lstat()
            if found.st_mode & 0o077 and found.st_uid == os.geteuid():
                file.chmod(0o700 if stat.S_ISDIR(found.st_mode) else 0o600)
