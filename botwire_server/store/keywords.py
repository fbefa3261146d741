"""What the words of a query say about the memories: BM25 from FTS5.

Where few memories hold a word, the share of each word is told apart, so that several namespaces
can be ranked as if they were one; where many do, FTS5's own sum of the best is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from botwire_server.store.driver import Connection
from botwire_server.store.filters import Filter
from botwire_server.store.terms import any_of, quoted

# Matches that are told apart by word, and those that are taken of more.
FEW = 600
MOST = 500
# Matches that are ranked at all. Words beyond it are too common to find anything; they only add
# to what the rarer ones found.
RANKED = 4_000

# FTS5's own floor, for words that more than half of the memories hold.
_LEAST_WEIGHT = 1e-6


@dataclass
class Evidence:
    """How often the words occur, and where.

    `shares` has for a memory what each word would add, were its weight one; `sums` are BM25
    scores as they are. A memory is in one of the two.
    """

    memories: int = 0
    frequencies: list[int] = field(default_factory=list)
    shares: dict[int, dict[int, float]] = field(default_factory=dict)
    sums: dict[int, float] = field(default_factory=dict)
    _scored: tuple[list[float], dict[int, float]] | None = None

    def scores(self, weights: list[float]) -> Mapping[int, float]:
        """BM25 of every memory found, given the weights of the words."""
        if self._scored is None or self._scored[0] != weights:
            scores = dict(self.sums)
            for memory, shares in self.shares.items():
                score = 0.0
                for word, share in shares.items():
                    score += weights[word] * share
                scores[memory] = score
            self._scored = weights, scores
        return self._scored[1]


def weights(evidence: Iterable[Evidence]) -> list[float]:
    """The weight of each word over all of these: the rarer, the more (FTS5's formula)."""
    found = [one for one in evidence if one.frequencies]
    memories = sum(one.memories for one in found)
    frequencies = map(sum, zip(*(one.frequencies for one in found), strict=True))
    return [_weight(memories, frequency) for frequency in frequencies]


def evidence(connection: Connection, terms: list[str], filter: Filter) -> Evidence:
    """What the terms say about the memories. Only the best of many need pass the filter."""
    if not terms:
        return Evidence()
    phrases = orjson.dumps([quoted(term) for term in terms]).decode()
    memories, counted = connection.execute(
        """SELECT (SELECT memories FROM totals), json_group_array((
            SELECT count(*) FROM memory_text WHERE memory_text MATCH term.value
        )) FROM json_each(?) AS term""",
        (phrases,),
    ).fetchone()
    frequencies: list[int] = orjson.loads(counted)
    found = Evidence(memories, frequencies)
    if not any(frequencies):
        return found
    if sum(frequencies) > FEW:
        found.sums = _sums(connection, _query(terms, frequencies), filter)
        return found
    [matches] = connection.execute(
        """SELECT json_group_array(json_array(term.key, found.rowid, found.rank))
        FROM json_each(?) AS term CROSS JOIN memory_text AS found
        WHERE found.memory_text MATCH term.value""",
        (phrases,),
    ).fetchone()
    local = [_weight(memories, frequency) for frequency in frequencies]
    for word, memory, rank in orjson.loads(matches):
        found.shares.setdefault(memory, {})[word] = -rank / local[word]
    return found


def _sums(connection: Connection, query: str, filter: Filter) -> dict[int, float]:
    parameters: list[Any] = [query]
    condition = filter.condition(parameters)
    if condition:
        filter.prepare(connection)
        condition = f"JOIN memories AS m ON m.id = found.rowid AND {condition}"
        parameters.append(parameters.pop(0))
    # The plus lets SQLite sort, which keeps only the best; FTS5 would sort all.
    [matches] = connection.execute(
        f"""SELECT json_group_array(json_array(id, rank)) FROM (
            SELECT found.rowid AS id, found.rank AS rank
            FROM memory_text AS found {condition} WHERE found.memory_text MATCH ?
            ORDER BY +found.rank LIMIT {MOST}
        )""",  # noqa: S608  # constants; values are parameters
        parameters,
    ).fetchone()
    return {memory: -rank for memory, rank in orjson.loads(matches)}


def _query(terms: list[str], frequencies: list[int]) -> str:
    """The rarer words find; the most common ones only add to what those found."""
    rarest = sorted((frequency, term) for frequency, term in zip(frequencies, terms, strict=True))
    finding: list[str] = []
    adding: list[str] = []
    ranked = 0
    for frequency, term in rarest:
        if not frequency:
            continue
        ranked += frequency
        (adding if finding and ranked > RANKED else finding).append(term)
    query = f"({any_of(finding)})"
    return f"{query} OR ({query} AND ({any_of(adding)}))" if adding else query


def _weight(memories: int, frequency: int) -> float:
    ratio = (memories - frequency + 0.5) / (frequency + 0.5)
    return max(math.log(ratio) if ratio > 0 else 0.0, _LEAST_WEIGHT)
