"""The head of a request, read strictly.

What two readers could read in two ways is refused: proxies stand before this server, and a
request that ends elsewhere for them than for us is the way into another one's connection. An
offer to speak another protocol (`Upgrade`) is a field like any other and changes nothing.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple

from botwire_server.errors import Invalid, Refusal

LARGEST_HEAD = 65_536
MOST_FIELDS = 256
# `Head.length` of a body that comes in chunks.
CHUNKED = -1

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# A request line; the target holds what can be seen, and no fragment.
_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}) ([!-\"$-~]+) HTTP/1\.([01])")
_ABSOLUTE = re.compile(rb"https?://([^/?]*)(.*)", re.IGNORECASE)
_HOST = re.compile(rb"(?:([0-9A-Za-z._-]{1,255})|\[([0-9A-Fa-f:.]{2,45})\])(?::([0-9]{0,5}))?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_ALLOWED = b"\t\r\n" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
# What no head goes on from, however it does: controls, and line ends of other kinds.
_HOPELESS = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r[^\n]|\A[^\r!-~]")

# Names of fields as they were sent, each in lower case, and hosts that are well-formed: clients
# repeat themselves.
_names: dict[bytes, bytes] = {}
_hosts: set[bytes] = set()
_MOST_KNOWN = 1_000
_KEPT = frozenset({None, b"keep-alive", b"Keep-Alive"})
_FRAMING = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"expect"})


class Unimplemented(Invalid):
    """The request asks for what HTTP has and this server has not."""


class HeadTooLarge(Invalid):
    """The request line and headers are over their limit."""


class Rejected(Exception):
    """A request that cannot be taken, with what to answer: its connection ends with it."""

    def __init__(self, error: Refusal, status: int = 400) -> None:
        super().__init__(error.message)
        self.error = error
        self.status = status


class Head(NamedTuple):
    """What a head says.

    `path` is as it was sent, without the query; the names of `headers` are in lower case.
    `length` is that of the body in bytes, or `CHUNKED`; `keep_alive` whether the connection may
    outlive the answer; `expects` whether the body waits for 100 Continue.
    """

    method: str
    path: bytes
    query: bytes
    version: str
    headers: list[tuple[bytes, bytes]]
    length: int
    keep_alive: bool
    expects: bool


def too_large() -> Rejected:
    """The answer to a head that is over its limit."""
    return Rejected(HeadTooLarge("The request line and headers are too large."), 431)


def is_hopeless(beginning: bytearray, looked_at: int) -> bool:
    """Whether no valid head begins so; the first bytes may have been looked at before."""
    return _HOPELESS.search(beginning, looked_at) is not None


def target_of(head: bytes) -> bytes:
    """What a head asks for, as far as it says so: for the refusal of one that is not valid."""
    line = head.partition(b"\r\n")[0].split(b" ")
    return line[1] if len(line) > 1 else b""


def parse(head: bytes) -> Head:
    """The head in the bytes before the empty line. Raises `Rejected`."""
    line, *lines = head.split(b"\r\n")
    if len(lines) > MOST_FIELDS:
        raise too_large()
    if not head.count(b"\r") == head.count(b"\n") == len(lines) or head.translate(None, _ALLOWED):
        raise _invalid("a line holds a control character, or ends in something else than CR LF")
    found = _LINE.fullmatch(line)
    if found is None:
        raise _invalid("its first line is not METHOD, TARGET and HTTP/1.1, a space between them")
    headers: list[tuple[bytes, bytes]] = []
    framing: dict[bytes, bytes] = {}
    for line in lines:
        sent, colon, value = line.partition(b":")
        name = _names.get(sent) or _named(sent, colon)
        value = value.strip(b" \t")
        headers.append((name, value))
        if name in _FRAMING:
            framing[name] = _joined(name, framing.get(name), value)
    current = found[3] == b"1"
    target, _, query = found[2].partition(b"?")
    if not target.startswith(b"/"):
        target, query = _other_form(found[1], found[2], framing.get(b"host"))
    host = framing.get(b"host")
    if host is not None:
        if host not in _hosts:
            _check_host(host)
    elif current:
        raise Rejected(Invalid("The header Host is missing: HTTP/1.1 needs one."))
    expects = framing.get(b"expect")
    if expects is not None and expects.lower() != b"100-continue":
        raise Rejected(Invalid("The header Expect may be 100-continue only."), 417)
    return Head(
        found[1].decode(),
        target,
        query,
        "1.1" if current else "1.0",
        headers,
        _length(framing, current=current),
        keep_alive=current and not _closes(framing.get(b"connection")),
        expects=current and expects is not None,
    )


def _invalid(why: str) -> Rejected:
    return Rejected(Invalid(f"The request is no valid HTTP/1.1: {why}."))


def _named(sent: bytes, colon: bytes) -> bytes:
    """The name of a field, in lower case. A line that goes on from the last has none."""
    if not colon or _TOKEN.fullmatch(sent) is None:
        raise _invalid("a header is not NAME: VALUE, without a space before the colon")
    name = sent.lower()
    if len(_names) < _MOST_KNOWN and len(sent) <= 64:
        _names[sent] = name
    return name


def _joined(name: bytes, before: bytes | None, value: bytes) -> bytes:
    """The value of a field that decides where a request ends, or for whom it is."""
    if before is None:
        return value
    if name == b"connection":
        return before + b"," + value
    if name == b"transfer-encoding":
        raise _unknown_encoding()
    raise Rejected(Invalid(f"The header {name.decode().title()} is there twice; send it once."))


def _other_form(method: bytes, target: bytes, host: bytes | None) -> tuple[bytes, bytes]:
    """Path and query of a target that does not begin with a slash."""
    if method == b"CONNECT":
        raise Rejected(Unimplemented("This server is no proxy: it does not CONNECT."), 501)
    absolute = _ABSOLUTE.fullmatch(target)
    if absolute is None:
        raise _invalid("what it asks for must begin with /")
    if host is None or absolute[1].lower() != host.lower():
        raise Rejected(Invalid("The target names another server than the header Host."))
    path, _, query = absolute[2].partition(b"?")
    return path or b"/", query


def _check_host(host: bytes) -> None:
    found = _HOST.fullmatch(host)
    if found is not None and (not found[3] or int(found[3]) < 65_536):
        try:
            if found[2] is not None:
                IPv6Address(found[2].decode())
        except AddressValueError:
            pass
        else:
            if len(_hosts) < _MOST_KNOWN:
                _hosts.add(host)
            return
    raise Rejected(Invalid("The header Host is malformed: it must be NAME or NAME:PORT."))


def _length(framing: dict[bytes, bytes], *, current: bool) -> int:
    """How long the body is."""
    length = framing.get(b"content-length")
    encoding = framing.get(b"transfer-encoding")
    if encoding is not None:
        if encoding.lower() != b"chunked":
            raise _unknown_encoding()
        if length is not None or not current:
            raise Rejected(
                Invalid(
                    "Transfer-Encoding is for HTTP/1.1, and never with Content-Length; send one."
                )
            )
        return CHUNKED
    if length is None:
        return 0
    if _LENGTH.fullmatch(length) is None:
        raise Rejected(Invalid("The header Content-Length is no number of bytes."))
    return int(length)


def _unknown_encoding() -> Rejected:
    return Rejected(
        Unimplemented("The header Transfer-Encoding may be chunked only, and there once."), 501
    )


def _closes(connection: bytes | None) -> bool:
    if connection in _KEPT:
        return False
    assert connection is not None
    return any(option.strip(b" \t").lower() == b"close" for option in connection.split(b","))
