"""Where imports and restored tenants are built, out of sight until whole, and files looked at.

The place is marked, and the mark locked while its process lives, so that whoever opens the data
directory next can tell an import or a check that was cut short from one that is under way.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from botwire_server.errors import Unavailable
from botwire_server.lazy import fcntl
from botwire_server.store import causes

log = logging.getLogger(__name__)

MARK = ".importing"


@contextmanager
def staging(data_dir: Path, purpose: str = "import") -> Iterator[Path]:
    """A new directory, gone afterwards unless it was renamed; then only its mark goes."""
    path = data_dir / f".{purpose}-{secrets.token_hex(6)}"
    path.mkdir(mode=0o700)
    mark = os.open(path / MARK, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(mark, fcntl.LOCK_EX)
        yield path
    finally:
        with suppress(OSError):
            _clear(path)
        os.close(mark)


@contextmanager
def adding(data_dir: Path, tenant_id: str, known: Callable[[], set[str]]) -> Iterator[Path]:
    """A tenant's directory, in which files are made that the registry does not know yet.

    What is still not among the `known` files afterwards is removed. One process at a time.
    """
    path = data_dir / "tenants" / tenant_id
    for directory in (path.parent, path):
        directory.mkdir(exist_ok=True, mode=0o700)
    mark = os.open(path / MARK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            current = os.path.samestat(os.fstat(mark), (path / MARK).stat())
        except (BlockingIOError, FileNotFoundError):
            current = False
        if not current:
            raise Unavailable(
                "This tenant is just being restored or opened by another process; try again when "
                "that is done."
            )
        _remove_unknown(data_dir, path, known())  # what one before this has left
        try:
            yield path
        finally:
            _remove_unknown(data_dir, path, known())
            (path / MARK).unlink(missing_ok=True)
            with suppress(OSError):
                path.rmdir()
    finally:
        os.close(mark)


def clear_abandoned(
    data_dir: Path, is_tenant: Callable[[str], bool], known: Callable[[], Collection[str]]
) -> None:
    """Remove what was cut short: all of it, or what the registry does not know, and the mark."""
    for mark in [*data_dir.glob(f".*-*/{MARK}"), *data_dir.glob(f"tenants/*/{MARK}")]:
        try:
            descriptor = os.open(mark, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # it was just finished
        except OSError as error:
            log.warning("%s", causes.told(f"{mark} cannot be opened", error))
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Asked only now: until the lock was free the import could still become a tenant.
            if is_tenant(mark.parent.name):
                _remove_unknown(data_dir, mark.parent, known())
                mark.unlink(missing_ok=True)
            else:
                _clear(mark.parent)
        except BlockingIOError:
            pass  # it is under way
        except OSError as error:  # no reason not to start; the next one tries again
            log.warning("%s", causes.told(f"{mark.parent} cannot be cleared", error))
        finally:
            os.close(descriptor)
    for path in data_dir.glob(".*-*"):
        with suppress(OSError):
            path.rmdir()  # the crash came before the mark, or after it


def _clear(directory: Path) -> None:
    """Remove a place, its mark last: until then it can be told what it is."""
    for path in directory.iterdir():
        if path.name == MARK:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    (directory / MARK).unlink()
    directory.rmdir()


def _remove_unknown(data_dir: Path, directory: Path, known: Collection[str]) -> None:
    for path in directory.glob("*.db"):
        if str(path.relative_to(data_dir)) not in known:
            for suffix in ("-wal", "-shm", ""):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
