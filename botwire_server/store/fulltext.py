"""From what a user typed to what FTS5 understands.

Only words get through, each quoted, so no text can be FTS5 syntax.
"""

from __future__ import annotations

import re
from typing import Literal

# A query of more words costs time and finds nothing more.
MOST_WORDS = 48

_WORD = re.compile(r"[^\W_]+")

# Words that most texts have, and those a question is asked with.
STOP_WORDS = frozenset(
    """a about am an and any are as at be been but by can could did do does for from had has have
    he her him his how i if in into is it its me my of on or our she should so than that the their
    them then there these they this to us was we were what when where which who whom whose why will
    with would you your""".split()  # noqa: SIM905
)


def words(text: str) -> list[str]:
    """The words of a text in lower case, in order; without stop words, unless that is all."""
    found = [word.lower() for word in _WORD.findall(text)]
    return [word for word in found if word not in STOP_WORDS] or found


def match(query: str, *, joined: Literal["AND", "OR"]) -> str | None:
    """The MATCH expression for a query, or None where it has no word."""
    terms = list(dict.fromkeys(words(query)))[:MOST_WORDS]
    return f" {joined} ".join(f'"{term}"' for term in terms) or None
