"""The words of a text, as far as finding and summarising need them."""

from __future__ import annotations

import re

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
