"""Labelled conversations: turns, and questions with the turns that answer them.

A file holds sessions (`## date`), turns (`1.2 Name: text`) and questions
(`? category | question | turns`). Written for these tests; nobody's data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent


class Turn(NamedTuple):
    """What somebody said: `id` is the conversation and the turn, `text` begins with the name."""

    id: str
    session: str
    text: str


class Question(NamedTuple):
    """A question with the ids of the turns that answer it."""

    category: str
    text: str
    evidence: frozenset[str]


def load() -> tuple[list[Turn], list[Question]]:
    """All turns in their order, and all questions."""
    turns: list[Turn] = []
    questions: list[Question] = []
    for file in sorted(HERE.glob("*.txt")):
        name = file.stem
        for line in file.read_text().splitlines():
            if line.startswith("? "):
                category, text, evidence = (part.strip() for part in line[2:].split("|"))
                ids = frozenset(f"{name}/{turn}" for turn in evidence.split())
                questions.append(Question(category, text, ids))
            elif match := re.match(r"(\d+)\.\d+ ", line):
                number, _, text = line.partition(" ")
                turns.append(Turn(f"{name}/{number}", f"{name}/{match[1]}", text))
    known = {turn.id for turn in turns}
    for question in questions:
        assert question.evidence <= known, question
    return turns, questions


def recall(
    questions: Sequence[Question], search: Callable[[str, int], Sequence[str]], k: int
) -> float:
    """The share of the evidence that is among the first k of what `search` finds, on average."""
    shares = [
        len(question.evidence & set(search(question.text, k)[:k])) / len(question.evidence)
        for question in questions
    ]
    return sum(shares) / len(shares)
