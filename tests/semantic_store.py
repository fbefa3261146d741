"""A namespace file for tests of its units of work, and memories to put into it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from botwire_server.embedding import Embedder, embedder
from botwire_server.store import driver, memories, migrations, search
from botwire_server.store.driver import Connection
from botwire_server.store.filters import Filter
from botwire_server.store.memories import Draft, Memory
from botwire_server.store.search import Query
from botwire_server.store.terms import terms
from botwire_server.vector import Model, Vector

P = ParamSpec("P")
T = TypeVar("T")

NAMESPACE_ID = "0123456789abcde"

_numbers = itertools.count(1)


@cache
def wordllama() -> Embedder:
    """The embedded model, loaded once."""
    return embedder("wordllama")


def embed(texts: Sequence[str]) -> list[Vector]:
    """Vectors of the embedded model."""
    embedded = asyncio.run(wordllama().embed(texts))
    assert embedded is not None
    return [vector for vector in embedded.vectors if vector is not None]


def model() -> Model:
    """The embedded model's."""
    found = wordllama().model
    assert found is not None
    return found


class Store:
    """An open namespace file; every call is a transaction, as `Database` would make it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / f"namespace-{next(_numbers)}.db"
        self.path.write_bytes(migrations.template(migrations.NAMESPACE, directory))
        self.connection = driver.connect(self.path, durability="relaxed")
        self.connection.namespace_id = NAMESPACE_ID

    def run(
        self, unit: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit of work: committed, or undone where it fails."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            result = unit(self.connection, *args, **kwargs)
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        self.connection.execute("COMMIT")
        return result

    def put(self, *contents: str, **more: Any) -> list[Memory]:
        """Store texts with the vectors of the embedded model."""
        drafts = [
            draft(content, vector=vector, **more)
            for content, vector in zip(contents, embed(contents), strict=True)
        ]
        return [memory for memory, _ in self.run(memories.put_all, drafts)]

    def find(self, text: str, **more: Any) -> list[tuple[search.Hit, Memory]]:
        """What a query finds; `more` are fields of `Query` and `Filter`."""
        of_filter = {name: more.pop(name) for name in list(more) if name in _FILTER}
        [vector] = embed([text])
        query = Query(
            terms=terms(text),
            **{"vector": vector, "model": model(), "filter": Filter(**of_filter), **more},
        )
        return search.find(self.connection, query).hits

    def contents(self, text: str, **more: Any) -> list[str]:
        """The contents of what a query finds."""
        return [memory.content for _, memory in self.find(text, **more)]

    def totals(self) -> tuple[int, int]:
        """Memories and vectors, as the file counts them."""
        found: tuple[int, int] = self.connection.execute(
            "SELECT memories, vectors FROM totals"
        ).fetchone()
        return found

    def check(self) -> None:
        """Rows, words and vectors belong together, and the totals count them."""
        ask = self.connection.execute
        # FTS5 compares every row of its index with the content.
        ask("INSERT INTO memory_text (memory_text, rank) VALUES ('integrity-check', 1)")
        rows = {id for [id] in ask("SELECT id FROM memories")}
        vectors = [id for [id] in ask("SELECT id FROM vectors ORDER BY id")]
        assert {id >> 12 for id in vectors} <= rows
        assert [id for [id] in ask("SELECT rowid FROM memory_bits ORDER BY rowid")] == vectors
        assert {id for [id] in ask("SELECT memory_id FROM memory_history")} <= rows
        assert self.totals() == (len(rows), len(vectors))
        [held] = ask(
            """SELECT coalesce(sum(octet_length(content) + octet_length(metadata)), 0) FROM (
                SELECT content, metadata FROM memories
                UNION ALL SELECT content, metadata FROM memory_history
            )"""
        ).fetchone()
        assert ask("SELECT bytes FROM totals").fetchone() == (held,)


_FILTER = ("collection", "metadata", "created_after", "created_before")


def draft(content: str, *, vector: Vector | None = None, **more: Any) -> Draft:
    """A memory to be stored, with a vector of the embedded model if one is given."""
    with_vector = {} if vector is None else {"model": model(), "vectors": (vector,)}
    return Draft(**{"content": content, "metadata": {}, "collection": "c", **with_vector, **more})


def number(memory: Memory) -> int:
    """A memory's number in its file."""
    found = memories.from_uuid(memory.id)
    assert found is not None
    assert found[0] == NAMESPACE_ID
    return found[1]
