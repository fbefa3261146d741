"""Which memories a search is about, as SQL: every value is a parameter, every column a constant."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from botwire_server.lazy import numpy as np
from botwire_server.store.driver import Connection

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What may stand in a JSON path between quotes without meaning anything there.
_PLAIN_KEY = re.compile(r'[^"\\\x00-\x1f]+')
_INT64 = range(-(2**63), 2**63)
# SQLite takes expressions of a thousand terms; a filter that is longer is looked at in one.
MOST_PAIRS = 100


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
        if _pairs(self.metadata) <= MOST_PAIRS:
            _contain(self.metadata, "$", parts, parameters)
        else:
            parts.append("metadata_holds(json_extract(m.metadata, '$'), ?)")
            parameters.append(orjson.dumps(self.metadata).decode())
        return " AND ".join(parts)

    def ids(self, connection: Connection) -> NDArray[np.int64] | None:
        """The memories that pass, in their order; None where all do."""
        parameters: list[Any] = []
        condition = self.condition(parameters)
        if not condition:
            return None
        prepare(connection)
        [found] = connection.execute(
            f"SELECT json_group_array(m.id) FROM memories AS m WHERE {condition}",  # noqa: S608
            parameters,
        ).fetchone()
        return np.array(orjson.loads(found), dtype=np.int64)


def prepare(connection: Connection) -> None:
    """Give the connection what a condition may ask for."""
    connection.create_function("metadata_holds", 2, _holds, deterministic=True)


def _contain(wanted: dict[str, Any], path: str, parts: list[str], parameters: list[Any]) -> None:
    for key, value in wanted.items():
        if not _PLAIN_KEY.fullmatch(key) or isinstance(value, list) or _is_big(value):
            parts.append("metadata_holds(json_extract(m.metadata, ?), ?)")
            parameters += [path, orjson.dumps({key: value}).decode()]
            continue
        inner = f'{path}."{key}"'
        if isinstance(value, dict):
            parts.append("json_type(m.metadata, ?) = 'object'")
            parameters.append(inner)
            _contain(value, inner, parts, parameters)
        elif value is None or isinstance(value, bool):
            parts.append("json_type(m.metadata, ?) = ?")
            parameters += [inner, "null" if value is None else "true" if value else "false"]
        else:
            kinds = "('text')" if isinstance(value, str) else "('integer', 'real')"
            parts.append(f"json_type(m.metadata, ?) IN {kinds} AND json_extract(m.metadata, ?) = ?")
            parameters += [inner, inner, value]


def _pairs(wanted: dict[str, Any]) -> int:
    return sum(1 + (_pairs(value) if isinstance(value, dict) else 0) for value in wanted.values())


def _is_big(value: Any) -> bool:
    return isinstance(value, int) and value not in _INT64


def _holds(text: Any, wanted: str) -> bool:
    """Whether the JSON object in `text` contains the one in `wanted`."""
    return isinstance(text, str) and contains(orjson.loads(text), orjson.loads(wanted))


def contains(value: Any, wanted: Any) -> bool:
    """Whether a JSON value contains another, as `Filter.metadata` says."""
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(
            key in value and contains(value[key], inner) for key, inner in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(value, list) and all(
            any(contains(element, inner) for element in value) for inner in wanted
        )
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    return (type(value) is type(wanted) and value == wanted) or _equal_numbers(value, wanted)


def _equal_numbers(value: Any, wanted: Any) -> bool:
    return isinstance(value, int | float) and isinstance(wanted, int | float) and value == wanted
