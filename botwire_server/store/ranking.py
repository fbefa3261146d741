"""From evidence to an order: cosine, words and neighbours become one score.

    s = cos + (1 - cos) * BM25, scaled to the best hit        never below the cosine
    score = min(1, s + context * the best of its neighbours)  in the same session

Pure functions: no connection, no clock. See docs/retrieval.md for what was measured.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from botwire_server.store.keywords import Evidence, weights

Mode = Literal["hybrid", "vector", "keyword"]

DEFAULT_CONTEXT = 0.5
# What of its score a memory lends to the next in its session, and to the one after that.
SHARES = (1.0, 0.5)

# Memories that lend to one, each with the share it lends.
Neighbours = list[tuple[int, float]]


@dataclass
class Found:
    """What one namespace has to say about a query.

    `cosines` and `words` are of the memories that may be hits and of their neighbours; of those
    only the ones in `eligible` (None: all) may be hits.
    """

    words: Evidence = field(default_factory=Evidence)
    cosines: dict[int, float] = field(default_factory=dict)
    neighbours: dict[int, Neighbours] = field(default_factory=dict)
    eligible: frozenset[int] | None = None
    # Whether vectors could be asked; if not, words alone were.
    by_vector: bool = False


class Hit(NamedTuple):
    """A memory that was found, in the namespace `place`; `score` is what it is ranked by.

    `vector` and `keyword` are the parts, `combined` is both without context. The parts that were
    not asked for are None.
    """

    place: int
    memory: int
    score: float
    vector: float | None
    keyword: float | None
    combined: float


def rank(
    found: Sequence[Found], *, mode: Mode, context: float, threshold: float, limit: int
) -> list[Hit]:
    """The best hits over all namespaces, best first."""
    shared = weights(one.words for one in found)
    words = _scaled(found, [one.words.scores(shared) for one in found])
    owns = [alone(one, some, mode) for one, some in zip(found, words, strict=True)]
    totals: list[tuple[float, int, int]] = []
    for place, (one, own) in enumerate(zip(found, owns, strict=True)):
        lent = _lent(one, own, context) if context else {}
        hits = own.keys() | lent.keys()
        for memory in hits if one.eligible is None else hits & one.eligible:
            total = own.get(memory, 0.0) + lent.get(memory, 0.0)
            if total >= threshold and total > 0:
                totals.append((total, memory, -place))
    # The sum decides also where it is over 1. Of equals the newer comes first.
    best = heapq.nlargest(limit, totals)
    return [
        _hit(
            found[-place], words[-place], mode, memory, -place, total, owns[-place].get(memory, 0.0)
        )
        for total, memory, place in best
    ]


def alone(found: Found, words: Mapping[int, float], mode: Mode) -> Mapping[int, float]:
    """What every memory scores by itself; `words` are between 0 and 1."""
    if mode == "keyword" or not found.by_vector:
        return words
    # A sum of products may be a trifle above 1.
    cosines = found.cosines
    if mode == "vector":
        return {memory: min(1.0, max(0.0, cosine)) for memory, cosine in cosines.items()}
    own = {}
    for memory, cosine in cosines.items():
        near = 0.0 if cosine < 0.0 else 1.0 if cosine > 1.0 else cosine
        own[memory] = near + (1.0 - near) * words.get(memory, 0.0)
    return own


def _scaled(found: Sequence[Found], scores: list[Mapping[int, float]]) -> list[dict[int, float]]:
    """BM25 divided by that of the best hit anywhere."""
    best = 0.0
    for one, some in zip(found, scores, strict=True):
        if one.eligible is None:
            best = max(best, max(some.values(), default=0.0))
        else:
            best = max(
                best, max((some[memory] for memory in some.keys() & one.eligible), default=0.0)
            )
    if not best:
        return [{} for _ in scores]
    return [{memory: min(1.0, score / best) for memory, score in some.items()} for some in scores]


def _lent(found: Found, own: Mapping[int, float], context: float) -> dict[int, float]:
    """What the best of its neighbours lends each memory."""
    return {
        memory: context * max([share * own.get(other, 0.0) for other, share in near])
        for memory, near in found.neighbours.items()
    }


def _hit(
    found: Found,
    words: Mapping[int, float],
    mode: Mode,
    memory: int,
    place: int,
    total: float,
    own: float,
) -> Hit:
    by_vector = found.by_vector and mode != "keyword"
    return Hit(
        place,
        memory,
        score=min(1.0, total),
        vector=found.cosines.get(memory) if by_vector else None,
        keyword=words.get(memory, 0.0) if mode != "vector" or not by_vector else None,
        combined=own,
    )
