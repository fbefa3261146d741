"""Long texts in pieces: one vector for pages of text would mean a little of everything."""

from __future__ import annotations

import re

# Some sentences: what a mean of word vectors can still stand for.
LONGEST = 800
OVERLAP = 150
# The number of a chunk has 12 bits in a vector's id; a longer text gets longer chunks.
MOST = 4_000

# Where a piece may end, the best first.
_BREAKS = (re.compile(r"\n\s*\n"), re.compile(r"[.!?…。！？]\s|\n"), re.compile(r"\s"))


def split(text: str, *, longest: int = LONGEST, overlap: int = OVERLAP) -> list[str]:
    """Pieces of at most `longest` characters that overlap; a short text is one piece.

    Every character is in at least one piece.
    """
    text = text.strip()
    if len(text) <= longest:
        return [text]
    if len(text) > MOST * (longest - overlap) // 2:
        longest = 2 * len(text) // MOST + overlap
    pieces = []
    start = 0
    while len(text) - start > longest:
        end = _break(text, start + longest // 2 + overlap, start + longest)
        pieces.append(text[start:end])
        start = _word_start(text, end - overlap, end)
    pieces.append(text[start:])
    return pieces


def _break(text: str, least: int, most: int) -> int:
    """The best place to end a piece in text[least:most]."""
    for pattern in _BREAKS:
        ends = [match.end() for match in pattern.finditer(text, least, most)]
        if ends:
            return ends[-1]
    return most


def _word_start(text: str, least: int, most: int) -> int:
    """The first place behind a space in text[least:most]."""
    match = _BREAKS[-1].search(text, least, most)
    return match.end() if match else least
