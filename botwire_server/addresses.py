"""Where a server may listen, as an operator writes it: a host and a port, or `unix:` and a path.

Nothing is opened or looked up here; a spelling that means nothing is refused.
"""

from __future__ import annotations

import os
import re
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

from botwire_server.errors import Unusable

UNIX = "unix:"
EVERY_IPV4, EVERY = "0.0.0.0", "::"
LOCALHOST = "localhost"
# Hosts that are one address in each family.
BOTH = {EVERY: (EVERY, EVERY_IPV4), LOCALHOST: ("127.0.0.1", "::1")}

_HOST = re.compile(r"[^\s/\[\]@]+")
_PUBLIC = re.compile(
    r"https?://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"
    r"(?P<path>(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)*)"
)
_WITH_PORT = re.compile(r"(?P<host>\[[^]]*\]|[^:]*):(?P<port>[0-9]{1,5})")


class Address(NamedTuple):
    """A host and a port, or the `path` of a Unix socket. `setting` is the option that says so."""

    setting: str
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def local(self) -> bool:
        """Whether only this machine gets there."""
        return bool(self.path) or is_local(self.host)

    @property
    def hosts(self) -> tuple[str, ...]:
        """What to listen on: each in the family it belongs to."""
        return BOTH.get(self.host, (self.host,))

    def __str__(self) -> str:
        return f"{UNIX}{self.path}" if self.path else f"{self.host} port {self.port}"


def of_host(host: str, port: int, *, setting: str = "--host") -> Address:
    """The address that --host and --port name. Raises `Unusable`."""
    if host.startswith(UNIX):
        return Address(setting, path=_path(host, setting))
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not _is_ipv6(host):
            raise Unusable(f"{setting}: brackets are for IPv6 addresses, such as [::1].")
    found = None if _is_ipv6(host) else _WITH_PORT.fullmatch(host)
    if found is not None:
        raise Unusable(
            f"{setting} takes no port: say {setting} {found['host']} --port {found['port']}."
        )
    if not _HOST.fullmatch(host) or host == "*" or (":" in host and not _is_ipv6(host)):
        raise Unusable(
            f"{setting} must be an address, a name or unix:PATH, such as 127.0.0.1, localhost, "
            "0.0.0.0 (every IPv4 address), :: (every address) or unix:/run/botwire.sock."
        )
    return Address(setting, host=_plain(host), port=port)


def of_setting(value: str, *, setting: str) -> Address:
    """The address in HOST:PORT or unix:PATH. Raises `Unusable`."""
    if value.startswith(UNIX):
        return Address(setting, path=_path(value, setting))
    found = _WITH_PORT.fullmatch(value)
    if found is None or int(found["port"]) > 65_535:
        raise Unusable(
            f"{setting} must be HOST:PORT or unix:PATH, such as 127.0.0.1:9464, [::1]:9464 or "
            "unix:/run/botwire-metrics.sock."
        )
    return of_host(found["host"], int(found["port"]), setting=setting)


def public_url(text: str | None, *, setting: str) -> str | None:
    """The address that a proxy gives a server, without a slash at its end. Raises `Unusable`."""
    if text is None:
        return None
    found = _PUBLIC.fullmatch(text.rstrip("/"))
    segments = [] if found is None else (found["path"] or "").split("/")[1:]
    if found is None or not all(segments) or {".", ".."}.intersection(segments):
        raise Unusable(
            f"{setting} must be an address in ASCII, without a key, a query or a fragment, such as "
            "https://example.com or https://example.com/memory."
        )
    return found[0]


def is_local(host: str) -> bool:
    """Whether only this machine can reach `host`. In doubt it is not: 127.1 may be any name."""
    if host.startswith(UNIX):
        return True
    host = _plain(host.strip("[]"))
    if host == LOCALHOST:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name: 127.example.org may lead anywhere
        return False


def url(host: str, port: int) -> str:
    """Where a client finds a host and port."""
    return f"http://[{host.replace('%', '%25')}]:{port}" if ":" in host else f"http://{host}:{port}"


def _plain(host: str) -> str:
    """One spelling for what has several: names without case, IPv4 not as IPv6."""
    if host.rstrip(".").lower() == LOCALHOST:
        return LOCALHOST
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


def _is_ipv6(host: str) -> bool:
    try:
        return isinstance(ip_address(host), IPv6Address)
    except ValueError:
        return False


def _path(value: str, setting: str) -> str:
    path = value.removeprefix(UNIX)
    if path.startswith("@") or "\0" in path:
        raise Unusable(
            f"{setting} takes no abstract socket, which has no owner and no mode: name a path."
        )
    if not path or path.endswith("/"):
        raise Unusable(
            f"{setting} {UNIX} needs the path of a socket, such as unix:/run/botwire.sock."
        )
    path = os.path.abspath(path)
    return path[1:] if path.startswith("//") else path
