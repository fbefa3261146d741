"""Web pages of other origins that may ask from their visitors' browsers: `--allow-origin`.

Off unless an operator names origins, each in full: never `*`, never with the browser's own
credentials. A preflight is answered without a key, whatever its path, and every other answer can
be read by the page, refusals too. While no key is needed only pages of this machine are answered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from starlette.responses import Response
from starlette.types import Scope

from botwire_server.errors import Unusable

METHODS = ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE")
HEADERS = (
    "Authorization",
    "Content-Type",
    "If-Match",
    "If-None-Match",
    "X-API-Key",
    "X-Request-ID",
)
EXPOSED = (
    "ETag",
    "X-Request-ID",
    "Retry-After",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
    "X-RateLimit-Reset",
)
# For how long a browser may remember a preflight.
PREFLIGHT_SECONDS = 600
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([0-9]{1,5}))?/?")
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_DEFAULT_PORTS = {"http": 80, "https": 443}

_VARY = (b"vary", b"Origin")
_EXPOSE = (b"access-control-expose-headers", ", ".join(EXPOSED).encode())

RawHeaders = Sequence[tuple[bytes, bytes]]


class Origins:
    """The origins that are allowed; `local` are those of this machine."""

    def __init__(self, settings: Sequence[str]) -> None:
        read = dict(map(_read, settings))
        self._all = frozenset(read)
        self.local = frozenset(origin for origin, host in read.items() if host in LOCAL_NAMES)

    @property
    def elsewhere(self) -> list[str]:
        """Those of other machines, which are not answered while no key is needed."""
        return sorted(origin.decode() for origin in self._all - self.local)

    def asking(
        self, headers: RawHeaders, header: Mapping[bytes, bytes], *, is_open: Callable[[], bool]
    ) -> bytes | None:
        """The allowed origin of the page that a request comes from, None for any other.

        `header` holds the last of each of the raw `headers`, by name in lower case; `is_open` is
        whether no key is needed.
        """
        origin = header.get(b"origin", b"").lower()
        if origin not in self._all or (origin not in self.local and is_open()):
            return None
        once = len(header) == len(headers) or sum(name == b"origin" for name, _ in headers) == 1
        return origin if once else None

    def readable(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        """The headers of an answer that a page of this origin may read, if of any."""
        if not self._all:
            return []
        if origin is None:
            return [_VARY]
        return [_VARY, (b"access-control-allow-origin", origin), _EXPOSE]


def is_preflight(scope: Scope, header: Mapping[bytes, bytes]) -> bool:
    """Whether a browser asks before it sends a request for a page."""
    return scope["method"] == "OPTIONS" and b"access-control-request-method" in header


def preflight() -> Response:
    """What it is told then, whatever the path."""
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Methods": ", ".join(METHODS),
            "Access-Control-Allow-Headers": ", ".join(HEADERS),
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        },
    )


def _read(setting: str) -> tuple[bytes, str]:
    """An origin as a browser writes it, and its host. Raises `Unusable`."""
    if setting in ("*", "null"):
        raise Unusable(
            f"--allow-origin {setting}: every page would be allowed; name each in full, such as "
            "https://app.example."
        )
    if not setting.isascii():
        raise Unusable(
            f"--allow-origin {setting}: write the name as browsers send it, in ASCII (xn--...)."
        )
    found = _ORIGIN.fullmatch(setting.lower())
    host = None if found is None else _host(found[2])
    if found is None or host is None or not 0 < int(found[3] or 1) <= 65_535:
        raise Unusable(
            f"--allow-origin {setting}: an origin is http:// or https://, a host and at most a "
            "port, with nothing behind it, such as https://app.example or http://localhost:3000."
        )
    scheme = found[1]
    port = "" if int(found[3] or 0) in (0, _DEFAULT_PORTS[scheme]) else f":{int(found[3])}"
    return f"{scheme}://{host}{port}".encode(), host


def _host(text: str) -> str | None:
    """A host as browsers write it; None for what they would not."""
    try:
        if text.startswith("["):
            return f"[{IPv6Address(text[1:-1]).compressed}]"
        last = text.rpartition(".")[2]
        if last.isdigit():  # a browser takes such a name for an address
            return str(IPv4Address(text))
    except AddressValueError:
        return None
    return text if len(text) <= 253 and _NAME.fullmatch(text) else None
