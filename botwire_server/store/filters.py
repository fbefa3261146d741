"""Which memories a search is about, as SQL: every value is a parameter, every column a constant."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import orjson

from botwire_server.lazy import numpy as np
from botwire_server.store.driver import Connection

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What may stand in a JSON path between quotes without meaning anything there.
_PLAIN_KEY = re.compile(r'[^"\\\x00-\x1f]+')
_INT64 = range(-(2**63), 2**63)
# SQLite goes through the metadata once for each pair; what a filter has more is looked at together.
MOST_PAIRS = 8


@dataclass(frozen=True, kw_only=True)
class Filter:
    """What must hold for a memory. Times are Unix seconds, bounds inclusive.

    `metadata` is containment: every pair must be in the memory's metadata, objects are compared
    pair by pair, and of a list all elements must be in the memory's list.
    """

    collection: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    created_after: float | None = None
    created_before: float | None = None

    def condition(self, parameters: list[Any]) -> str:
        """The condition on `memories AS m`; empty where all pass. Its values go to `parameters`."""
        parts = []
        for column, value in (
            ("m.collection = ?", self.collection),
            ("m.created_at >= ?", self.created_after),
            ("m.created_at <= ?", self.created_before),
        ):
            if value is not None:
                parts.append(column)
                parameters.append(value)
        simple, rest = self._split
        parts += [condition for condition, _ in simple]
        for _, values in simple:
            parameters += values
        if rest:
            parts.append("metadata_holds(json_extract(m.metadata, '$'))")
        return " AND ".join(parts)

    def prepare(self, connection: Connection) -> None:
        """Give the connection what the condition asks for."""
        _, rest = self._split
        if rest:
            connection.create_function(
                "metadata_holds",
                1,
                lambda text: isinstance(text, str) and contains(orjson.loads(text), rest),
                deterministic=True,
            )

    @cached_property
    def _split(self) -> tuple[list[tuple[str, list[Any]]], dict[str, Any]]:
        """Conditions on the metadata with their values, and what of it they do not say."""
        simple: list[tuple[str, list[Any]]] = []
        rest = _contain(self.metadata, "$", simple)
        return simple, rest

    def ids(self, connection: Connection) -> NDArray[np.int64] | None:
        """The memories that pass, in their order; None where all do."""
        parameters: list[Any] = []
        condition = self.condition(parameters)
        if not condition:
            return None
        self.prepare(connection)
        [found] = connection.execute(
            f"SELECT json_group_array(m.id) FROM memories AS m WHERE {condition}",  # noqa: S608
            parameters,
        ).fetchone()
        return np.array(orjson.loads(found), dtype=np.int64)


def _contain(
    wanted: dict[str, Any], path: str, simple: list[tuple[str, list[Any]]]
) -> dict[str, Any]:
    """Add to the `simple` conditions as many as there may be; what is left of `wanted`."""
    rest: dict[str, Any] = {}
    for key, value in wanted.items():
        if (
            len(simple) >= MOST_PAIRS
            or not _PLAIN_KEY.fullmatch(key)
            or isinstance(value, list)
            or _is_big(value)
        ):
            rest[key] = value
            continue
        inner = f'{path}."{key}"'
        if isinstance(value, dict):
            simple.append(("json_type(m.metadata, ?) = 'object'", [inner]))
            left = _contain(value, inner, simple)
            if left:
                rest[key] = left
        elif value is None or isinstance(value, bool):
            kind = "null" if value is None else "true" if value else "false"
            simple.append(("json_type(m.metadata, ?) = ?", [inner, kind]))
        else:
            kinds = "('text')" if isinstance(value, str) else "('integer', 'real')"
            simple.append(
                (
                    f"json_type(m.metadata, ?) IN {kinds} AND json_extract(m.metadata, ?) = ?",
                    [inner, inner, value],
                )
            )
    return rest


def _is_big(value: Any) -> bool:
    return isinstance(value, int) and value not in _INT64


def contains(value: Any, wanted: Any) -> bool:
    """Whether a JSON value contains another, as `Filter.metadata` says.

    Every list and object inside a list of `wanted` is compared with every element; the rest takes
    one look at each.
    """
    if isinstance(wanted, dict):
        return (
            isinstance(value, dict)
            and len(value) >= len(wanted)
            and all(key in value and contains(value[key], inner) for key, inner in wanted.items())
        )
    if isinstance(wanted, list):
        return isinstance(value, list) and _all_in(value, wanted)
    if isinstance(value, dict | list):
        return False
    return bool(_alike(value) == _alike(wanted))


def _all_in(values: list[Any], wanted: list[Any]) -> bool:
    """Whether each of the wanted is contained in one of the values."""
    there = {_alike(value) for value in values if not isinstance(value, dict | list)}
    for inner in wanted:
        if isinstance(inner, dict | list):
            if not any(contains(value, inner) for value in values):
                return False
        elif _alike(inner) not in there:
            return False
    return True


def _alike(scalar: Any) -> Any:
    """What equal scalars have in common: 1 is 1.0, and true is no number."""
    return (scalar,) if isinstance(scalar, bool) else scalar


def lists_within(wanted: Any, *, inside: bool = False) -> int:
    """How many lists and objects stand inside lists of a filter: each is compared with many."""
    if isinstance(wanted, dict):
        return inside + sum(lists_within(inner) for inner in wanted.values())
    if isinstance(wanted, list):
        return inside + sum(lists_within(inner, inside=True) for inner in wanted)
    return 0
