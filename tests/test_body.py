"""What a request body may be: its size, and the JSON in it."""

from __future__ import annotations

import json
import random
import time

import httpx
import orjson
import pytest
from serving import JSON, connected, exchange, received, request, status_of

from botwire_server.errors import Invalid
from botwire_server.limits import CONTAINERS, DEPTH
from botwire_server.web.body import parse_json

MIB = 1_048_576


@pytest.fixture
def put(http, ns):
    """Puts a body as it is."""
    return lambda body: http.put(f"/memory/{ns}/k", content=body, headers=JSON)


@pytest.fixture
def get(http, ns):
    """What is stored then."""
    return lambda: http.get(f"/memory/{ns}/k").json()["value"]


# Size.


def test_a_body_up_to_the_limit(put, get):
    frame = len('{"value":""}')
    assert put('{"value":"%s"}' % ("x" * (MIB - frame))).status_code == 200
    assert len(get()) == MIB - frame
    answer = put('{"value":"%s"}' % ("y" * (MIB - frame + 1)))
    assert answer.status_code == 413
    assert set(answer.json()) == {"detail"}
    assert answer.headers["connection"] == "close"
    assert get()[0] == "x"


def test_a_chunked_body_over_the_limit(put, get):
    def chunks(count: int):
        yield b'{"value":"'
        for _ in range(count):
            yield b"x" * 10_000
        yield b'"}'

    assert put(chunks(100)).status_code == 200
    assert len(get()) == 1_000_000
    assert put(chunks(110)).status_code == 413
    assert len(get()) == 1_000_000


def test_the_limit_is_an_option(make_server):
    server = make_server("--max-body-bytes", "2048")
    body = b'{"value":"%s"}' % (b"x" * 2_036)
    assert status_of(exchange(server.address, request("PUT", "/memory/ns/k", body))) == 200
    assert status_of(exchange(server.address, request("PUT", "/memory/ns/k", body + b" "))) == 413


def test_expect_100_continue_is_refused_before_the_body_is_sent(server, ns):
    head = request(
        "PUT",
        f"/memory/{ns}/k",
        Content_Type="application/json",
        Content_Length=str(50 * MIB),
        Expect="100-continue",
    )
    answer = exchange(server.address, head)
    assert status_of(answer) == 413
    assert b"100 Continue" not in answer


def test_expect_100_continue_is_answered_where_the_body_is_welcome(server, ns):
    body = b'{"value":"v"}'
    head = request(
        "PUT",
        f"/memory/{ns}/k",
        Content_Type="application/json",
        Content_Length=str(len(body)),
        Expect="100-continue",
    )
    with connected(server.address) as connection:
        connection.sendall(head)
        assert connection.recv(1_000).startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.sendall(body)
        assert status_of(received(connection)) == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_huge_body_does_not_fill_the_memory(make_server, chunked):
    server = make_server()
    httpx.put(f"{server.url}/memory/ns/k", json={"value": "v"})
    before = server.settled_rss()
    length = {"Transfer_Encoding": "chunked"} if chunked else {"Content_Length": str(50 * MIB)}
    piece = b"x" * 65_536
    most = 0
    with connected(server.address) as connection:
        connection.sendall(
            request("PUT", "/memory/ns/k", Content_Type="application/json", **length)
        )
        try:
            for _ in range(50 * MIB // len(piece)):
                connection.sendall(b"10000\r\n%s\r\n" % piece if chunked else piece)
                most = max(most, server.rss)
        except (ConnectionResetError, BrokenPipeError):
            pass  # told long ago: 413, and closed
        answer = received(connection)
    assert status_of(answer) in (413, 0)
    assert max(most, server.rss) - before < 20 * MIB
    assert httpx.get(f"{server.url}/memory/ns/k").json()["value"] == "v"


# JSON.


def with_value(text: str) -> str:
    return '{"value":' + text + "}"


def nested(levels: int, brackets: str) -> str:
    inner, close = {"[": ("[", "]"), "{": ('{"a":', "}")}[brackets]
    return inner * levels + "1" + close * levels


@pytest.mark.parametrize("brackets", ["[", "{"])
def test_depth(put, get, brackets):
    assert put(with_value(nested(64, brackets))).status_code == 200
    assert json.dumps(get()).count(brackets) == 64
    for levels in (65, 200, 254, 255, 1_000):
        answer = put(with_value(nested(levels, brackets)))
        assert answer.status_code == 400, levels
    assert json.dumps(get()).count(brackets) == 64


def test_many_brackets_side_by_side_are_not_deep(put, get):
    assert put('{"value":[%s[]]}' % ("[]," * 5_000)).status_code == 200
    assert len(get()) == 5_001
    assert put('{"value":"%s"}' % ("[" * 5_000)).status_code == 200


@pytest.mark.parametrize(
    "number",
    [
        2**63 - 1,
        2**63,
        2**64 - 1,
        -(2**63),
        1_000_000_000_000_000_000,
        9_999_999_999_999_999_999,
        0,
        -1,
    ],
)
def test_integers_of_64_bits_come_back_exactly(put, get, number):
    assert put(with_value(f'{{"n":[{number}]}}')).status_code == 200
    back = get()["n"][0]
    assert (type(back), back) == (int, number)


@pytest.mark.parametrize("number", [2**64, 2**64 + 1, 10**20, 10**300, -(2**63) - 1, -(10**19)])
def test_larger_integers_are_refused_rather_than_rounded(put, http, ns, number):
    for body in ('{"value":%d}', '{"value":"v","other":[%d]}', '{"value":[{"a":%d}]}'):
        answer = put(body % number)
        assert answer.status_code == 400
        assert "64 bits" in answer.json()["detail"]
    assert http.get(f"/memory/{ns}/k").status_code == 404


def test_long_digits_that_are_no_integer(put, get):
    digits = "1" * 50
    for text in (f'"{digits}"', f"0.{digits}", f"{digits[:25]}.5", "1e19", "-0.0"):
        assert put(with_value(text)).status_code == 200, text
        assert get() == json.loads(text)


@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e999",
        "-1e999",
        "01",
        "+1",
        ".5",
        "1.",
        "0x10",
        "'single'",
        '"\\ud800"',
        '"\\udc00\\ud800"',
        '"\t"',
        '"\\x41"',
        "undefined",
        "True",
        "[1,]",
        '{"a":1,}',
        "/* comment */ 1",
    ],
)
def test_what_is_no_json_is_refused(put, http, ns, value):
    assert put(with_value(value)).status_code == 400
    assert http.get(f"/memory/{ns}/k").status_code == 404


