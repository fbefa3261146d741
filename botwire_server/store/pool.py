"""The open namespaces: the least recently used is closed when there are too many.

Every open file costs a thread and three descriptors. It refuses to open a file the registry did
not name, and to open a file that is missing: that one is damaged, not empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from botwire_server.errors import Closed, Damaged
from botwire_server.lazy import resource
from botwire_server.metrics import StoreCounters
from botwire_server.store import causes
from botwire_server.store.anchor import Anchor
from botwire_server.store.driver import Clock, Durability, disk_refusal
from botwire_server.store.files import folder, located, removable
from botwire_server.store.migrations import NAMESPACE, sync_directory, template, write_new
from botwire_server.store.namespace import Namespace, Totals
from botwire_server.store.rows import NamespaceRow
from botwire_server.store.spent import Spent

log = logging.getLogger(__name__)

DESCRIPTORS_PER_FILE = 3
MOST_OPEN = 256

DRAFT = ".new"

# Files that were removed are remembered as long as somebody may still ask for them.
MOST_REMOVED = 65_536

# How long a namespace that could only be opened for reading stays so before it is tried again.
FROZEN_SECONDS = 1.0


def capacity() -> int:
    """How many files may be open: a third of the descriptors go to connections and the rest."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return MOST_OPEN
    return max(8, min(MOST_OPEN, soft * 2 // 3 // DESCRIPTORS_PER_FILE))


def raise_descriptor_limit(wanted: int = 65_536) -> None:
    """Take the descriptors that the system would give us anyway."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Pool:
    """The open namespaces of one data directory."""

    def __init__(
        self,
        directory: Path,
        *,
        durability: Durability,
        clock: Clock,
        most_open: int,
        noted: Callable[[NamespaceRow], int],
        written: Callable[[str, str], Spent],
        on_change: Callable[[NamespaceRow, Namespace, Totals], None],
        counters: StoreCounters,
        anchor: Anchor,
    ) -> None:
        self._directory = directory
        self._durability = durability
        self._clock = clock
        self._most_open = most_open
        self._noted = noted
        self._written = written
        self._on_change = on_change
        self._counters = counters
        self._anchor = anchor  # the registry's
        # By their files: a namespace that was restored has another one, and its id goes on.
        self._open: OrderedDict[str, Namespace] = OrderedDict()
        self._opening: dict[str, asyncio.Task[Namespace]] = {}
        self._closing: dict[str, asyncio.Task[None]] = {}
        # Callers that have been promised a namespace and did not get their turn yet.
        self._promised: Counter[str] = Counter()
        self._template = template(NAMESPACE, directory)
        self._removed: OrderedDict[str, None] = OrderedDict()
        self._told: set[str] = set()
        # Those that were opened for reading only, and when.
        self._frozen: dict[str, float] = {}
        # Directories whose own names are on the disk, as far as this process has seen to it.
        self._rooted: set[Path] = set()
        self._rooting = threading.Lock()

    def get(self, row: NamespaceRow) -> Namespace | None:
        """The namespace, if it is open."""
        namespace = self._open.get(row.file)
        frozen_at = self._frozen.get(row.file) if self._frozen else None
        if (
            namespace is not None
            and frozen_at is not None
            and not namespace.busy
            and time.monotonic() - frozen_at > FROZEN_SECONDS
        ):
            # Perhaps the disk takes it now. Not on every request: each try costs an error.
            self._start_closing(row.file, self._open.pop(row.file))
            return None
        if namespace is not None:
            self._open.move_to_end(row.file)
            if len(self._open) > self._most_open:  # all were busy when room was last made
                self._make_room(keep=row.file)
        return namespace

    async def open(self, row: NamespaceRow) -> Namespace:
        """The namespace, opened where it is not. Raises `Damaged`; `Closed` once it is removed."""
        namespace = self.get(row)
        if namespace is not None:
            return namespace
        if row.file in self._removed:
            raise Closed("This namespace was removed.")
        task = self._opening.get(row.file)
        if task is None:
            task = asyncio.create_task(self._load(row))
            self._opening[row.file] = task
            task.add_done_callback(lambda _: self._opening.pop(row.file, None))
        self._promised[row.file] += 1
        try:
            # One request that gives up must not spoil the opening for the others.
            return await asyncio.shield(task)
        finally:
            self._promised[row.file] -= 1
            if not self._promised[row.file]:
                del self._promised[row.file]

    async def draft(self, row: NamespaceRow) -> None:
        """Prepare the file of a namespace that the registry does not know yet."""
        try:
            await asyncio.to_thread(self._write_draft, _draft(located(self._directory, row)))
        except OSError as error:
            raise disk_refusal(error) from error

    async def discard(self, row: NamespaceRow) -> None:
        """Drop a draft that the registry will not name."""
        with contextlib.suppress(OSError):  # then the next start does
            draft = _draft(located(self._directory, row))
            await asyncio.to_thread(draft.unlink, missing_ok=True)

    async def close(self, file: str) -> None:
        """Close one namespace, for good until `open` is asked again."""
        opening = self._opening.get(file)
        if opening is not None:
            await asyncio.wait([opening])
        namespace = self._open.pop(file, None)
        if namespace is not None:
            self._start_closing(file, namespace)
        closing = self._closing.get(file)
        if closing is not None:
            await asyncio.shield(closing)

    @asynccontextmanager
    async def opened_as_it_is(self, row: NamespaceRow) -> AsyncIterator[Namespace]:
        """A namespace's file also where it is older than the registry knows; closed afterwards.

        Raises `Damaged` if it is another's. Nobody else gets it from here.
        """
        await self.close(row.file)
        namespace = await self._open_file(row, revision=0)
        try:
            yield namespace
        finally:
            await namespace.close()

    async def retire(self, row: NamespaceRow) -> Totals:
        """Finish what is queued, then close a namespace for good; what it holds."""
        return (await self.retired(row)).totals

    async def retired(self, row: NamespaceRow) -> Namespace:
        """`retire` a namespace; it as it was closed."""
        namespace = await self.open(row)
        self._let_go(row.file)
        await self.close(row.file)
        return namespace

    async def remove(self, file: str, *, tenant_id: str) -> None:
        """Close a namespace of this tenant and unlink its files; safe to repeat.

        The registry must have let go of it before: this cannot be undone. Raises `Damaged` where
        no namespace of the tenant can have such a file: then nothing is removed.
        """
        path = removable(self._directory, file, tenant_id)
        self._let_go(file)
        await self.close(file)
        self._anchor.require()  # or it would be another directory's file
        try:
            await asyncio.to_thread(_unlink, path)
        except OSError as error:
            path = error.filename or self._directory / file
            log.error("%s", causes.told(f"{path} cannot be removed", error))
            raise disk_refusal(error) from error

    def drop_directory(self, tenant_id: str) -> None:
        """Remove the directory of a tenant that is gone."""
        # Not empty if a draft is just being made there; the next start clears that.
        with contextlib.suppress(OSError, Damaged):
            path = folder(self._directory, tenant_id)
            path.rmdir()
            self._rooted.discard(path)

    def _let_go(self, file: str) -> None:
        """Let nobody open a file any more who found it in the registry before."""
        self._removed[file] = None
        self._told.discard(file)
        if len(self._removed) > MOST_REMOVED:
            self._removed.popitem(last=False)

    async def close_all(self) -> None:
        """Commit what is queued, close every file."""
        for task in list(self._opening.values()):
            await asyncio.wait([task])
        await asyncio.gather(*(self.close(file) for file in list(self._open)))
        await asyncio.gather(*self._closing.values())

    def opened(self) -> list[tuple[str, Namespace]]:
        """Every open namespace with its id, the least recently used first."""
        return [(namespace.id, namespace) for namespace in self._open.values()]

    async def _load(self, row: NamespaceRow) -> Namespace:
        closing = self._closing.get(row.file)
        if closing is not None:
            await closing
        try:
            namespace = await self._open_file(row, revision=self._noted(row))
        except Damaged as error:
            if row.file not in self._told:  # every request meets it again
                self._told.add(row.file)
                log.error("namespace %s: %s", row.id, error.message)
            raise
        namespace.on_change = lambda before: self._on_change(row, namespace, before)
        self._open[row.file] = namespace
        if namespace.frozen:
            self._frozen[row.file] = time.monotonic()
        self._make_room()
        return namespace

    async def _open_file(self, row: NamespaceRow, *, revision: int) -> Namespace:
        path = located(self._directory, row)
        if not path.exists():
            try:
                await asyncio.to_thread(_take_draft, path)
            except OSError as error:
                raise disk_refusal(error) from error
        namespace = await Namespace.open(path, durability=self._durability, clock=self._clock)
        try:
            await namespace.identify(
                row.id, revision=revision, written=lambda: self._written(row.tenant_id, row.name)
            )
        except BaseException:
            await namespace.close()
            raise
        namespace.anchors.append(self._anchor)
        namespace.work = self._counters.namespaces
        self._counters.opened += 1
        return namespace

    def _make_room(self, *, keep: str = "") -> None:
        spare = len(self._open) - self._most_open
        if spare <= 0:
            return
        idle = [
            file
            for file, namespace in self._open.items()
            if not namespace.busy and file not in self._promised and file != keep
        ]
        for file in idle[:spare]:
            self._start_closing(file, self._open.pop(file))

    def _start_closing(self, file: str, namespace: Namespace) -> None:
        task = asyncio.create_task(namespace.close())
        self._closing[file] = task
        self._frozen.pop(file, None)
        task.add_done_callback(lambda _: self._closing.pop(file, None))

    def _write_draft(self, path: Path) -> None:
        # That a directory is there does not say that it will be after a power loss: whoever made
        # it may not have come to its fsync, or not yet.
        with self._rooting:
            if path.parent not in self._rooted or not path.parent.exists():
                for directory in (path.parent.parent, path.parent):
                    directory.mkdir(exist_ok=True, mode=0o700)
                sync_directory(path.parent.parent)
                sync_directory(path.parent.parent.parent)
                self._rooted.add(path.parent)
        write_new(path, self._template)
        sync_directory(path.parent)


def _draft(path: Path) -> Path:
    return path.with_name(path.name + DRAFT)


def _take_draft(path: Path) -> None:
    """Give a prepared file its name. A crash before this leaves the draft, and this is redone."""
    try:
        os.rename(_draft(path), path)
    except FileNotFoundError as error:
        raise Damaged(
            "This namespace's file is missing; the operator can restore it from a backup."
        ) from error
    sync_directory(path.parent)


def _unlink(path: Path) -> None:
    # The WAL first: a file without its WAL is older, a WAL without its file is garbage.
    for name in (path.name + DRAFT, path.name + "-wal", path.name + "-shm", path.name):
        path.with_name(name).unlink(missing_ok=True)
    if path.parent.exists():
        sync_directory(path.parent)
