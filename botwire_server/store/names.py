"""Which names there can be. Nothing a caller names ever becomes a path or SQL text.

Names are compared byte for byte: no folding, no normalising, so two names never meet.
"""

from __future__ import annotations

import re

from botwire_server.errors import Invalid

# Control characters; lone surrogates have no UTF-8 and could not be stored.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def check(name: str, field: str, *, longest: int) -> str:
    """Return `name`, or raise `Invalid` naming `field`."""
    if not 1 <= len(name) <= longest:
        raise Invalid(
            f"The {field} must have 1 to {longest} characters; this one has {len(name)}.",
            where=("path", field),
        )
    if _FORBIDDEN.search(name):
        raise Invalid(
            f"The {field} holds a control character; use printable characters only.",
            where=("path", field),
        )
    return name


def slug(name: str) -> str:
    """A few letters of `name` for people who look at the files; says nothing to the code."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:24] or "namespace"


def first_behind(prefix: str) -> str | None:
    """The first text behind all that begin with `prefix`; None when there is none.

    SQLite compares UTF-8 bytes, which is the order of code points.
    """
    while prefix:
        last = ord(prefix[-1]) + 1
        if last == 0xD800:  # surrogates are no characters
            last = 0xE000
        if last <= 0x10FFFF:
            return prefix[:-1] + chr(last)
        prefix = prefix[:-1]
    return None
