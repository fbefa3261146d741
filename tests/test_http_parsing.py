"""What a request is: every way to read one in two ways is refused, however its bytes arrive.

The parts are driven directly where a test tries thousands of splits, and over a socket where it
is about what a connection does.
"""

from __future__ import annotations

import random

import pytest
from serving import connected, exchange, received, request, status_of

from botwire_server.web.http.framing import Chunked, Sized
from botwire_server.web.http.head import Head, Rejected, parse

HOST = b"Host: localhost\r\n"
JSON = b"Content-Type: application/json\r\n"
BODY = b'{"value":"GET /health HTTP/1.1"}'


def head(first: bytes, *fields: bytes) -> bytes:
    return b"\r\n".join([first, *fields])


def refused(sent: bytes) -> int:
    """The status a head is refused with."""
    with pytest.raises(Rejected) as raised:
        parse(sent)
    return raised.value.status


def test_an_ordinary_head():
    found = parse(
        head(
            b"PUT /memory/ns/k?x=1&y HTTP/1.1",
            b"Host: localhost:8000",
            b"X-API-Key: \t secret ",
            b"content-LENGTH:5",
            b"Empty:",
        )
    )
    assert found == Head(
        method="PUT",
        path=b"/memory/ns/k",
        query=b"x=1&y",
        version="1.1",
        headers=[
            (b"host", b"localhost:8000"),
            (b"x-api-key", b"secret"),
            (b"content-length", b"5"),
            (b"empty", b""),
        ],
        length=5,
        keep_alive=True,
        expects=False,
    )


LINES = [
    b"",
    b"GET",
    b"GET /",
    b"GET / HTTP/1.2",
    b"GET / HTTP/2.0",
    b"GET / HTTP/0.9",
    b"GET / HTTP/1.10",
    b"GET / HTTP/01.1",
    b"GET / http/1.1",
    b"GET / RTSP/1.0",
    b"GET / ICE/1.0",
    b"PRI * HTTP/2.0",
    b"GET  / HTTP/1.1",
    b"GET /  HTTP/1.1",
    b"GET\t/\tHTTP/1.1",
    b" GET / HTTP/1.1",
    b"GET / HTTP/1.1 ",
    b"GET /a b HTTP/1.1",
    b"GET /a\x00b HTTP/1.1",
    b"GET /a\xffb HTTP/1.1",
    b"GET /a#b HTTP/1.1",
    b"GET a HTTP/1.1",
    b"GET * HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"GET localhost:80 HTTP/1.1",
    b"GET //localhost HTTP/1.1\rX: y",
    b"G(T / HTTP/1.1",
    b"GET ftp://localhost/ HTTP/1.1",
    b"GET http:/localhost/ HTTP/1.1",
    b"GET http://evil.example/ HTTP/1.1",
    b"GET http://user@localhost/ HTTP/1.1",
    b"GET http://localhost:1/ HTTP/1.1",
]


@pytest.mark.parametrize("line", LINES)
def test_a_first_line_that_could_be_read_in_two_ways(line):
    assert refused(head(line, b"Host: localhost")) == 400


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"http://localhost/a?b", b"/a", b"b"),
        (b"HTTP://LocalHost/a", b"/a", b""),
        (b"https://localhost", b"/", b""),
        (b"http://localhost?b?c", b"/", b"b?c"),
        (b"//a//b?", b"//a//b", b""),
    ],
)
def test_targets(target, path, query):
    found = parse(head(b"GET " + target + b" HTTP/1.1", b"Host: localhost"))
    assert (found.path, found.query) == (path, query)


