"""Who is asking: credentials become a `Tenant` or an operator, or the request is refused.

The tenant comes from the key, always. Until a key was made the server is open: without a key the
tenant is `default`, and any key presented opens a sandbox of its own, so that code for many
tenants can be tried with nothing set up. While it is open, any web page its user visits could
ask it; `protect` refuses what only a foreign page would send.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Collection, Mapping, Sequence

from botwire_server import tiers
from botwire_server.config import Config
from botwire_server.errors import (
    Forbidden,
    ForeignOrigin,
    Invalid,
    Misdirected,
    Unauthorized,
    Unavailable,
    WrongKey,
)
from botwire_server.store import keys
from botwire_server.store.directory import DataDirectory
from botwire_server.store.making import SANDBOX
from botwire_server.store.registry import DEFAULT_TENANT, MOST_REMEMBERED
from botwire_server.store.room import Limits
from botwire_server.store.rows import UNMADE, KeyRow, TenantRow
from botwire_server.store.tenant import Tenant
from botwire_server.store.usage import NO_KEY, Call

RawHeaders = Sequence[tuple[bytes, bytes]]
Headers = Mapping[bytes, bytes]

LOCAL_HOSTS = frozenset({b"localhost", b"127.0.0.1", b"[::1]"})


class Door:
    """Turns the headers of a request into who is asking.

    `pages` are origins that an open server answers beside its own. `header` holds the last of each
    of the raw `headers`, by name in lower case. With `local`, only this machine reaches it;
    otherwise keys are required even before the first was made.
    """

    def __init__(
        self,
        directory: DataDirectory,
        config: Config,
        *,
        local: bool,
        pages: Collection[bytes] = (),
    ) -> None:
        self._directory = directory
        self._registry = directory.registry
        self._local = local
        self.always_keyed = not local and not config.insecure_open
        self._pages = pages
        self.tiers = tiers.load(config.tiers or config.data_dir / tiers.FILE)
        self._limits = {name: _limits(tier, config) for name, tier in self.tiers.items()}
        # What a key gives, with the row that says so: another row is asked anew.
        self._given: dict[str, tuple[KeyRow, keys.Grant, Call]] = {}

    async def admit(self, headers: RawHeaders, header: Headers) -> Tenant:
        """The tenant that is asking; the call is counted and within its tier."""
        credential = presented(headers, header)
        found = None if credential is None else self._registry.key(credential)
        if found is not None:
            key, row = found
            if row is None:
                raise Forbidden("An operator's key cannot reach tenants' data; use a tenant's key.")
            given = self._given.get(key.id)
            if given is None or given[0] is not key:
                given = self._give(key, row)
            _, grant, call = given
        else:
            name = DEFAULT_TENANT if credential is None else sandbox(credential)
            keyed, row = self._registry.open_tenant(name)
            if keyed or self.always_keyed:
                raise _unknown(credential)
            self._protect(headers, header)
            if row is None:
                row = await self._new(name)
            grant = keys.UNLIMITED
            call = Call(row.id, NO_KEY)
        tier, limits = self._tier(row)
        self._directory.ledger.count(call, tier.calls_per_day)
        return Tenant(self._directory, row, limits=limits, grant=grant, call=call)

    def admit_operator(self, headers: RawHeaders, header: Headers) -> str:
        """The id of the operator's key that is asking."""
        credential = presented(headers, header)
        found = None if credential is None else self._registry.key(credential)
        if found is None:
            raise _unknown(credential)
        key, row = found
        if row is not None:
            raise Forbidden("A tenant's key cannot operate the server; use an operator's key.")
        return key.id

    def admit_scraper(self, headers: RawHeaders, header: Headers) -> None:
        """For figures of the whole server: an operator's key, where keys are required."""
        if self.always_keyed or self._registry.keys_required():
            self.admit_operator(headers, header)
        else:
            self._protect(headers, header)

    def admit_anybody(self, headers: RawHeaders, header: Headers) -> None:
        """For what needs no key; an open server still refuses foreign pages."""
        if self.is_open():
            self._protect(headers, header)

    def is_open(self) -> bool:
        """Whether no key is needed; also where that cannot be asked, which /health must tell."""
        try:
            return not self.always_keyed and not self._registry.keys_required()
        except Unavailable:
            return True

    def _protect(self, headers: RawHeaders, header: Headers) -> None:
        protect(headers, header, local=self._local, pages=self._pages)

    async def _new(self, name: str) -> TenantRow:
        """A tenant of an open server; a sandbox is made when something is stored in it."""
        if name == DEFAULT_TENANT:
            return await self._registry.ensure_tenant(name, tiers.UNLIMITED)
        return TenantRow(UNMADE, name, tiers.UNLIMITED)

    def _give(self, key: KeyRow, row: TenantRow) -> tuple[KeyRow, keys.Grant, Call]:
        if len(self._given) >= MOST_REMEMBERED:
            self._given.clear()
        given = key, keys.grant(key.scopes, key.pattern), Call(row.id, key.id)
        self._given[key.id] = given
        return given

    def _tier(self, row: TenantRow) -> tuple[tiers.Tier, Limits]:
        try:
            return self.tiers[row.tier], self._limits[row.tier]
        except KeyError:
            raise Unavailable(
                "This tenant's tier is not among those the server started with; its operator "
                "has to restart it."
            ) from None


