"""From what a user typed to what FTS5 understands.

Only words get through, each quoted, so no text can be FTS5 syntax.
"""

from __future__ import annotations

from typing import Literal

from botwire_server.words import words

# A query of more words costs time and finds nothing more.
MOST_WORDS = 48


def match(query: str, *, joined: Literal["AND", "OR"]) -> str | None:
    """The MATCH expression for a query, or None where it has no word."""
    terms = list(dict.fromkeys(words(query)))[:MOST_WORDS]
    return f" {joined} ".join(f'"{term}"' for term in terms) or None
