"""Where backups lie: a directory, or a bucket of S3-compatible storage (see `buckets`).

A place holds objects under paths such as tenants/<id>/<object>.db. An object is there whole or not
at all. Only what has a path of exactly such a form is read, made or removed: whatever else lies
there is somebody else's. Below the place no link is followed.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from botwire_server.errors import Damaged, Unavailable, Unusable
from botwire_server.lazy import fcntl

# Says that a place is ours; written before anything else is.
MARKER = "botwire-server-backup.json"
GENERATION = r"[0-9]{8}T[0-9]{6}\.[0-9]{3}Z-[0-9a-f]{4}"

_PATH = re.compile(
    rf"{re.escape(MARKER)}|generations/{GENERATION}\.json|control/control-{GENERATION}-[0-9a-f]{{6}}\.db"
    rf"|tenants/[0-9a-f]{{16}}/(control-{GENERATION}-[0-9a-f]{{6}}|[0-9a-f]{{15}}-{GENERATION})\.db"
)
_TENANT = re.compile("[0-9a-f]{16}")
_SCRATCH = re.compile(r"\.part-[0-9a-f]{12}")
# What a backup makes in its scratch directory.
_IN_SCRATCH = re.compile(
    rf"(control|now|object|[0-9a-f]{{15}}|control-{GENERATION})(\.db)?(-wal|-shm|-journal)?"
)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Opening a pipe would wait for who writes to it.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PART = 1 << 20

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

    def read(self, path: str, *, most: int) -> bytes:
        """A small object. Raises `Missing`; `Damaged` if it has more bytes than `most`."""

    def fetch(self, path: str, file: Path, *, size: int) -> None:
        """Write an object to a new file. Raises `Missing`; `Damaged` if it has another size."""

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


def is_ours(path: str) -> bool:
    """Whether a path below a place is one that we write."""
    return _PATH.fullmatch(path) is not None


def other_size(path: str) -> Damaged:
    """The refusal of an object that is longer or shorter than it should be."""
    return Damaged(f"{path} is not what was written: it has another size")


class Directory:
    """Backups in a directory of this machine, for its owner's eyes only."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._unsettled: set[str] = set()  # folders below the root; "" is the root

    @property
    def shown(self) -> str:
        """See `Place`."""
        return str(self.root)

    def require(self) -> None:
        """See `Place`."""
        if not (self.root / "generations").is_dir():
            raise Unusable(f"{self.root} holds no backup.")

    def paths(self, prefix: str) -> list[str]:
        """See `Place`."""
        first, _, rest = prefix.partition("/")
        tenant, more, _ = rest.partition("/")
        if first != "tenants":
            folders = [first]
        elif more:
            folders = [f"tenants/{tenant}"]
        else:
            folders = [
                f"tenants/{name}"
                for name, is_folder in self._listed("tenants")
                if is_folder and _TENANT.fullmatch(name)
            ]
        found = (
            f"{folder}/{name}"
            for folder in folders
            for name, is_folder in self._listed(folder)
            if not is_folder
        )
        return [path for path in found if is_ours(path) and path.startswith(prefix)]

    def read(self, path: str, *, most: int) -> bytes:
        """See `Place`."""
        with self._object(path) as source:
            content = source.read(most + 1)
        if len(content) > most:
            raise other_size(path)
        return content

    def fetch(self, path: str, file: Path, *, size: int) -> None:
        """See `Place`."""
        with self._object(path) as source:
            if os.fstat(source.fileno()).st_size != size:
                raise other_size(path)
            with new_file(file) as target:
                copy_sized(source, target, size, path)

    def write(self, path: str, content: bytes) -> None:
        """See `Place`."""
        with self._scratch() as scratch:
            with new_file(scratch / "object") as file:
                file.write(content)
            self.put(path, scratch / "object")
        self.settle()

    def put(self, path: str, file: Path) -> None:
        """See `Place`."""
        folder, _, name = checked(path).rpartition("/")
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with self._folder(folder, make=True) as into:
            os.rename(file, name, dst_dir_fd=into)
        self._unsettled.add(folder)

    def settle(self) -> None:
        """See `Place`."""
        while self._unsettled:
            with self._folder(self._unsettled.pop()) as folder:
                os.fsync(folder)

    def remove(self, paths: Iterable[str]) -> None:
        """See `Place`."""
        for path in paths:
            folder, _, name = checked(path).rpartition("/")
            try:
                with self._folder(folder) as within, suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=within)
            except Missing:
                continue
            self._unsettled.add(folder)
            self._remove_empty(folder)
        self.settle()

    def scratch(self, data_dir: Path) -> AbstractContextManager[Path]:
        """See `Place`. In the same file system, so that nothing is copied twice."""
        return self._scratch()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """See `Place`."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            descriptor = os.open(
                self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
        except IsADirectoryError:
            raise self._in_the_way("lock") from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._in_the_way("lock") from None
            raise
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Unavailable(LOCKED) from None
            for name, is_folder in self._listed(""):
                if is_folder and _SCRATCH.fullmatch(name):
                    self._clear_scratch(name)
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        path = self.root / f".part-{secrets.token_hex(6)}"
        path.mkdir(mode=0o700)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def _clear_scratch(self, name: str) -> None:
        """Remove what a backup that was cut short has left, and nothing else."""
        with self._folder(name) as folder:
            for each, is_folder in self._listed(name):
                if not is_folder and _IN_SCRATCH.fullmatch(each):
                    os.unlink(each, dir_fd=folder)
        self._remove_empty(name)

    def _remove_empty(self, folder: str) -> None:
        above, _, name = folder.rpartition("/")
        with self._folder(above) as within:
            try:
                os.rmdir(name, dir_fd=within)
            except OSError:  # something lies there, ours or not
                return
        self._unsettled.discard(folder)
        self._unsettled.add(above)

    def _listed(self, folder: str) -> list[tuple[str, bool]]:
        """The folders and regular files there, with whether each is a folder."""
        try:
            with self._folder(folder) as opened, os.scandir(opened) as entries:
                return [
                    (entry.name, entry.is_dir(follow_symlinks=False))
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
                ]
        except Missing:
            return []

    @contextmanager
    def _object(self, path: str) -> Iterator[BinaryIO]:
        """An object, open for reading."""
        folder, _, name = checked(path).rpartition("/")
        with self._folder(folder) as within:
            try:
                descriptor = os.open(name, _FILE, dir_fd=within)
            except FileNotFoundError:
                raise Missing from None
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENXIO):
                    raise self._in_the_way(path) from None
                raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise self._in_the_way(path)
        with open(descriptor, "rb") as opened:
            yield opened

    @contextmanager
    def _folder(self, path: str, *, make: bool = False) -> Iterator[int]:
        """A folder below the root, open. Raises `Missing`."""
        try:
            descriptor = os.open(self.root, _FOLDER)
        except FileNotFoundError:
            raise Missing from None
        at = ""
        try:
            for name in path.split("/") if path else ():
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, 0o700, dir_fd=descriptor)
                        self._unsettled.add(at)
                at = f"{at}/{name}".lstrip("/")
                try:
                    inner = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
                except FileNotFoundError:
                    raise Missing from None
                except OSError as error:
                    if error.errno in (errno.ELOOP, errno.ENOTDIR):
                        raise self._in_the_way(at) from None
                    raise
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def _in_the_way(self, path: str) -> Unusable:
        return Unusable(
            f"{self.root / path} is in the way: a backup has a file or a directory of its own "
            "there, no link and nothing else. Move it away, or name another place."
        )


def copy_sized(source: BinaryIO, target: BinaryIO, size: int, path: str) -> None:
    """Copy exactly so many bytes. Raises `Damaged` where there are more or fewer."""
    left = size
    while part := source.read(min(_PART, left + 1)):
        left -= len(part)
        if left < 0:
            break
        target.write(part)
    if left:
        raise other_size(path)


@contextmanager
def new_file(file: Path) -> Iterator[BinaryIO]:
    """A file that must not exist yet, for its owner's eyes only."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as opened:
        yield opened