@pytest.mark.parametrize(
    "body",
    [b'{"value":"\xff"}', b'{"value":"\xed\xa0\x80"}', b'\xef\xbb\xbf{"value":"v"}', b"\x00",
     '{"value":"v"}'.encode("utf-16")],
)  # fmt: skip
def test_what_is_no_utf8_is_refused(put, body):
    assert put(body).status_code == 400


def test_of_a_key_given_twice_the_last_counts(put, get):
    assert put('{"value":"first","value":"last"}').status_code == 200
    assert get() == "last"


def test_escapes_come_back_as_their_characters(put, get):
    put(r'{"value":"\u00e9\ud83d\ude42\n\u0000\/"}')
    assert get() == "é🙂\n\x00/"


def test_megabytes_of_brackets_are_refused_quickly(make_server):
    server = make_server("--max-body-bytes", str(8 * MIB))
    for body in (b"[" * 6_000_000, b'{"value":' + b"[" * 6_000_000, b'{"a":' * 1_000_000):
        started = time.monotonic()
        answer = exchange(server.address, request("PUT", "/memory/ns/k", body))
        assert status_of(answer) == 400
        assert time.monotonic() - started < 10
    assert status_of(exchange(server.address, request("GET", "/health"))) == 200


def test_a_wide_and_heavy_body_is_taken(make_server):
    server = make_server("--max-body-bytes", str(8 * MIB))
    body = json.dumps({"value": [[n, {"n": str(n)}] for n in range(100_000)]}).encode()
    assert status_of(exchange(server.address, request("PUT", "/memory/ns/k", body))) == 200
    assert len(httpx.get(f"{server.url}/memory/ns/k", timeout=30).json()["value"]) == 100_000


# The depth is read from the brackets; what is decoded must say the same.

STRINGS = ["", ",", '"', "\\", '\\"', "[", "{", "[]", '}"{', '\\\\"[', 'a"b', '"][', '""']


def nest(chance: random.Random, depth: int):
    if depth <= 0:
        return chance.choice(STRINGS)
    inner = [nest(chance, depth - 1)]
    inner += [nest(chance, chance.randrange(min(depth, 3))) for _ in range(chance.randrange(3))]
    chance.shuffle(inner)
    if chance.random() < 0.5:
        return inner
    return {f"{chance.choice(STRINGS)}{number}": value for number, value in enumerate(inner)}


def depth_of(value) -> int:
    inner = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth_of, inner), default=0) if isinstance(value, dict | list) else 0


def test_strings_full_of_brackets_and_quotes_change_no_depth():
    chance = random.Random(5)
    for _ in range(1_000):
        value = nest(chance, chance.choice((1, 5, 62, 63, 64, 65, 66, 67)))
        encoded = orjson.dumps([value] * chance.choice((1, 70)))
        try:
            parse_json(encoded)
            taken = True
        except Invalid:
            taken = False
        assert taken == (1 + depth_of(value) <= DEPTH + 1), encoded


@pytest.mark.parametrize(
    "piece", [b"[[[[[[]]]]]],", b"[],", b"{},"], ids=lambda piece: piece.decode()
)
def test_more_lists_and_objects_than_anybody_sends_are_refused(http, ns, piece):
    body = b'{"value":[' + piece * (1_000_000 // len(piece)) + b"1]}"
    answer = http.put(f"/memory/{ns}/k", content=body, headers=JSON)
    assert answer.status_code == 400
    assert f"more than {CONTAINERS} lists and objects" in answer.json()["detail"]
    assert http.get(f"/memory/{ns}/k").status_code == 404


def test_brackets_in_a_text_are_characters(http, ns):
    for text in ("[" * 300_000, '{\\"[' * 60_000, '["' * 150_000):
        answer = http.put(f"/memory/{ns}/k", json={"value": text})
        assert answer.status_code == 200, answer.text
        assert http.get(f"/memory/{ns}/k").json()["value"] == text


def test_as_many_points_as_a_body_holds_are_taken(http, ns):
    points = [[1, 2]] * 150_000
    body = orjson.dumps({"value": points})
    assert http.put(f"/memory/{ns}/k", content=body, headers=JSON).status_code == 200
