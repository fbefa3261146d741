"""Where backups lie: a directory, or a bucket of S3-compatible storage (see `buckets`).

A place holds objects under paths such as tenants/<id>/<object>.db. An object is there whole or not
at all. Paths come from manifests, which anybody may have written: what is no path of ours is
refused.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from botwire_server.errors import Damaged, Unavailable, Unusable
from botwire_server.store.migrations import sync_directory

_PATH = re.compile(r"(control|generations|tenants/[0-9a-f]{16})/[0-9A-Za-z][0-9A-Za-z.-]{0,120}")
_SCRATCH = ".part-"

LOCKED = "Another command is writing to this backup; wait until it is done."


class Missing(Unavailable):
    """There is no such object."""

    def __init__(self) -> None:
        super().__init__("An object of the backup is missing.")


class Place(Protocol):
    """Where backups lie."""

    @property
    def shown(self) -> str:
        """What an operator calls it."""

    def require(self) -> None:
        """Raise `Unusable` where no backup can be read from it."""

    def paths(self, prefix: str) -> list[str]:
        """The paths of all objects that begin so."""

    def read(self, path: str) -> bytes:
        """A small object. Raises `Missing`."""

    def fetch(self, path: str, file: Path) -> None:
        """Write an object to a new file. Raises `Missing`."""

    def write(self, path: str, content: bytes) -> None:
        """Make or replace a small object; durable when this returns."""

    def put(self, path: str, file: Path) -> None:
        """Make an object of a file, which is gone afterwards; durable after `settle`."""

    def settle(self) -> None:
        """Make what was put durable."""

    def remove(self, paths: Iterable[str]) -> None:
        """Remove objects, with whatever versions of them the storage keeps."""

    def scratch(self, data_dir: Path) -> AbstractContextManager[Path]:
        """A directory for files that are to be put."""

    def locked(self) -> AbstractContextManager[None]:
        """The right to write. Raises `Unavailable` where somebody else has it."""


def checked(path: str) -> str:
    """A path, if it is one of ours."""
    if not _PATH.fullmatch(path):
        raise Damaged("The backup names an object that cannot be; nothing was read from it.")
    return path


class Directory:
    """Backups in a directory of this machine, for its owner's eyes only."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._unsettled: set[Path] = set()

    @property
    def shown(self) -> str:
        """See `Place`."""
        return str(self._root)

    def require(self) -> None:
        """See `Place`."""
        if not (self._root / "generations").is_dir():
            raise Unusable(f"{self._root} holds no backup.")

    def paths(self, prefix: str) -> list[str]:
        """See `Place`."""
        found = (
            str(path.relative_to(self._root))
            for folder in ("control", "generations", "tenants/*")
            for path in self._root.glob(f"{folder}/*")
        )
        return [path for path in found if path.startswith(prefix)]

    def read(self, path: str) -> bytes:
        """See `Place`."""
        try:
            return (self._root / checked(path)).read_bytes()
        except FileNotFoundError:
            raise Missing from None

    def fetch(self, path: str, file: Path) -> None:
        """See `Place`."""
        try:
            with (self._root / checked(path)).open("rb") as source, new_file(file) as target:
                shutil.copyfileobj(source, target, 1 << 20)
        except FileNotFoundError:
            raise Missing from None

    def write(self, path: str, content: bytes) -> None:
        """See `Place`."""
        with self._scratch() as scratch:
            with new_file(scratch / "object") as file:
                file.write(content)
            self.put(path, scratch / "object")
        self.settle()

    def put(self, path: str, file: Path) -> None:
        """See `Place`."""
        target = self._root / checked(path)
        self._make(target.parent)
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(file, target)
        self._unsettled.add(target.parent)

    def settle(self) -> None:
        """See `Place`."""
        while self._unsettled:
            sync_directory(self._unsettled.pop())

    def remove(self, paths: Iterable[str]) -> None:
        """See `Place`."""
        for path in paths:
            target = self._root / checked(path)
            target.unlink(missing_ok=True)
            if not any(target.parent.iterdir()):
                target.parent.rmdir()
                self._unsettled.discard(target.parent)
                self._unsettled.add(target.parent.parent)
            else:
                self._unsettled.add(target.parent)
        self.settle()

    def scratch(self, data_dir: Path) -> AbstractContextManager[Path]:
        """See `Place`. In the same file system, so that nothing is copied twice."""
        return self._scratch()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """See `Place`."""
        self._make(self._root)
        descriptor = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Unavailable(LOCKED) from None
            for abandoned in self._root.glob(f"{_SCRATCH}*"):
                shutil.rmtree(abandoned)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        path = self._root / f"{_SCRATCH}{secrets.token_hex(6)}"
        path.mkdir(mode=0o700)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _make(self, directory: Path) -> None:
        if directory.is_dir():
            return
        if directory != self._root:
            self._make(directory.parent)
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._unsettled.add(directory.parent)


@contextmanager
def new_file(file: Path) -> Iterator[BinaryIO]:
    """A file that must not exist yet, for its owner's eyes only."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as opened:
        yield opened
