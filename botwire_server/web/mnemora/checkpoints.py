"""The rule for LangGraph checkpoints that are written over each other.

The client's saver writes one document from two tasks at once and loses its own races. Its
checkpoints carry an id that is ordered by time (a UUID of version 6 or 7), which says better than
the document's version which write is the later one.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from botwire_server.errors import Conflict, TooLarge
from botwire_server.store.states import Resolve

_ORDERED_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[67][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_PENDING = "pending_writes"


def resolver(data: dict[str, Any], *, most: int) -> Resolve | None:
    """What to do where this document's version is stale; None where it is no checkpoint.

    An older checkpoint leaves what is stored, a newer one replaces it, and of two writes of the
    same one the pending writes are united, into `most` bytes at most.
    """
    given = _checkpoint_id(data)
    if given is None:
        return None

    def resolve(stored: bytes) -> bytes | None:
        # A document from before there was a limit is not even read: everybody would wait for it.
        document = orjson.loads(stored) if len(stored) <= most else {}
        present = _checkpoint_id(document)
        if present is None or present[14] != given[14]:
            raise Conflict(
                "The state was changed since it was read and holds no checkpoint to compare with: "
                "read it again and repeat the change."
            )
        if given < present:
            return None
        if given > present:
            return orjson.dumps(data)
        both = orjson.dumps({**document, **data, **_united(document, data)})
        if len(both) > most:
            raise TooLarge(
                f"The checkpoint would be larger than {most} bytes together with what is stored "
                "of it; nothing was changed. Read the state again and write it whole."
            )
        return both

    return resolve


def _checkpoint_id(data: dict[str, Any]) -> str | None:
    checkpoint = data.get("checkpoint")
    id = checkpoint.get("id") if isinstance(checkpoint, dict) else None
    return id if isinstance(id, str) and _ORDERED_UUID.fullmatch(id) else None


def _united(document: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    stored, given = document.get(_PENDING), data.get(_PENDING)
    if isinstance(stored, dict) and isinstance(given, dict):
        return {_PENDING: {**stored, **given}}
    return {}
