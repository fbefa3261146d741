"""Searching one namespace, or several as if they were one. Units of work for `Namespace`.

`find` does it for one. For several: `gather` from each, `ranking.rank` over all that came, and
`memories.get_all` where the hits are.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import NamedTuple

import orjson

from botwire_server.store import keywords, memories, vectors
from botwire_server.store.driver import Connection
from botwire_server.store.filters import Filter
from botwire_server.store.memories import Memory
from botwire_server.store.ranking import (
    DEFAULT_CONTEXT,
    SHARES,
    Found,
    Hit,
    Mode,
    Neighbours,
    rank,
)
from botwire_server.vector import Model, Vector

# Memories found by words whose vectors are compared.
BY_WORDS = 200
# Hits whose neighbours are looked at, beyond those that are wanted.
LENDING = 60


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is sought. Without a `vector` the words alone decide."""

    terms: list[str]
    vector: Vector | None = None
    model: Model | None = None
    mode: Mode = "hybrid"
    filter: Filter = field(default_factory=Filter)
    context: float = DEFAULT_CONTEXT
    threshold: float = 0.0
    limit: int = 10


class Answer(NamedTuple):
    """The hits, best first, with their memories. Not `by_vector`: only words could be asked."""

    hits: list[tuple[Hit, Memory]]
    by_vector: bool


def find(connection: Connection, query: Query) -> Answer:
    """The best hits in this namespace."""
    found = gather(connection, query)
    hits = rank(
        [found],
        mode=query.mode,
        context=query.context,
        threshold=query.threshold,
        limit=query.limit,
    )
    there = memories.get_all(connection, [hit.memory for hit in hits])
    return Answer(
        [(hit, there[hit.memory]) for hit in hits if hit.memory in there], found.by_vector
    )


def gather(connection: Connection, query: Query) -> Found:
    """What this namespace has to say about the query."""
    surroundings = _surroundings(connection, query)
    found = Found(by_vector=surroundings is not None)
    among = query.filter.ids(connection)
    if among is not None:
        found.eligible = frozenset(among.tolist())
        if not found.eligible:
            return found
    if query.mode != "vector" or surroundings is None:
        found.words = keywords.evidence(connection, query.terms, query.filter)
    if surroundings is not None:
        by_words = _best_by_words(found)
        # What has no vector is as far away as can be, and still a hit by its words.
        found.cosines = dict.fromkeys(by_words, 0.0) | surroundings.nearest(among, also=by_words)
    if query.context and _any_session(connection):
        hits = rank(
            [found], mode=query.mode, context=0.0, threshold=0.0, limit=3 * query.limit + LENDING
        )
        found.neighbours = _neighbours(connection, [hit.memory for hit in hits])
        if surroundings is not None:
            found.cosines |= surroundings.cosines(found.neighbours.keys() - found.cosines.keys())
    return found


def _surroundings(connection: Connection, query: Query) -> vectors.Surroundings | None:
    """Where the query's vector lies among the others, if it is of their model."""
    if query.mode == "keyword" or query.vector is None:
        return None
    recorded = vectors.recorded(connection)
    if not recorded.answers(query.model):
        return None
    return vectors.Surroundings(connection, query.vector)


def _best_by_words(found: Found) -> set[int]:
    scores = found.words.scores(keywords.weights([found.words]))
    eligible = scores if found.eligible is None else scores.keys() & found.eligible
    return set(heapq.nlargest(BY_WORDS, eligible, key=scores.__getitem__))


def _any_session(connection: Connection) -> bool:
    return (
        connection.execute("SELECT 1 FROM memories WHERE session_id IS NOT NULL LIMIT 1").fetchone()
        is not None
    )


def _neighbours(connection: Connection, hits: list[int]) -> dict[int, Neighbours]:
    """Who stands near in the session: near the hits, and near those that stand there."""
    [rows] = connection.execute(
        f"""SELECT json_group_array(json_array(m.id,
            json((SELECT json_group_array(id) FROM (SELECT p.id FROM memories AS p
                WHERE p.session_id = m.session_id AND p.collection = m.collection AND p.id < m.id
                ORDER BY p.id DESC LIMIT {len(SHARES)}))),
            json((SELECT json_group_array(id) FROM (SELECT n.id FROM memories AS n
                WHERE n.session_id = m.session_id AND n.collection = m.collection AND n.id > m.id
                ORDER BY n.id LIMIT {len(SHARES)})))
        )) FROM json_each(?) AS hit CROSS JOIN memories AS m ON m.id = hit.value
        WHERE m.session_id IS NOT NULL""",  # noqa: S608  # a constant
        (orjson.dumps(hits).decode(),),
    ).fetchone()
    near: dict[int, Neighbours] = {}
    for memory, before, behind in orjson.loads(rows):
        for some in (before, behind):
            for other, share in zip(some, SHARES, strict=False):
                near.setdefault(memory, []).append((other, share))
                near.setdefault(other, []).append((memory, share))
    return near