_UNKNOWN = (
    "This needs an API key that works: send it as Authorization: Bearer, as X-API-Key, or as the "
    "user name in the URL."
)
_TWO_KEYS = "Two different API keys were sent; send one."


def _unknown(credential: str | None) -> Unauthorized:
    return Unauthorized(_UNKNOWN) if credential is None else WrongKey(_UNKNOWN)


def presented(headers: RawHeaders, header: Headers) -> str | None:
    """The credential in the headers, None where there is none.

    Two that differ are refused: whichever was taken, somebody would have meant the other.
    """
    authorization = header.get(b"authorization")
    api_key = header.get(b"x-api-key")
    if len(header) != len(headers) and (
        _repeated(headers, header, b"authorization") or _repeated(headers, header, b"x-api-key")
    ):
        raise WrongKey(_TWO_KEYS)
    if authorization is None:
        return None if api_key is None else _text(api_key)
    scheme, _, value = authorization.partition(b" ")
    if scheme.lower() == b"bearer":
        credential = _text(value.strip())
    elif scheme.lower() == b"basic":
        credential = _basic(value.strip())
    else:
        raise WrongKey(_UNKNOWN)
    if api_key is not None and _text(api_key) != credential:
        raise WrongKey(_TWO_KEYS)
    return credential


def sandbox(credential: str) -> str:
    """The name of the tenant that a credential opens on an open server."""
    return f"{SANDBOX}{hashlib.sha256(credential.encode()).hexdigest()[:24]}"


def protect(
    headers: RawHeaders, header: Headers, *, local: bool, pages: Collection[bytes] = ()
) -> None:
    """Refuse what a web page of somebody else would send to an open server.

    Its own pages and those of the origins `pages` pass. With `local`, the Host header must name
    this machine: another name that resolves here is how a foreign page gets past the browser's own
    rules.
    """
    sent = header.get(b"host")
    if local and sent is None:  # HTTP/1.0 needs none; what is well-formed was looked at before
        raise Invalid("While this server needs no key it must be told its name: send Host.")
    host = b"" if sent is None else sent.lower()
    if local and _without_port(host) not in LOCAL_HOSTS:
        raise Misdirected(
            "This server answers to localhost, 127.0.0.1 and [::1] only, while it needs no key."
        )
    origin = header.get(b"origin", b"").lower()
    allowed = origin in pages
    if b"origin" in header and (
        _repeated(headers, header, b"origin") or not (allowed or origin == b"http://" + host)
    ):
        raise ForeignOrigin("This server does not answer web pages of other origins.")
    site = header.get(b"sec-fetch-site")
    if site is not None and (
        _repeated(headers, header, b"sec-fetch-site")
        or not (allowed or site.lower() in (b"same-origin", b"none"))
    ):
        raise ForeignOrigin("This server does not answer requests from other sites.")


def _limits(tier: tiers.Tier, config: Config) -> Limits:
    return Limits(
        daily_writes=_stricter(tier.writes_per_day, config.write_limit),
        namespace_bytes=config.size_limit,
        storage_bytes=tier.storage_bytes,
        vectors=tier.vectors,
        agents=tier.agents,
    )


def _stricter(one: int, other: int) -> int:
    return min(one, other) if one and other else one or other


def _basic(value: bytes) -> str:
    """The key in `KEY:` or `x:KEY`."""
    try:
        user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise WrongKey(_UNKNOWN) from None
    if not user.startswith(keys.PREFIX) and password:
        return password
    if password.startswith(keys.PREFIX) and password != user:
        raise WrongKey(_TWO_KEYS)
    return user


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise WrongKey(_UNKNOWN) from None


def _without_port(host: bytes) -> bytes:
    name, colon, port = host.rpartition(b":")
    return name if colon and (port.isdigit() or not port) else host


def _repeated(headers: RawHeaders, header: Headers, name: bytes) -> bool:
    return len(header) != len(headers) and sum(key == name for key, _ in headers) > 1
