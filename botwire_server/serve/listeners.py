"""Sockets to be reached at: bound here, in each family there is, or passed by who started us.

Nothing answers before `Listener.serve`: what is bound only keeps its address from others, and a
Unix socket has its mode and group before anybody can connect.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import closing
from ipaddress import ip_address
from typing import NoReturn

from botwire_server.addresses import EVERY, EVERY_IPV4, LOCALHOST, UNIX, Address, url
from botwire_server.errors import Unusable
from botwire_server.lazy import grp

BACKLOG = 2_048
FIRST_PASSED = 3
# Of port 0 in two families: how often the port that is free in one may be taken in the other.
TRIES = 20
# How long a process that holds a Unix socket may take to show that it does.
PROBE_SECONDS = 1.0

# What a machine says that lacks a family, or an address of it.
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)

Connections = Callable[[], asyncio.BaseProtocol]


class Listener:
    """Bound sockets of one address, or those that were passed (`address` is None)."""

    def __init__(self, sockets: Sequence[socket.socket], address: Address | None = None) -> None:
        self._sockets = sockets
        self._address = address
        self._file = None if address is None or not address.path else os.stat(address.path)

    @property
    def local(self) -> bool:
        """Whether only this machine gets there."""
        if self._address is not None:
            return self._address.local
        return all(
            made.family == socket.AF_UNIX or ip_address(_host(made)).is_loopback
            for made in self._sockets
        )

    @property
    def urls(self) -> list[str]:
        """Every place it is reached at: http://HOST:PORT or unix:PATH."""
        return [_where(made) for made in self._sockets]

    @property
    def client_url(self) -> str | None:
        """What a client on this machine is pointed at; None where that takes a Unix socket."""
        for made in self._sockets:
            if made.family != socket.AF_UNIX:
                host = _host(made) if self._address is None else self._address.host
                every = host in (EVERY, EVERY_IPV4)
                return url(LOCALHOST if every else host, made.getsockname()[1])
        return None

    async def serve(self, connections: Connections) -> list[asyncio.Server]:
        """Let `connections` have who connects, from now on. Raises `Unusable`."""
        loop = asyncio.get_running_loop()
        servers: list[asyncio.Server] = []
        for made in self._sockets:
            listen = (
                loop.create_unix_server if made.family == socket.AF_UNIX else loop.create_server
            )
            try:
                servers.append(await listen(connections, sock=made, backlog=BACKLOG))
            except OSError as error:  # somebody else was faster
                for server in servers:
                    server.close()
                _refuse(self._address, _where(made), error)
        return servers

    def forget(self) -> None:
        """Remove the file of a Unix socket, unless another's has taken its place; repeatable."""
        if self._file is not None and self._address is not None:
            with contextlib.suppress(OSError):
                if os.path.samestat(os.lstat(self._address.path), self._file):
                    os.unlink(self._address.path)
            self._file = None


def bind(address: Address, *, mode: int, group: int | None) -> Listener:
    """Take an address, in both families where it has both and the machine too.

    `mode` and `group` are a Unix socket's. Raises `Unusable`.
    """
    if address.path:
        return Listener([_bind_unix(address, mode=mode, group=group)], address)
    places = _places(address)
    for _ in range(TRIES):
        made = _bind_all(address, places)
        if made is not None:
            return Listener(made, address)
    raise Unusable(f"{address.setting} {address}: no port is free in every family; name one.")


def passed(environment: MutableMapping[str, str]) -> Listener | None:
    """The sockets that systemd passes, None where it passes none; told of only once.

    Raises `Unusable`.
    """
    meant_for = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if meant_for != str(os.getpid()) or not count.isdecimal() or not int(count):
        return None
    made = [_adopt(descriptor) for descriptor in range(FIRST_PASSED, FIRST_PASSED + int(count))]
    return Listener(made)


def read_mode(text: str) -> int:
    """The permissions in --socket-mode, such as 660. Raises `Unusable`."""
    if len(text) in (3, 4) and set(text) <= set("01234567") and int(text, 8) <= 0o777:
        return int(text, 8)
    raise Unusable("--socket-mode must be three octal digits, such as 660.")


def read_group(name: str | None) -> int | None:
    """The id of the group in --socket-group, by name or number. Raises `Unusable`."""
    if name is None or name.isdecimal():
        return None if name is None else int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise Unusable(f"--socket-group: there is no group {name} on this machine.") from None


def _places(address: Address) -> list[tuple[socket.AddressFamily, str]]:
    """The family and the numeric address of each place that a host stands for."""
    found: dict[tuple[socket.AddressFamily, str], None] = {}
    for host in address.hosts:
        try:
            for family, _, _, _, place in socket.getaddrinfo(
                host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            ):
                if family in (socket.AF_INET, socket.AF_INET6):
                    scope = f"%{place[3]}" if len(place) == 4 and place[3] else ""
                    found[family, f"{str(place[0]).partition('%')[0]}{scope}"] = None
        except (socket.gaierror, UnicodeError):
            raise Unusable(
                f"{address.setting} {host}: this machine knows no such name; name an address, "
                "such as 127.0.0.1."
            ) from None
    return list(found)


