"""What strangers put into a field: texts and JSON of a given size, one kind of trouble each.

A text shape makes the text in about so many characters; a JSON shape makes JSON in about so many
bytes, an object where an object is wanted. Nothing here is random: a figure can be measured again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count, islice

Shape = Callable[[int], str]


def _repeated(piece: str, *, before: str = "", behind: str = "") -> Shape:
    def text(size: int) -> str:
        room = max(0, size - len(before) - len(behind))
        return (before + (piece * (room // len(piece) + 1))[:room] + behind)[:size]

    return text


def _numbered(form: str) -> Shape:
    """The pieces of a text that repeats nothing."""

    def text(size: int) -> str:
        least = len(form.format(0))
        return "".join(islice((form.format(number) for number in count()), size // least + 1))[
            :size
        ]

    return text


# Name, and what is repeated; some between two letters, where a look ahead finds no end.
_PIECES = {
    "one letter": "a",
    "two letters": "ab",
    "letters and spaces": "a ",
    "capitals and spaces": "A ",
    "words with capitals": "Aa Bb ",
    "apostrophes": "a'b",
    "question marks": "?",
    "dots": ".",
    "dots apart": ". ",
    "sentences": "a. ",
    "commas": ",",
    "words and commas": "ab, cd ",
    "hyphens": "A-",
    "quotes": '"',
    "quoted": '"a" ',
    "backslashes": "\\",
    "brackets": "[",
    "closing and opening": "]{",
    "braces": "{",
    "digits": "1",
    "numbers": "5 mW ",
    "signs of a search": '*"(NEAR ^:-',
    "percent": "%",
    "stars": "*",
    "slashes": "/",
    "line breaks": "\n",
    "empty lines": "\n \n",
    "wide spaces": "\u3000",
    "no-break spaces": "\u00a0",
    "one mark": "\u0301",
    "two marks": "\u0301\u0323",
    "marks on letters": "a\u0301\u0323",
    "marks that hide in a letter": "\u0f73",
    "precomposed": "\u1e69",
    "joiners": "\u200d",
    "directions": "\u202e\u2066",
    "emoji": "👩\u200d👩\u200d👧",
    "flags": "🇩",
    "Hangul jamo": "\u1100\u1161\u11a8",
    "Chinese": "中文",
    "Thai": "น้ำ",
    "Arabic": "\ufdfa",
    "sigma": "Σ'",
    "capital with a dot": "İ",
    "beyond the first plane": "𝕬",
    "old letters": "𞤀a",
}
_PIECES_WITHIN = ("question marks", "dots", "line breaks", "two marks", "joiners", "commas")

TEXTS: dict[str, Shape] = {
    **{name: _repeated(piece) for name, piece in _PIECES.items()},
    **{
        f"{name} in a word": _repeated(_PIECES[name], before="a", behind="x")
        for name in _PIECES_WITHIN
    },
    "many words": _numbered("w{} "),
    "many names": _numbered("Ab{}Cd "),
}


def _object(inside: Callable[[int], str]) -> Shape:
    def made(size: int) -> str:
        return '{"k":' + inside(max(2, size - 6)) + "}"

    return made


def _list(piece: str) -> Callable[[int], str]:
    def made(size: int) -> str:
        times = max(1, (size - 2) // (len(piece) + 1))
        return "[" + ",".join([piece] * times) + "]"

    return made


def _different(form: str) -> Callable[[int], str]:
    def made(size: int) -> str:
        return "[" + ",".join(_pieces(form, size - 2)) + "]"

    return made


def _pieces(form: str, size: int) -> Iterator[str]:
    left = size
    for number in count():
        piece = form.replace("#", str(number))
        left -= len(piece.encode()) + 1
        if left < 0:
            return
        yield piece


def _keys(form: str) -> Shape:
    def made(size: int) -> str:
        return "{" + ",".join(_pieces(form, size - 2)) + "}"

    return made


def _text(shape: Shape) -> Callable[[int], str]:
    def made(size: int) -> str:
        return json.dumps(shape(max(0, size - 2)), ensure_ascii=False)

    return made


JSONS: dict[str, Shape] = {
    "one number many times": _object(_list("1")),
    "many numbers": _object(_different("#")),
    "fractions": _object(_list("0.5")),
    "many strings": _object(_different('"s#"')),
    "many bytes in one string": _object(_text(TEXTS["one letter"])),
    "quotes in one string": _object(_text(TEXTS["quotes"])),
    "marks in one string": _object(_text(TEXTS["two marks"])),
    "empty lists": _object(_list("[]")),
    "lists of one": _object(_list("[1]")),
    "nested lists": _object(_list("[" * 50 + "]" * 50)),
    "many objects": _object(_different('{"a":#}')),
    "nested objects": _object(_list('{"a":' * 50 + "1" + "}" * 50)),
    "truths": _object(_list("true")),
    "nulls": _object(_list("null")),
    "many keys": _keys('"k#":#'),
    "many keys with objects": _keys('"k#":{"x":#}'),
    "many keys with lists": _keys('"k#":[#]'),
    "keys that need quoting": _keys('"k\\"#":#'),
    "one big integer among many": _object(
        lambda size: "[1234567890123456789," + "1," * ((size - 24) // 2) + "1]"
    ),
    "a long number": _object(lambda size: "1" * size),
    "a long fraction": _object(lambda size: "0." + "1" * (size - 2)),
}

LISTS: dict[str, Shape] = {
    "many numbers": lambda size: _list("0.5")(size),
    "many integers": lambda size: _list("1")(size),
    "a long fraction": lambda size: "[0." + "1" * size + "]",
    "lists": lambda size: _list("[]")(size),
    "strings": lambda size: _list('"a"')(size),
}
