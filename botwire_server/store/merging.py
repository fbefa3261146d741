"""What becomes of a memory that is stored again, and how much one memory may become that way.

The result of a merge has the limits of what is sent. What would exceed them is no merge: it is
stored as a memory of its own, and later repeats are merged with that one.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import orjson

from botwire_server import limits

# Of the united metadata: bytes of their JSON, and keys at all depths. No honest metadata come near.
METADATA_BYTES = limits.METADATA
METADATA_KEYS = 1_000
# Of what a memory has replaced, all together: a hundred times such metadata.
HISTORY_BYTES = 100 * METADATA_BYTES


def merged(older: str, newer: Mapping[str, Any]) -> str | None:
    """Both metadata as JSON: the older text where nothing changes, None where it would be too much.

    Older metadata that are too much already (they were stored before there was a limit) stay as
    they are for whoever changes nothing.
    """
    before = orjson.loads(older)
    both = united(before, newer)
    # The order of keys says nothing, and must not make a history.
    if _sorted(both) == _sorted(before):
        return older
    text = orjson.dumps(both).decode()
    if len(text.encode()) > METADATA_BYTES or keys_of(both) > METADATA_KEYS:
        return None
    return text


def united(older: Mapping[str, Any], newer: Mapping[str, Any]) -> dict[str, Any]:
    """Both metadata; where they differ the newer stands, objects are united pair by pair.

    Nested no deeper than the deeper of them.
    """
    both = {**older, **newer}
    for key in older.keys() & newer.keys():
        if isinstance(older[key], dict) and isinstance(newer[key], dict):
            both[key] = united(older[key], newer[key])
    return both


def keys_of(value: Any) -> int:
    """How many keys there are in all objects of a JSON value."""
    count = 0
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            count += len(one)
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
    return count


def retired(same: bytes, id: int) -> bytes:
    """The mark of a memory that took all it may, in place of `same`: nothing is merged with it."""
    return blake2b(same + id.to_bytes(8), digest_size=len(same), person=b"retired").digest()


def _sorted(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