def _bind_all(
    address: Address, places: Sequence[tuple[socket.AddressFamily, str]]
) -> list[socket.socket] | None:
    """Sockets of one port at every place; None where a port that was free in one is not in all."""
    made: list[socket.socket] = []
    absent: OSError | None = None
    for family, host in places:
        port = made[0].getsockname()[1] if made else address.port
        try:
            made.append(_bind(family, host, port))
        except OSError as error:
            if error.errno in _ABSENT:
                absent = error
                continue
            for one in made:
                one.close()
            if made and not address.port and error.errno == errno.EADDRINUSE:
                return None
            _refuse(address, f"{host} port {port}", error)
    if absent is not None and not made:
        _refuse(address, str(address), absent)
    return made


def _bind(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    # The protocol is named: without it the answers of a connection wait for each other.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        name, _, scope = host.partition("%")
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.bind((name, port, 0, int(scope or 0)))
        else:
            made.bind((name, port))
    except OSError:
        made.close()
        raise
    return made


def _bind_unix(address: Address, *, mode: int, group: int | None) -> socket.socket:
    path = address.path
    _make_way(address)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(path)
    except OSError as error:
        made.close()
        if error.errno in (None, errno.ENAMETOOLONG):
            raise Unusable(
                f"{address.setting} {address}: the path of a socket has about 100 bytes at most, "
                f"and this one {len(os.fsencode(path))}: name a shorter one."
            ) from None
        _refuse(address, path, error)
    try:
        if group is not None:
            os.chown(path, -1, group)
        os.chmod(path, mode)
    except OSError:
        made.close()
        os.unlink(path)
        raise Unusable(
            f"{address.setting} {address}: this user may not give it the group or the mode of "
            "--socket-group and --socket-mode: make it a member of the group."
        ) from None
    return made


def _make_way(address: Address) -> None:
    """Remove the socket that a server left which was killed; refuse whatever else is there."""
    path = address.path
    try:
        found = os.lstat(path)
    except OSError:
        return  # then binding succeeds or says why not
    if not stat.S_ISSOCK(found.st_mode):
        raise Unusable(
            f"{address.setting} {address}: what is there is no socket, and stays. "
            "Name another path, or remove it."
        )
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            with _refused(address, path):
                os.unlink(path)
            return
        except OSError:  # somebody is there who does not answer us
            pass
    _refuse(address, path, OSError(errno.EADDRINUSE, ""))


@contextlib.contextmanager
def _refused(address: Address, where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        _refuse(address, where, error)


def _adopt(descriptor: int) -> socket.socket:
    try:
        made = socket.socket(fileno=descriptor)
        listens = made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        raise Unusable(f"Descriptor {descriptor}, which was passed, is no socket.") from None
    families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
    if made.family not in families or made.type != socket.SOCK_STREAM or not listens:
        raise Unusable(
            f"The socket that was passed as descriptor {descriptor} does not listen for streams: "
            "use ListenStream= and Accept=no."
        )
    made.setblocking(False)
    os.set_inheritable(descriptor, False)
    return made


def _host(made: socket.socket) -> str:
    return str(made.getsockname()[0]).partition("%")[0]


def _where(made: socket.socket) -> str:
    if made.family != socket.AF_UNIX:
        return url(*made.getsockname()[:2])
    name = made.getsockname()
    return (
        f"{UNIX}{name}" if isinstance(name, str) else f"{UNIX}@{name[1:].decode(errors='replace')}"
    )


def _refuse(address: Address | None, where: str, error: OSError) -> NoReturn:
    another = "another --port"
    purpose = ""
    if address is not None and (address.path or address.setting != "--host"):
        another = "another path" if address.path else "another port"
        purpose = f" for {address.setting}"
    match error.errno:
        case errno.EADDRINUSE:
            why = f"another process listens there; end that one, or name {another}."
        case errno.EADDRNOTAVAIL if address is not None:
            why = f"this machine has no such address; name another {address.setting}."
        case errno.EAFNOSUPPORT:
            why = "this machine does not have addresses of this kind; name another."
        case errno.EACCES | errno.EPERM if address is not None and not address.path:
            why = f"ports under 1024 are not for every user; name {another}."
        case errno.EACCES | errno.EPERM:
            why = f"this user may not make a socket there; give it the right to, or name {another}."
        case errno.ENOENT | errno.ENOTDIR:
            why = f"there is no such directory; make it, or name {another}."
        case code:
            why = f"{os.strerror(code or 0)}; name {another}."
    raise Unusable(f"Cannot listen on {where}{purpose}: {why}") from None
