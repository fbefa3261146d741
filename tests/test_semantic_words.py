"""Keyword queries and chunks: whatever a user writes."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
from semantic_store import Store

from botwire_server.store import chunks, keywords
from botwire_server.store.filters import Filter
from botwire_server.store.terms import terms


def test_question_words_and_stop_words_are_not_looked_for() -> None:
    assert terms("What did Caroline research, and when?") == ["caroline", "research"]
    assert terms("Where does Jonas's sister live?") == ["jonas", "sister", "live"]
    assert terms("Tell me about the O’Brien case") == ["o'brien", "case"]
    assert terms("What happened in May to Will in the US?") == ["happened", "may", "will", "us"]
    assert terms("Does Ann work in IT?") == ["ann", "work", "it"]
    assert terms("May I ask what it will be?") == ["ask"]


def test_a_query_of_stop_words_alone_is_looked_for_as_it_is() -> None:
    assert terms("The Who") == ["who"]
    assert terms("to be or not to be") == ["to", "be", "or", "not"]
    assert terms("?!") == []


def test_words_are_counted_once_and_not_without_end() -> None:
    assert terms("cat Cat CAT") == ["cat"]
    assert len(terms(" ".join(f"word{number}" for number in range(5_000)))) == 48


SYNTAX = ['"', "'", "*", "^", "(", ")", ":", "{", "}", "+", "-", ",", "NEAR", "AND", "OR", "NOT"]
ODD = [
    *SYNTAX,
    "content:",
    "rowid",
    "NEAR(a b, 2)",
    "\x00",
    "\ud800",
    "é",
    "日本語",
    "a'b",
    "x_y",
    "😀",
]


def test_no_text_can_be_read_as_syntax(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put("near and or not", "content rowid rank", "日本語 text", "x_y a'b")
    chance = random.Random(7)
    for _ in range(2_000):
        text = "".join(
            chance.choice([*ODD, " ", "near", "cat"]) for _ in range(chance.randint(1, 12))
        )
        found = terms(text)
        keywords.evidence(store.connection, found, Filter())
        # The other way in: what many memories hold is asked in one expression.
        if found:
            query = keywords._query(found, [keywords.RANKED] * len(found))
            keywords._sums(store.connection, query, Filter(collection="c"))


@pytest.mark.parametrize("length", [1, 800, 801, 5_000, 100_000, 3_000_000])
def test_chunks_hold_every_character(length: int) -> None:
    chance = random.Random(length)
    words = ["word", "a", "sentence.", "longer-word", "\n\n", "Ünïcode"]
    text = " ".join(chance.choice(words) for _ in range(length))[:length].strip() or "x"
    pieces = chunks.split(text)
    assert len(pieces) <= 4_096
    position = 0
    for piece in pieces:
        start = text.find(piece, max(0, position - len(piece)))
        assert 0 <= start <= position, "a gap between two chunks"
        position = max(position, start + len(piece))
    assert position == len(text)


def test_chunks_overlap_and_break_between_sentences() -> None:
    text = " ".join(f"This is sentence number {number} of a long text." for number in range(200))
    pieces = chunks.split(text)
    assert all(len(piece) <= chunks.LONGEST for piece in pieces)
    assert all(piece.rstrip().endswith(".") for piece in pieces)
    assert all(one[-50:].strip() in other for one, other in pairwise(pieces))


def test_a_text_without_any_space_is_split_all_the_same() -> None:
    pieces = chunks.split("x" * 10_000)
    assert max(map(len, pieces)) <= chunks.LONGEST
    assert sum(map(len, pieces)) >= 10_000
