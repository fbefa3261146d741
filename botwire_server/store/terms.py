"""From a question to a keyword query.

Words that say nothing about what is sought (stop words, question words) are left out, the others
are quoted, so that nothing a user writes can be read as FTS5 syntax.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

# A longer text is no question; its first words say what it is about.
MOST = 48
# A longer word is looked for by its beginning; what a word is joined of has at most four parts.
LONGEST = 128

_WORD = re.compile(r"[^\W_]++(?:'[^\W_]++){0,3}+")

_STOP = frozenset(
    """
    a an the this that these those some any each every all both either neither such same other
    another much many more most few less least own
    i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his
    himself she her hers herself it its itself they them their theirs themselves one
    and or but nor so yet if then else than as because while until although though since unless
    of at by for with about against between into through during before after above below to from
    up down in out on off over under again further upon within without toward towards onto
    am is are was were be been being have has had having do does did doing done
    can could will would shall should may might must ought
    not no only just also too very really quite rather still even ever never already
    here there now once
    what which who whom whose when where why how whether whatever whichever whoever whenever
    wherever
    i'm i've i'd i'll you're you've you'd you'll he's he'd he'll she's she'd she'll it's it'd
    it'll we're we've we'd we'll they're they've they'd they'll that's that'd there's here's
    what's who's where's when's why's how's let's isn't aren't wasn't weren't haven't hasn't
    hadn't don't doesn't didn't can't cannot couldn't won't wouldn't shan't shouldn't mustn't
    needn't mightn't
    please tell
    """.split()  # noqa: SIM905
)


def terms(text: str) -> list[str]:
    """The words of `text` worth looking for, each once, in their order.

    A text of nothing but stop words is looked for as it is. "May", "Will" and "US" are names
    where they stand inside a sentence.
    """
    text = text.replace("’", "'")
    telling = (
        _term(match[0])
        for place, match in enumerate(_WORD.finditer(text))
        if _tells(match[0], first=place == 0)
    )
    return _first(telling) or _first(_term(match[0]) for match in _WORD.finditer(text))


def _first(terms: Iterable[str]) -> list[str]:
    """The first `MOST` of them, each once; no more of the text is looked at."""
    found: dict[str, None] = {}
    for term in terms:
        found[term] = None
        if len(found) == MOST:
            break
    return list(found)


def _term(word: str) -> str:
    return word[: LONGEST + 1].lower().removesuffix("'s")


def is_stop_word(word: str) -> bool:
    """Whether a word in small letters says nothing about what is sought."""
    return word in _STOP


def _tells(word: str, *, first: bool) -> bool:
    small = word.lower()
    if small not in _STOP:
        return True
    if first or "'" in word or not word[0].isupper():
        return False
    return len(word) > 1 if word.isupper() else small[0] != "i"


def quoted(term: str) -> str:
    """A term as FTS5 string: matched as it is, never read as syntax."""
    escaped = term[:LONGEST].replace('"', '""')
    return f'"{escaped}"' if len(term) <= LONGEST else f'"{escaped}"*'


def all_of(words: list[str]) -> str:
    """An FTS5 query for what holds every one of the terms."""
    return " AND ".join(map(quoted, words))


def any_of(words: list[str]) -> str:
    """An FTS5 query for what holds at least one of the terms."""
    return " OR ".join(map(quoted, words))
