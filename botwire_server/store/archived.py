"""What the records of an archive must look like, kind by kind.

An archive may come from anybody. What the server would never have stored must not get in that
way: a vector of the wrong length would break every search, a key nobody can name could never be
deleted, a count below nothing would get around a tier.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

from botwire_server import limits
from botwire_server.errors import Invalid
from botwire_server.lazy import numpy as np
from botwire_server.store import names
from botwire_server.store.manifest import damaged
from botwire_server.store.moments import is_count, is_moment
from botwire_server.store.vectors import CHUNK_BITS

LONGEST_MODEL = 512
# Levels of a record around what a client has sent: the record, its history, what was replaced.
WRAPPED = 3
# So that it has room for the number of a chunk.
LARGEST_ID = 2 ** (62 - CHUNK_BITS)

Check = Callable[[Any], bool]


def _name(longest: int) -> Check:
    def check(value: Any) -> bool:
        try:
            return isinstance(value, str) and bool(names.check(value, "name", longest=longest))
        except Invalid:
            return False

    return check


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_id(value: Any) -> bool:
    return is_count(value) and 1 <= value < LARGEST_ID


def _is_number(value: Any) -> bool:
    return is_count(value) and value >= 1


def _is_history(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict)
        and _is_text(one.get("content"))
        and _is_object(one.get("metadata"))
        and is_moment(one.get("replaced_at"))
        for one in value
    )


def _is_model(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and _name(LONGEST_MODEL)(value[0])
        and is_count(value[1])
        and 1 <= value[1] <= limits.DIMENSION
    )


FIELDS: Mapping[str, Mapping[str, Check]] = {
    "entries": {
        "key": _name(limits.KEY),
        "value": lambda value: True,
        "revision": _is_number,
        "created_at": is_moment,
        "updated_at": is_moment,
        "expires_at": _or_none(is_moment),
    },
    "states": {
        "session_id": _name(limits.ID),
        "data": _is_object,
        "version": _is_number,
        "created_at": is_moment,
        "updated_at": is_moment,
        "expires_at": _or_none(is_moment),
    },
    "memories": {
        "id": _is_id,
        "content": lambda value: _is_text(value) and bool(value),
        "metadata": _is_object,
        "collection": _name(limits.COLLECTION),
        "session_id": _or_none(_name(limits.ID)),
        "created_at": is_moment,
        "updated_at": is_moment,
        "history": _is_history,
        "model": _or_none(_is_model),
        "vectors": _is_object,
    },
    "episodes": {
        "id": _is_id,
        "session_id": _name(limits.ID),
        "type": _name(limits.COLLECTION),
        "content": lambda value: _is_text(value) or _is_object(value),
        "metadata": _is_object,
        "created_at": is_moment,
    },
}


def check_record(kind: str, record: Any) -> None:
    """Refuse a record that the server would not have written."""
    if not isinstance(record, dict):
        raise damaged("a record is no object")
    if _deeper(record, limits.DEPTH + WRAPPED):
        raise damaged(f"one of its {kind} is nested too deep")
    for name, fits in FIELDS[kind].items():
        if name not in record or not fits(record[name]):
            raise damaged(f"one of its {kind} has no {name} as it should be")
    if kind == "memories":
        _check_vectors(record["model"], record["vectors"])


def _deeper(value: Any, most: int) -> bool:
    """Whether something is nested deeper than `most` levels."""
    level = [value]
    for _ in range(most + 1):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def _check_vectors(model: list[Any] | None, vectors: dict[str, Any]) -> None:
    if vectors and model is None:
        raise damaged("a memory has vectors of no model")
    for number, text in vectors.items():
        try:
            fits = _is_vector(base64.b64decode(text, validate=True), model[1] if model else 0)
        except (binascii.Error, TypeError, ValueError):
            fits = False
        if not fits or not (
            number.isascii() and number.isdigit() and int(number) < 1 << CHUNK_BITS
        ):
            raise damaged("a memory has a vector that is none")


def _is_vector(content: bytes, dimension: int) -> bool:
    if len(content) != 4 * dimension:
        return False
    vector = np.frombuffer(content, np.float32)
    return bool(np.isfinite(vector).all() and vector.any())
