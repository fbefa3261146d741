"""A checksum beside what was stored: SQLite notices a garbled page of its own, and not a garbled
page of a long value.

Rows from before there were checksums have none, and go unchecked.
"""

from __future__ import annotations

from struct import error as StructError
from struct import pack
from typing import Any
from zlib import crc32

from botwire_server.errors import Damaged
from botwire_server.store.driver import DAMAGED


def checksum(content: str | bytes, *more: str | bytes | float) -> int:
    """CRC-32 over these, in this order."""
    result = crc32(content if type(content) is bytes else content.encode())  # type: ignore[union-attr]
    for each in more:
        kind = type(each)
        if kind is bytes:
            result = crc32(each, result)  # type: ignore[arg-type]
        elif kind is str:
            result = crc32(each.encode(), result)  # type: ignore[union-attr]
        else:
            result = crc32(pack("<d", each), result)
    return result


def holds(expected: int | None, *parts: Any) -> bool:
    """Whether these are what was stored, as far as that is known."""
    try:
        return expected is None or checksum(*parts) == expected
    except (AttributeError, TypeError, ValueError, StructError):  # not even of its type
        return False


def require(expected: int | None, *parts: Any) -> None:
    """Raise `Damaged` where these are not what was stored."""
    if not holds(expected, *parts):
        raise Damaged(DAMAGED)
