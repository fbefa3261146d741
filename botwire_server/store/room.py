"""What a tenant may do and hold, and the room that is left of it over all its namespaces.

Room is promised in the transaction that needs it, before its COMMIT, and becomes what is held when
that is through, or free again when it is not. What is held and promised is never more than the
limit, however many write at once and wherever they fail.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from botwire_server.errors import Closed, QuotaExceeded
from botwire_server.store.driver import Connection
from botwire_server.store.rows import TenantRow


@dataclass(frozen=True, slots=True)
class Limits:
    """What a tenant may do; 0 is no limit. Keys count towards the bytes of a namespace.

    `room` is what is left in all its namespaces together, where that has a limit.
    """

    daily_writes: int = 0  # in one namespace
    namespace_bytes: int = 0
    storage_bytes: int = 0  # in all its namespaces
    vectors: int = 0
    agents: int = 0
    room: Room | None = None

    @property
    def over_all(self) -> bool:
        """Whether one of them is for all namespaces together, so that `room` is needed."""
        return bool(self.storage_bytes or self.vectors)


class Held(Protocol):
    """What somebody holds."""

    @property
    def bytes(self) -> int: ...
    @property
    def vectors(self) -> int: ...


class Room:
    """What one tenant holds in its namespaces, and what transactions under way were promised.

    Promised on the threads of files, counted on the event loop.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known = False
        self._bytes = self._vectors = 0  # held
        self._promised_bytes = self._promised_vectors = 0
        self._changes = 0  # that nobody may have missed who counts
        self._counting = asyncio.Lock()

    def require(self, limits: Limits, *, vectors: int) -> None:
        """Raise `QuotaExceeded` where the storage is full or so many vectors have no room.

        For who is about to do what costs, and promises nothing.
        """
        with self._lock:
            bytes = self._bytes + self._promised_bytes
            if limits.storage_bytes and bytes >= limits.storage_bytes:
                raise _no_storage(limits)
            if vectors:
                self._require_vectors(limits, vectors)

    def promise(self, limits: Limits, *, bytes: int, vectors: int) -> None:
        """Keep room for so much, or raise `QuotaExceeded`.

        Raises `Closed` while it has to be counted anew: ask `Rooms` again.
        """
        with self._lock:
            if not self._known:
                raise Closed("What this tenant holds is being counted; try again.")
            used = self._bytes + self._promised_bytes
            if bytes > 0 and limits.storage_bytes and used + bytes > limits.storage_bytes:
                raise _no_storage(limits)
            if vectors > 0:
                self._require_vectors(limits, vectors)
            self._promised_bytes += bytes
            self._promised_vectors += vectors

    def free(self, *, bytes: int, vectors: int) -> None:
        """Give back what was promised and not used."""
        with self._lock:
            self._promised_bytes -= bytes
            self._promised_vectors -= vectors

    def moved(self, before: Held, after: Held, promised: Promises) -> None:
        """Note what a namespace holds now; what it was promised for that is used up."""
        with self._lock:
            self._changes += 1
            self._bytes += after.bytes - before.bytes
            self._vectors += after.vectors - before.vectors
            for bytes, vectors in promised.used_up(self):
                self._promised_bytes -= bytes
                self._promised_vectors -= vectors

    def forget(self) -> None:
        """Let what is held be counted anew: it changed in a way that nobody counted."""
        with self._lock:
            self._changes += 1
            self._known = False

    async def count(self, held: Callable[[], Awaitable[Held]]) -> None:
        """Make sure that it is known what is `held`."""
        if self._known:
            return
        async with self._counting:
            while not self._known:
                changes = self._changes
                found = await held()
                with self._lock:
                    if changes == self._changes:  # nothing was missed meanwhile
                        self._bytes, self._vectors = found.bytes, found.vectors
                        self._known = True

    def _require_vectors(self, limits: Limits, vectors: int) -> None:
        used = self._vectors + self._promised_vectors
        if limits.vectors and used + vectors > limits.vectors:
            raise QuotaExceeded(
                f"This tenant's {limits.vectors} vectors are used; delete memories first.",
                limit=limits.vectors,
                resets_at=None,
                kind="vectors",
            )


class Promises:
    """What a file's transaction under way was promised. Empty between transactions."""

    __slots__ = ("_made",)

    def __init__(self) -> None:
        self._made: list[tuple[Room, int, int]] = []

    def ask(self, limits: Limits, *, bytes: int, vectors: int) -> None:
        """See `Room.promise`; what is below nothing needs no room."""
        bytes, vectors = max(0, bytes), max(0, vectors)
        if limits.room is not None and (bytes or vectors):
            limits.room.promise(limits, bytes=bytes, vectors=vectors)
            self._made.append((limits.room, bytes, vectors))

    def free(self) -> None:
        """Give back what was not used."""
        if self._made:
            made, self._made = self._made, []
            for room, bytes, vectors in made:
                room.free(bytes=bytes, vectors=vectors)

    def used_up(self, room: Room) -> list[tuple[int, int]]:
        """Take away what this room promised."""
        used = [(bytes, vectors) for of, bytes, vectors in self._made if of is room]
        self._made = [made for made in self._made if made[0] is not room]
        return used


class Rooms:
    """The rooms of the tenants that were asked for; `count` is what a tenant holds, on the disk."""

    def __init__(self, count: Callable[[TenantRow], Awaitable[Held]]) -> None:
        self._count = count
        self._rooms: dict[str, Room] = {}

    async def within(self, tenant: TenantRow, limits: Limits) -> Limits:
        """The limits with the tenant's room, where they need one."""
        if not limits.over_all:
            return limits
        room = self._rooms.get(tenant.id)
        if room is None:
            room = self._rooms[tenant.id] = Room()
        await room.count(lambda: self._count(tenant))
        return replace(limits, room=room)

    def get(self, tenant_id: str) -> Room | None:
        """The room of a tenant, if it was asked for."""
        return self._rooms.get(tenant_id)

    def forget(self, tenant_id: str) -> None:
        """See `Room`."""
        room = self._rooms.get(tenant_id)
        if room is not None:
            room.forget()

    def drop(self, tenant_id: str) -> None:
        """Forget a tenant that is no more."""
        self._rooms.pop(tenant_id, None)


# Units of work on the registry.


def begin(connection: Connection) -> set[str] | None:
    """The tenants of whom the registry knows what they hold, None for all; from now on of none.

    After an end that was no `settle` that is nobody, unless nobody has anything.
    """
    row = connection.execute("SELECT value FROM facts WHERE name = 'settled'").fetchone()
    connection.execute("DELETE FROM facts WHERE name = 'settled'")
    if connection.execute("SELECT 1 FROM namespaces LIMIT 1").fetchone() is None:
        return None
    known = [] if row is None else json.loads(row[0])
    return None if known is None else set(known)


def settle(connection: Connection, tenants: set[str] | None) -> None:
    """Say so at the end."""
    known = json.dumps(None if tenants is None else sorted(tenants))
    connection.execute(
        """INSERT INTO facts (name, value) VALUES ('settled', ?)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value""",
        (known,),
    )


def _no_storage(limits: Limits) -> QuotaExceeded:
    return QuotaExceeded(
        f"This would take more than the tenant's {limits.storage_bytes} bytes; delete something "
        "first.",
        limit=limits.storage_bytes,
        resets_at=None,
        kind="storage",
    )
