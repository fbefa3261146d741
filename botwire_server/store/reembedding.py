"""New vectors for what is stored, after the operator changed the model.

Online and in slices: requests go on between two of them, their searches by keywords until the
last slice is through. Stopped anywhere, it goes on where it stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from botwire_server.store import chores, chunks, vectors
from botwire_server.store.chores import Chore
from botwire_server.store.directory import DataDirectory
from botwire_server.store.driver import Connection
from botwire_server.store.namespace import Namespace
from botwire_server.store.rows import NamespaceRow
from botwire_server.store.tenant import NamespaceRef
from botwire_server.vector import Model, Vector

# Memories in a slice: what a request may have to wait for.
SLICE = 64


class Embedded(Protocol):
    """Vectors of one model, one for each text."""

    @property
    def model(self) -> Model: ...
    @property
    def vectors(self) -> Sequence[Vector | None]: ...


class Text(NamedTuple):
    """A memory that waits for vectors."""

    id: int
    content: str


class Progress(NamedTuple):
    """How many memories have vectors of the model, and how many there are."""

    done: int
    total: int


Embed = Callable[[Sequence[str]], Awaitable["Embedded | None"]]


def begin(connection: Connection, model: Model) -> bool:
    """Take vectors of `model` from now on; False if every memory has them already."""
    present = vectors.recorded(connection)
    if present.model == model:
        return not present.complete
    [memories] = connection.execute("SELECT memories FROM totals").fetchone()
    vectors.begin(connection, model, complete=not memories)
    return bool(memories)


def waiting(connection: Connection, after: int) -> tuple[list[Text], Progress]:
    """The next memories behind the id `after` that have no vector, and how far it is."""
    rows = connection.execute(
        f"""SELECT id, content FROM memories AS m WHERE id > ? AND NOT EXISTS (
            SELECT 1 FROM vectors WHERE id = m.id << {vectors.CHUNK_BITS}
        ) ORDER BY id LIMIT {SLICE}""",  # noqa: S608  # constants
        (after,),
    )
    found = [Text(*row) for row in rows]
    [total] = connection.execute("SELECT memories FROM totals").fetchone()
    if not found:
        return [], Progress(total, total)
    [left] = connection.execute(
        "SELECT count(*) FROM memories WHERE id >= ?", (found[0].id,)
    ).fetchone()
    return found, Progress(total - left, total)


def fill(
    connection: Connection, model: Model, made: Sequence[tuple[Text, Sequence[Vector | None]]]
) -> bool:
    """Store vectors; those of a text that changed meanwhile are left out. False for a model that
    is not this namespace's any more.
    """
    if vectors.recorded(connection).model != model:
        return False
    for text, its_vectors in made:
        row = connection.execute("SELECT content FROM memories WHERE id = ?", (text.id,)).fetchone()
        if row == (text.content,):
            vectors.remove(connection, text.id)
            vectors.put(connection, text.id, its_vectors)
    return True


def finish(connection: Connection, model: Model) -> None:
    """Let searches use the vectors again."""
    connection.execute(
        "UPDATE vector_model SET complete = 1 WHERE name = ? AND dimension = ?", tuple(model)
    )


async def reembed(
    namespace: NamespaceRef | Namespace,
    embed: Embed,
    progress: Callable[[Progress], Awaitable[None]] | None = None,
) -> bool:
    """Give every memory of a namespace vectors of the model that `embed` asks.

    False if there was nothing to do. Raises `Unavailable`; what was done stays done.
    """
    probe = await embed(["dimension"])
    if probe is None or not await namespace.delete(begin, probe.model):
        return False
    after = 0
    while True:
        texts, far = await namespace.read(waiting, after)
        if progress is not None:
            await progress(far)
        if not texts:
            break
        pieces = await asyncio.to_thread(_pieces, texts)
        embedded = await embed([piece for some in pieces for piece in some])
        if embedded is None:
            return False
        made = iter(embedded.vectors)
        filled = [
            (text, [next(made) for _ in some]) for text, some in zip(texts, pieces, strict=True)
        ]
        if not await namespace.delete(fill, embedded.model, filled):
            return False
        after = texts[-1].id
    await namespace.delete(finish, probe.model)
    return True


def _pieces(texts: Sequence[Text]) -> list[list[str]]:
    return [chunks.split(text.content) for text in texts]


def chore(embed: Embed) -> Chore:
    """What `chores` does where the operator asked for new vectors."""

    async def run(directory: DataDirectory, row: NamespaceRow, progress: chores.Progress) -> str:
        async def told(far: Progress) -> None:
            await progress(far.done, far.total)

        namespace = await directory.pool.open(row)
        return "done" if await reembed(namespace, embed, told) else "nothing to do"

    return run
