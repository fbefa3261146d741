"""Where requests with keys that do not work come from, and when one address has sent too many.

A key has 256 random bits: nobody guesses one. This keeps a client that was given a wrong key from
asking for ever, and shows the operator who does. Only failing requests are ever refused for it: a
key that works is served whatever else its address sends.
"""

from __future__ import annotations

import logging
import math
import re
from collections import deque
from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Any

from botwire_server.errors import TooManyFailures, Unusable
from botwire_server.store.driver import Clock

log = logging.getLogger(__name__)

MOST_FAILURES = 10
WITHIN_SECONDS = 60.0
# Addresses that are remembered; those that failed least recently are forgotten first.
MOST_ADDRESSES = 8_192
# Of X-Forwarded-For, how many proxies one after the other are looked at.
MOST_HOPS = 32
# What --trusted-proxy calls whoever comes through a Unix socket; also the address of such.
UNIX = "unix"

Address = IPv4Address | IPv6Address

_FORWARDED = b"x-forwarded-for"

_PORT = re.compile(r"(?:\[(?P<inside>[^\]]*)\]|(?P<plain>[0-9.]+))(?::[0-9]{1,5})?")


class Proxies:
    """The proxies whose X-Forwarded-For is believed."""

    def __init__(self, settings: Sequence[str]) -> None:
        self._unix = UNIX in settings
        self._networks = [_network(setting) for setting in settings if setting != UNIX]

    def caller(self, scope: Any) -> str:
        """Who sent a request: an IPv4 address, or the network (/64) of an IPv6 address.

        That is who connected; where that is a proxy of ours, the last of X-Forwarded-For that is
        none. What is no address there ends the search: it is nobody's word but the client's.
        """
        client = scope.get("client")
        address = None if client is None else _address(client[0])
        trusted = self._unix if address is None else self._trusts(address)
        if trusted:
            sent = b",".join(value for name, value in scope["headers"] if name == _FORWARDED)
            for part in reversed(sent.decode("latin-1").rsplit(",", MOST_HOPS)[-MOST_HOPS:]):
                before = _address(part.strip())
                if before is None:
                    break
                address = before
                if not self._trusts(address):
                    break
        if address is None:
            return UNIX
        if isinstance(address, IPv6Address):
            return str(IPv6Network((int(address) >> 64 << 64, 64)))
        return str(address)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


class Failures:
    """Counts requests with a key that does not work, by who sent them."""

    def __init__(self, clock: Clock, *, most: int = MOST_FAILURES) -> None:
        self.most = most
        self.count = 0
        self._clock = clock
        self._recent: dict[str, deque[float]] = {}

    def add(self, caller: str) -> None:
        """Count one. Raises `TooManyFailures` where there were too many just before."""
        self.count += 1
        now = self._clock()
        recent = self._recent.pop(caller, None)
        if recent is None:
            recent = deque(maxlen=self.most)
            if len(self._recent) >= MOST_ADDRESSES:
                del self._recent[next(iter(self._recent))]
        self._recent[caller] = recent
        if self._full(recent, now):
            raise TooManyFailures(
                "Too many requests with an API key that does not work came from this address; "
                "correct the key: one that works is served at once.",
                limit=self.most,
                resets_at=math.ceil(recent[0] + WITHIN_SECONDS),
                kind="failed_keys",
            )
        recent.append(now)
        if self._full(recent, now):
            log.warning("%d keys that do not work within a minute from %s", self.most, caller)

    def _full(self, recent: deque[float], now: float) -> bool:
        # A clock that was set back must not refuse anybody for long.
        return len(recent) == self.most and 0 <= now - recent[0] < WITHIN_SECONDS


def _address(text: str) -> Address | None:
    """The address in `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]` or `[::1]:80`; None in all else."""
    with_port = _PORT.fullmatch(text)
    if with_port is not None:
        text = with_port["inside"] or with_port["plain"] or ""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _network(setting: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(setting)
    except ValueError:
        raise Unusable(f"--trusted-proxy {setting}: {_advice(setting)}") from None
    if network.prefixlen == 0:
        raise Unusable(
            f"--trusted-proxy {setting}: that is everybody, and whoever asks could name any "
            "address; name your proxies."
        )
    mapped = network.network_address.ipv4_mapped if network.version == 6 else None
    if mapped is not None and network.prefixlen >= 96:
        return ip_network((int(mapped), network.prefixlen - 96))
    return network


def _advice(setting: str) -> str:
    try:
        whole = ip_network(setting, strict=False)
    except ValueError:
        return (
            "it must be an address, a network such as 10.0.0.0/8, or unix for who comes through "
            "a Unix socket."
        )
    return f"{setting.partition('/')[0]} is one address in {whole}; name one of the two."