def test_connect_is_not_done():
    assert refused(head(b"CONNECT localhost:80 HTTP/1.1", b"Host: localhost:80")) == 501


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        # How long it is.
        ((b"Content-Length: 5", b"Content-Length: 5"), 400),
        ((b"Content-Length: 5", b"content-length: 6"), 400),
        ((b"Content-Length: 5, 5",), 400),
        ((b"Content-Length: +5",), 400),
        ((b"Content-Length: -5",), 400),
        ((b"Content-Length: 0x5",), 400),
        ((b"Content-Length: 5 5",), 400),
        ((b"Content-Length: 5.0",), 400),
        ((b"Content-Length: 1_0",), 400),
        ((b"Content-Length: \xb2",), 400),
        ((b"Content-Length:",), 400),
        ((b"Content-Length: 9999999999999999999999",), 400),
        ((b"Content-Length : 5",), 400),
        ((b"Content-Length\t: 5",), 400),
        ((b" Content-Length: 5",), 400),
        ((b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400),
        ((b"Transfer-Encoding: chunked", b"Content-Length: 0"), 400),
        # How it is written down.
        ((b"Transfer-Encoding: x, chunked",), 501),
        ((b"Transfer-Encoding: chunked, x",), 501),
        ((b"Transfer-Encoding: chunked, chunked",), 501),
        ((b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 501),
        ((b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"), 501),
        ((b"Transfer-Encoding: identity",), 501),
        ((b"Transfer-Encoding: gzip",), 501),
        ((b"Transfer-Encoding: chunkedx",), 501),
        ((b"Transfer-Encoding: \x0bchunked",), 400),
        ((b"Transfer-Encoding: chunked;q=1",), 501),
        ((b'Transfer-Encoding: "chunked"',), 501),
        ((b"Transfer-Encoding:",), 501),
        ((b"Transfer-Encoding : chunked",), 400),
        ((b"Transfer-Encoding\x00: chunked",), 400),
        # Lines.
        ((b"X: a", b" folded"), 400),
        ((b"X: a", b"\tfolded"), 400),
        ((b"X: a\nTransfer-Encoding: chunked",), 400),
        ((b"X: a\rTransfer-Encoding: chunked",), 400),
        ((b"X: a\r\r",), 400),
        ((b"X: a\x00b",), 400),
        ((b"X: a\x7fb",), 400),
        ((b"X: a\x0bb",), 400),
        ((b"no colon",), 400),
        ((b": no name",), 400),
        ((b"X(: a",), 400),
        ((b"X\xc3\xa9: a",), 400),
        ((b"",), 400),
        # For whom.
        ((b"Host: localhost",), 400),
        ((b"Expect: 200-ok",), 417),
        ((b"Expect: x 100-continue",), 417),
        ((b"Expect: 100-continue", b"Expect: 100-continue"), 400),
    ],
)
def test_fields_that_could_be_read_in_two_ways(fields, status):
    assert refused(head(b"PUT /memory/ns/k HTTP/1.1", b"Host: localhost", *fields)) == status


def test_http_1_0_has_no_chunks():
    assert refused(head(b"PUT / HTTP/1.0", b"Transfer-Encoding: chunked")) == 400
    assert parse(b"GET / HTTP/1.0").keep_alive is False


@pytest.mark.parametrize(
    ("connection", "kept"),
    [
        ((b"Connection: close",), False),
        ((b"Connection: Close",), False),
        ((b"Connection: keep-alive, close",), False),
        ((b"Connection: upgrade", b"Connection: close"), False),
        ((b"Connection: closed",), True),
        ((b"Connection: keep-alive, Upgrade, HTTP2-Settings", b"Upgrade: h2c"), True),
    ],
)
def test_whether_the_connection_is_kept(connection, kept):
    assert parse(head(b"GET / HTTP/1.1", b"Host: h", *connection)).keep_alive is kept


def test_an_offer_to_upgrade_changes_nothing():
    plain = parse(head(b"PUT / HTTP/1.1", b"Host: h", b"Content-Length: 7"))
    offers = parse(
        head(
            b"PUT / HTTP/1.1",
            b"Host: h",
            b"Content-Length: 7",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
        )
    )
    assert offers._replace(headers=plain.headers) == plain


def test_many_fields_are_too_many():
    assert refused(head(b"GET / HTTP/1.1", b"Host: h", *[b"a: b"] * 300)) == 431


@pytest.mark.parametrize("tail", [b"\x00", b"a\x00", b"\n"])
def test_no_head_takes_long(tail):
    """Runs of spaces are where a pattern would try every way to divide them."""
    assert refused(head(b"GET / HTTP/1.1", b"Host: h", b"X:" + b" " * 60_000 + tail)) == 400
    assert refused(head(b"GET " + b"/" * 60_000 + b"\x7f HTTP/1.1", b"Host: h")) == 400


# Bodies, split in every way.


def fed(body: Sized | Chunked, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """What was of the body, and what was left over behind it."""
    whole = b""
    for number, piece in enumerate(pieces):
        at = 0
        while at < len(piece):
            part, at = body.feed(piece, at)
            whole += part
            if body.ended:
                return whole, piece[at:] + b"".join(pieces[number + 1 :])
    assert not body.ended
    return whole, b""


CHUNKS = [
    b"5\r\nhello\r\n0\r\n\r\n",
    b"005;a=b;c\r\nhello\r\n000\r\n\r\n",
    b'2;x="y z"\r\nhe\r\n3\r\nllo\r\n0;last\r\nX-API-Key: secret\r\nContent-Length: 7\r\n\r\n',
    b"A\r\nhello\r\n\r\nx\r\n0\r\n: \r\n\r\n".replace(b": \r\n", b"a: \r\n"),
]
WHOLE = [b"hello", b"hello", b"hello", b"hello\r\n\r\nx"]
NEXT = b"GET /next HTTP/1.1\r\n"


@pytest.mark.parametrize(("sent", "whole"), [*zip(CHUNKS, WHOLE, strict=True)])
def test_chunks_split_at_every_boundary(sent, whole):
    text = sent + NEXT
    for first in range(len(text)):
        for second in range(first, len(text), 3):
            pieces = [text[:first], text[first:second], text[second:]]
            assert fed(Chunked(), pieces) == (whole, NEXT), pieces
    assert fed(Chunked(), [text[n : n + 1] for n in range(len(text))]) == (whole, NEXT)


def test_random_chunks_in_random_pieces():
    chance = random.Random(11)
    for _ in range(300):
        parts = [bytes(chance.choices(b"\r\n0a;: ", k=chance.randrange(1, 40))) for _ in range(9)]
        sent = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
        text, pieces = sent + NEXT, []
        while text:
            size = chance.randrange(1, 30)
            pieces.append(text[:size])
            text = text[size:]
        assert fed(Chunked(), pieces) == (b"".join(parts), NEXT)


def test_a_sized_body_split_at_every_boundary():
    text = b"hello" + NEXT
    for at in range(len(text) + 1):
        assert fed(Sized(5), [text[:at], text[at:]]) == (b"hello", NEXT)


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n",
        b"g\r\n",
        b"-1\r\n",
        b"+1\r\n",
        b"0x1\r\n",
        b" 1\r\n",
        b"1 \r\n",
        b"1 ;a\r\n",
        b"1\n",
        b"1;a\nb\r\n",
        b"1;a\rb\r\n",
        b"1;a\x00\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\n0\r\n",
        b"1\r\na\r0",
        b"1\r\na0\r\n\r\n",
        b"2\r\na\r\n0\r\n\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"0\r\n folded: a\r\n\r\n",
        b"0\r\na b: c\r\n\r\n",
        b"0\r\na: b\nc: d\r\n\r\n",
        b"0\r\na: \x00\r\n\r\n",
        b"10000000000000000\r\n",
        b"0" * 16 + b"\r\n",
        b"1;" + b"x" * 5_000,
        b"0" * 5_000,
        b"0\r\nx: " + b"y" * 5_000,
        b"0\r\n" + b"x: y\r\n" * 20_000,
        b"1;x=" + b"y" * 4_000 + b"\r\na\r\n" + b"1;xxxxxxxxxxxxxxxxx\r\na\r\n" * 5_000,
        b"1\r\nx\r\n" * 40_000,
    ],
)
@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_chunks_that_could_be_read_in_two_ways_or_go_on_for_good(sent, size):
    with pytest.raises(Rejected):
        fed(Chunked(), [sent[n : n + size] for n in range(0, len(sent), size)])


def test_small_chunks_are_taken():
    assert fed(Chunked(), [b"5\r\nhello\r\n" * 50_000])[0] == b"hello" * 50_000
    assert fed(Chunked(), [b"1\r\nx\r\n" * 10_000])[0] == b"x" * 10_000


# On a connection.

OFFERS = [
    b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    b"Connection: keep-alive, Upgrade\r\nUpgrade: anything/9\r\n",
    b"connection: UPGRADE\r\nupgrade: h2c, websocket\r\n",
    b"Upgrade: h2c\r\n",
    b"Connection: Upgrade\r\n",
    b"Upgrade: x\r\nConnection: keep-alive\r\nConnection: upgrade\r\n",
    b"Connection: Upgrade\r\nUpgrade: h2c\r\nExpect: 100-continue\r\n",
]


def stored(offer: bytes, path: str, *, chunked: bool) -> bytes:
    """A PUT with an offer to upgrade, whose body is a request to look at."""
    framing = (
        b"Transfer-Encoding: chunked\r\n" if chunked else b"Content-Length: %d\r\n" % len(BODY)
    )
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY) if chunked else BODY
    return b"PUT %b HTTP/1.1\r\n%b%b%b%b\r\n%b" % (path.encode(), HOST, JSON, offer, framing, body)


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
@pytest.mark.parametrize("offer", OFFERS)
def test_an_offer_to_upgrade_loses_no_body_wherever_it_is_split(server, http, ns, offer, chunked):
    path = f"/memory/{ns}/k"
    sent = stored(offer, path, chunked=chunked)
    last = request("GET", path)
    end = sent.index(b"\r\n\r\n") + 4
    splits = [*range(end - 5, len(sent), 3), 10, end // 2]
    for at in splits:
        answer = exchange(server.address, sent[:at], sent[at:] + last, pause=0.001)
        finals = answer.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
        assert finals.count(b"HTTP/1.1 200") == finals.count(b"HTTP/1.1 ") == 2, (at, answer)
        assert answer.endswith(b"}") and b'"value":"GET /health HTTP/1.1"' in answer


def test_a_preface_of_http_2_is_refused(server):
    answer = exchange(server.address, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00")
    assert answer.startswith(b"HTTP/1.1 400") and answer.count(b"HTTP/1.1 ") == 1


def test_a_key_in_a_trailer_is_none(make_server):
    keyed = make_server("--host", "2130706433")
    key = (keyed.data / "first-key").read_text().strip()
    body = b"%x\r\n%b\r\n0\r\nX-API-Key: %b\r\n\r\n" % (len(BODY), BODY, key.encode())
    sent = b"PUT /memory/ns/k HTTP/1.1\r\n" + HOST + JSON + b"Transfer-Encoding: chunked\r\n"
    assert status_of(exchange(keyed.address, sent + b"Connection: close\r\n\r\n" + body)) == 401
    good = sent + b"X-API-Key: " + key.encode() + b"\r\nConnection: close\r\n\r\n" + body
    assert status_of(exchange(keyed.address, good)) == 200


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5\r\nContent-Length: 50\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: x, chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Content-Length: +5\r\n",
        b"X: a\r\n Content-Length: 5\r\n",
        b"Host: localhost\r\n",
    ],
)
def test_what_is_refused_ends_the_connection(server, ns, fields):
    sent = b"PUT /memory/ns/k HTTP/1.1\r\n" + HOST + JSON + fields + b"\r\n"
    behind = b"0\r\n\r\n" + request("PUT", f"/memory/{ns}/smuggled", BODY, close=False)
    answer = exchange(server.address, sent + behind)
    assert answer.count(b"HTTP/1.1 ") == 1 and status_of(answer) in (400, 501)
    assert b"connection: close" in answer
    assert status_of(exchange(server.address, request("GET", f"/memory/{ns}/smuggled"))) == 404


def test_nothing_behind_a_request_that_closes_is_looked_at(server, ns):
    closing = request("PUT", f"/memory/{ns}/a", BODY)
    answer = exchange(server.address, closing + request("PUT", f"/memory/{ns}/b", BODY))
    assert answer.count(b"HTTP/1.1 ") == 1
    assert status_of(exchange(server.address, request("GET", f"/memory/{ns}/b"))) == 404


@pytest.mark.parametrize("split", range(0, 46, 5))
def test_an_empty_line_between_requests(server, split):
    both = request("GET", "/health", close=False) + b"\r\n" + request("GET", "/health")
    answer = exchange(server.address, both[:split], both[split:], pause=0.01)
    assert answer.count(b"HTTP/1.1 200") == 2


def test_an_empty_line_that_stays_alone_is_no_request(server):
    with connected(server.address) as connection:
        connection.sendall(b"\r\n")
        connection.settimeout(0.3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(10)
        connection.sendall(request("GET", "/health"))
        assert status_of(received(connection)) == 200
