"""JSON that came from elsewhere, read with a bound on the memory that it becomes.

A list that is empty takes three bytes as JSON and sixty in memory; a thousand times less again once
it is compressed. What a record becomes is estimated before it is made.
"""

from __future__ import annotations

from typing import Any

import orjson

# So little is read without a look: at the worst it takes twenty times that.
LIGHT = 1 << 20
# What one record, or one manifest, may become in memory, in bytes.
HEAVIEST = 160 * 1024 * 1024
_CONTAINER, _ITEM = 200, 40

_PART = 1 << 16


def loads(content: bytes) -> Any:
    """What `content` says. Raises `ValueError` where it is no JSON, or too much of it."""
    if (
        len(content) > LIGHT
        and _weight(content) > HEAVIEST
        # Perhaps the brackets and commas stand in texts, where they cost nothing.
        and len(content) + _weight_outside(content) > HEAVIEST
    ):
        raise ValueError("it would take too much memory")
    return orjson.loads(content)


def _weight(content: bytes) -> int:
    containers = content.count(b"[") + content.count(b"{")
    return len(content) + _CONTAINER * containers + _ITEM * content.count(b",")


def _weight_outside(content: bytes) -> int:
    """That of what stands outside of texts, looked at piece by piece."""
    plain = content.replace(b"\\\\", b"").replace(b'\\"', b"")
    weight, inside = 0, False
    for start in range(0, len(plain), _PART):
        pieces = plain[start : start + _PART].split(b'"')
        weight += _weight(b"".join(pieces[inside::2]))
        inside ^= len(pieces) % 2 == 0
    return weight
