"""A registry made of a backup's: the rows of the tables that we know, each looked at, and no more.

A backup's control.db may have been written by anybody. Nothing of the file itself is taken over;
what says where files lie, or what is still to be done with them, is left behind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from botwire_server import limits
from botwire_server.errors import Damaged, Invalid
from botwire_server.store import control_copies, installation, names
from botwire_server.store.driver import Connection
from botwire_server.store.keys import SCOPES
from botwire_server.store.moments import is_count, is_moment
from botwire_server.store.namespace import Totals
from botwire_server.store.registry import is_id

_LONGEST_TEXT = 65_536

Check = Callable[[Any], bool]


def _matches(pattern: str) -> Check:
    compiled = re.compile(pattern)
    return lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_TEXT


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**53


def _is_hash(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) == 32


def _is_namespace(value: Any) -> bool:
    return isinstance(value, str) and is_id(value)


def _is_scopes(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and set(value.split(",")) <= set(SCOPES)


def _is_held(value: Any) -> bool:
    found = _parsed(value)
    return isinstance(found, list) and len(found) <= len(Totals()) and all(map(_is_whole, found))


def _is_object(value: Any) -> bool:
    return isinstance(_parsed(value), dict)


def _parsed(value: Any) -> Any:
    try:
        return orjson.loads(value) if _is_text(value) else None
    except orjson.JSONDecodeError:
        return None


def _name(longest: int) -> Check:
    def check(value: Any) -> bool:
        try:
            return isinstance(value, str) and bool(names.check(value, "name", longest=longest))
        except Invalid:
            return False

    return check


_HEX_16 = _matches("[0-9a-f]{16}")
_KEY = _matches("[0-9A-Za-z]{12}")

# Every column that is taken over, by table, in an order in which rows refer to what is there.
TABLES: Mapping[str, Mapping[str, Check]] = {
    "tenants": {
        "id": _HEX_16,
        "name": _name(limits.TENANT),
        "tier": _is_text,
        "created_at": is_moment,
    },
    "keys": {
        "id": _KEY,
        "tenant_id": _or_none(_HEX_16),
        "hash": _is_hash,
        "label": _is_text,
        "scopes": _is_scopes,
        "pattern": _name(limits.PATTERN),
        "created_at": is_moment,
        "last_used_at": _or_none(is_moment),
        "expires_at": _or_none(is_moment),
        "revoked_at": _or_none(is_moment),
    },
    "purges": {
        "id": _HEX_16,
        "tenant_id": _HEX_16,
        "scope": _matches("namespace|prefix|tenant"),
        "actor": _is_text,
        "started_at": is_moment,
        "receipt": _or_none(_is_object),
    },
    "tombstones": {
        "namespace_id": _is_namespace,
        "purge_id": _HEX_16,
        "known": _is_held,
        "held": _or_none(_is_held),
        "removed_at": is_moment,
    },
    "calls": {
        "day": _is_whole,
        "tenant_id": _HEX_16,
        "key_id": _is_text,
        "calls": is_count,
        "embeddings": is_count,
    },
    "holdings": {
        "day": _is_whole,
        "tenant_id": _HEX_16,
        "namespaces": is_count,
        "vectors": is_count,
        "bytes": is_count,
    },
    "audit": {
        "id": _is_whole,
        "at": is_moment,
        "actor": _is_text,
        "action": _is_text,
        "tenant_id": _or_none(_HEX_16),
        "subject": _or_none(_is_text),
        "outcome": _is_text,
    },
}

# What is looked at and made anew.
_NAMESPACES: Mapping[str, Check] = {
    "id": _is_namespace,
    "tenant_id": _HEX_16,
    "name": _name(limits.NAMESPACE),
    "created_at": is_moment,
}


def check(source: Connection) -> None:
    """Look at every row that a restore takes over. Raises `Damaged`."""
    for table, columns in {**TABLES, "namespaces": _NAMESPACES}.items():
        for _ in _rows(source, table, columns):
            pass
    for problem, count in _CONTRADICTIONS.items():
        if source.execute(count).fetchone()[0]:
            raise Damaged(f"The registry's copy {problem}.")


_CONTRADICTIONS = {
    "has a tenant whose purge has not ended": """SELECT count(*) FROM tenants
        WHERE purging_at IS NOT NULL OR id IN (
            SELECT tenant_id FROM purges WHERE scope = 'tenant' AND receipt IS NULL)""",
    "says that files of a purge are still there": """SELECT count(*) FROM tombstones
        WHERE file <> '' OR removed_at IS NULL""",
}


def take_over(source: Connection, target: Connection) -> None:
    """Write the known rows of one registry into a new one, namespaces aside."""
    if control_copies.keys_required(source):
        target.execute("INSERT INTO facts (name, value) VALUES ('keys_required', 1)")
    installation.note_revoked(target, installation.revoked(source))
    for table, columns in TABLES.items():
        names_ = list(columns)
        more = {"tombstones": {"file": ""}}.get(table, {})
        places = ", ".join("?" for _ in (*names_, *more))
        target.executemany(
            f"INSERT INTO {table} ({', '.join([*names_, *more])}) VALUES ({places})",  # noqa: S608
            ((*row, *more.values()) for row in _rows(source, table, columns)),
        )


def _rows(
    source: Connection, table: str, columns: Mapping[str, Check]
) -> Iterator[tuple[Any, ...]]:
    for row in source.execute(f"SELECT {', '.join(columns)} FROM {table}"):  # noqa: S608
        for (name, fits), value in zip(columns.items(), row, strict=True):
            if not fits(value):
                raise Damaged(f"The registry's copy has a {name} among its {table} that cannot be.")
        yield row
