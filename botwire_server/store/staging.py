"""Where an import is built, out of sight until it is whole, and where files are looked at.

The place is marked, and the mark locked while its process lives, so that whoever opens the data
directory next can tell an import or a check that was cut short from one that is under way.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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
        shutil.rmtree(path, ignore_errors=True)
        os.close(mark)


def clear_abandoned(data_dir: Path, is_tenant: Callable[[str], bool]) -> None:
    """Remove what was cut short and left here: all of it, or the mark of a whole import."""
    for mark in [*data_dir.glob(f".*-*/{MARK}"), *data_dir.glob(f"tenants/*/{MARK}")]:
        descriptor = os.open(mark, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Asked only now: until the lock was free the import could still become a tenant.
            if is_tenant(mark.parent.name):
                mark.unlink(missing_ok=True)
            else:
                shutil.rmtree(mark.parent)
        except BlockingIOError:
            pass  # it is under way
        finally:
            os.close(descriptor)
