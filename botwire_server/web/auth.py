"""Who is asking: credentials become a `Tenant`, or the request is refused.

While no key is required, a server on localhost could be asked by any web page its user visits;
`protect` refuses what only a foreign page would send.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from botwire_server.config import Config
from botwire_server.errors import ForeignOrigin, Misdirected
from botwire_server.store.directory import DataDirectory
from botwire_server.store.namespace import Limits
from botwire_server.store.registry import TenantRow
from botwire_server.store.tenant import Tenant

Headers = Sequence[tuple[bytes, bytes]]

LOCAL_HOSTS = frozenset({b"localhost", b"127.0.0.1", b"[::1]"})


class Door:
    """Turns the headers of a request into the tenant that is asking."""

    def __init__(self, directory: DataDirectory, tenant: TenantRow, config: Config) -> None:
        limits = Limits(daily_writes=config.write_limit, namespace_bytes=config.size_limit)
        self._tenant = Tenant(directory, tenant, limits)
        self._local = config.loopback

    def admit(self, headers: Headers, header: Mapping[bytes, bytes]) -> Tenant:
        """The tenant that is asking; `header` holds the last of each of the `headers`."""
        protect(headers, header, local=self._local)
        return self._tenant


def protect(headers: Headers, header: Mapping[bytes, bytes], *, local: bool) -> None:
    """Refuse what a web page of somebody else would send to an open server.

    With `local`, the Host header must name this machine: another name that resolves here is how
    a foreign page gets past the browser's own rules.
    """
    host = header.get(b"host", b"").lower()
    if local and (_without_port(host) not in LOCAL_HOSTS or _repeated(headers, header, b"host")):
        raise Misdirected(
            "This server answers to localhost, 127.0.0.1 and [::1] only, while it needs no key."
        )
    origin = header.get(b"origin")
    if origin is not None and origin.lower() != b"http://" + host:
        raise ForeignOrigin("This server does not answer web pages of other origins.")
    if header.get(b"sec-fetch-site") == b"cross-site":
        raise ForeignOrigin("This server does not answer requests from other sites.")


def _without_port(host: bytes) -> bytes:
    name, colon, port = host.rpartition(b":")
    return name if colon and port.isdigit() else host


def _repeated(headers: Headers, header: Mapping[bytes, bytes], name: bytes) -> bool:
    return len(header) != len(headers) and sum(key == name for key, _ in headers) > 1
