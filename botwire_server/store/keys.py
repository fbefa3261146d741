"""API keys: how one looks, and what it may do.

`bw_<public id>_<secret><checksum>`: 12 letters by which it is found, 256 random bits, and 6
letters by which a scanner for leaked secrets tells a key from other text. Only the SHA-256 of the
whole is ever stored: with 256 random bits nothing slower buys anything.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from functools import lru_cache
from typing import NamedTuple

from botwire_server import limits
from botwire_server.errors import Invalid
from botwire_server.store import names

PREFIX = "bw_"
SCOPES = ("read", "write", "purge")
EVERYTHING = "*"

_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SHAPE = re.compile("bw_([0-9A-Za-z]{12})_[0-9A-Za-z]{49}")


class NewKey(NamedTuple):
    """A key that was just made. `text` is shown once and kept nowhere."""

    id: str
    text: str
    hash: bytes


class Grant(NamedTuple):
    """What a key may do: `scopes` in the namespaces whose name matches `pattern`."""

    scopes: frozenset[str]
    pattern: str

    def allows(self, scope: str, namespace: str) -> bool:
        """Whether it may do `scope` in this namespace."""
        return scope in self.scopes and (
            self.pattern == EVERYTHING or _matches(self.pattern, namespace)
        )

    def allows_somewhere(self, scope: str) -> bool:
        """Whether it may do `scope` in those that fit its pattern."""
        return scope in self.scopes

    def allows_everywhere(self, scope: str) -> bool:
        """Whether it may do `scope` in every namespace."""
        return scope in self.scopes and self.pattern == EVERYTHING


UNLIMITED = Grant(frozenset(SCOPES), EVERYTHING)


def new_key() -> NewKey:
    """A fresh key."""
    id = "".join(secrets.choice(_LETTERS) for _ in range(12))
    body = f"{PREFIX}{id}_{_base62(secrets.randbits(256), 43)}"
    text = body + _checksum(body)
    return NewKey(id, text, digest(text))


def public_id(text: str) -> str | None:
    """The public id in what may be a key, None if it has not the shape of one.

    The checksum is not looked at: the digest decides, and this is on the way of every request.
    """
    match = _SHAPE.fullmatch(text)
    return None if match is None else match[1]


def is_key(text: str) -> bool:
    """Whether this is a whole key of ours, known or not; for whoever looks for leaked ones."""
    return _SHAPE.fullmatch(text) is not None and _checksum(text[:-6]) == text[-6:]


def digest(text: str) -> bytes:
    """What is stored of a key."""
    return hashlib.sha256(text.encode()).digest()


def grant(scopes: str, pattern: str) -> Grant:
    """A grant as it is stored: "read,write", "tenant-acme-*"."""
    return Grant(_scopes(scopes), pattern)


def check_grant(scopes: list[str], pattern: str) -> tuple[str, str]:
    """Scopes and pattern as they are stored, or `Invalid`."""
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown:
        raise Invalid(
            f"There is no scope {unknown[0]}: it is one of {', '.join(SCOPES)}.",
            where=("body", "scopes"),
        )
    names.check(pattern, "namespace pattern", longest=limits.PATTERN)
    if pattern.count("*") > limits.STARS:
        raise Invalid(
            f"The namespace pattern may have {limits.STARS} stars, such as tenant-acme-*.",
            where=("body", "namespace"),
        )
    return ",".join(scope for scope in SCOPES if scope in (scopes or SCOPES)), pattern


@lru_cache(maxsize=1024)
def _scopes(scopes: str) -> frozenset[str]:
    return frozenset(scopes.split(","))


def _matches(pattern: str, name: str) -> bool:
    """Whether a name fits a pattern, in which only * is special.

    In one pass: a regular expression with four stars takes a tenth of a second for some names.
    """
    first, *middle = pattern.split("*")
    if not middle:
        return name == pattern
    last = middle.pop()
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    at, end = len(first), len(name) - len(last)
    for part in middle:
        at = name.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return True


def _base62(number: int, length: int) -> str:
    letters = []
    for _ in range(length):
        number, letter = divmod(number, 62)
        letters.append(_LETTERS[letter])
    return "".join(letters)


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), 6)
