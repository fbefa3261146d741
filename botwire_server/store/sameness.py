"""When two texts say the same thing, so that storing one again merges instead of adding.

Only the surface may differ: case, spacing, and punctuation that does not change what is said.
Likeness of meaning is no evidence: "Invoice 1043 for $500" and "Invoice 1044 for $500" have
almost the same vector, "likes" and "does not like" come close. So two texts are the same when
their canonical forms are equal, and whatever may matter stays in the canonical form: digits and
what touches them, symbols, question marks, hyphens, apostrophes, the case of words that mean
something else in another case, commas that may change the sense. In doubt, two memories.
"""

from __future__ import annotations

import re
import unicodedata
from hashlib import blake2b

from botwire_server.store.terms import is_stop_word

# Written in capitals these are another word than in small letters.
_ACRONYMS = frozenset(
    """
    us it who aids am pm or in me hi ok oh la al ma pa de id as is at an no so do to on my go if
    by be he up us all and are art can cap care case cat cia cop cpu dad dare dea dim div dos
    eta fed gas gap get gob had ham hip hit hot ice inc ion ira lab lan led let mad mat mit nan
    nasa nil nor not now one ore out pad pal pan pap pat pin ram rip sad sap sat she sim sip six
    son spa spam start sun swat tab tan tap tar the tin top van was war wave web yes zip
    """.split()  # noqa: SIM905
) - {"and", "are", "can", "the", "was", "not", "now", "one", "all", "get", "let", "yes", "had"}

# Written with a capital these are a name.
_NAMES = frozenset(
    """
    may march april august summer autumn will mark bill rose grace faith hope joy dawn art drew
    grant chase chance rich king prince bishop cook baker smith miller potter hunter fisher
    gardener young long short small brown green white black gray grey wood stone hill field brook
    lake banks bush berry cherry olive ivy lily daisy violet iris poppy holly jasmine ginger basil
    sage ruby amber pearl jade crystal robin swift wolf fox lamb bird drake crane love price cash
    penny gates jobs miles buddy major general polish turkey china chile jordan guinea nice bath
    reading mobile phoenix buffalo split cork man champagne cologne java apple amazon oracle shell
    target gap visa delta united sprint orange dove tide puma lotus windows word excel access
    office outlook teams edge chrome safari slack zoom notion signal discord meet drive docs
    sheets rust go python perl basic spark hive pig storm docker bolt square stripe block meta
    alphabet gemini echo mercury mars earth saturn sun moon lent easter sandy rocky melody harmony
    patience destiny christian
    """.split()  # noqa: SIM905
)
_MONTHS = frozenset(["may", "march", "april", "august"])
# 5 mW is not 5 MW.
_UNITS = frozenset(
    "mw mb gb kb tb pb mv ma ms mg ml mm mpa mhz mj mn pa cd kib mib gib".split()  # noqa: SIM905
)

_NEGATIONS = frozenset(
    {"no", "not", "never", "nor", "neither", "none", "nothing", "nobody", "nowhere", "without"}
)
_LISTS = frozenset({"and", "or", "but", "nor", "&", "y", "et", "und", "oder", "ou", "e", "o"})

_STRAIGHT = (
    *(("’", "'"), ("‘", "'"), ("ʼ", "'")),
    *(("“", '"'), ("”", '"'), ("„", '"'), ("…", "...")),
)
_LETTERS = re.compile(r"[^\W\d_]++(?:'[^\W\d_]++)*+")
# A word that ends otherwise ends no sentence and begins none, and wears no comma.
_ENDS = frozenset('.!?,;:"')
# Unicode's Stream-Safe Text Format (UAX 15): normalising sorts the marks on a letter, which takes
# the square of their number.
MOST_MARKS = 30
_JOINER = "\u034f"


def fingerprint(collection: str, session_id: str | None, text: str) -> bytes:
    """16 bytes, equal where `text` says the same in the same collection and session."""
    # A sentence said again in another session is another event.
    parts = (collection, "" if session_id is None else f"s{session_id}", *canonical(text))
    return blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def canonical(text: str) -> list[str]:
    """The words and signs of `text` that make its sense."""
    words = _normal(text).split()
    shouted = not any(map(str.islower, set(text)))
    commas_matter = ("," in text or ";" in text) and _commas_matter(words)
    found: list[str] = []
    begins = True  # a sentence
    # What repeats itself is looked at once.
    known: dict[tuple[str, str | None, str, bool], tuple[str, str]] = {}
    for place, word in enumerate(words):
        if word[-1] not in _ENDS and word == word.lower():  # most words
            found.append(word)
            begins = False
            continue
        following = words[place + 1] if place + 1 < len(words) else None
        around = (word, following, found[-1] if found else "", begins)
        if around not in known:
            known[around] = _plain(*around, shouted=shouted, commas_matter=commas_matter)
        body, end = known[around]
        found.append(body)
        if end:
            found.append(end)
        begins = bool(end) or body.endswith((".", ":", '"'))
    return found


def _plain(
    word: str,
    following: str | None,
    before: str,
    begins: bool,
    *,
    shouted: bool,
    commas_matter: bool,
) -> tuple[str, str]:
    """A word as it is compared, and the sign behind it that matters."""
    body, end = _without_end(word, following) if word[-1] in _ENDS else (word, "")
    if body.endswith((",", ";")) and following is not None and not commas_matter:
        bare = body[:-1]
        if _is_plain(bare) and _is_plain(following.rstrip(".!")):
            body = bare
    near = (before, following or "")
    return _folded(body, shouted=shouted, begins=begins, near=near), end


def _normal(text: str) -> str:
    """`text` with straight quotes, in NFC; with more marks in a row than `MOST_MARKS` they are
    sorted so many at a time.
    """
    if text.isascii():
        return text
    for curly, straight in _STRAIGHT:
        text = text.replace(curly, straight)
    marks = "".join(sorted(filter(_is_mark, set(text))))
    if marks:
        crowd = re.compile(f"[{re.escape(marks)}]{{{MOST_MARKS}}}")
        text = crowd.sub(rf"\g<0>{_JOINER}", text)
    return unicodedata.normalize("NFC", text)


def _is_mark(character: str) -> bool:
    """Whether a character is sorted among marks; some are letters that are made of marks only."""
    return unicodedata.combining(unicodedata.normalize("NFD", character)[0]) != 0


def _without_end(word: str, following: str | None) -> tuple[str, str]:
    """A word without the sign that ends its sentence, and that sign where it matters."""
    body = word.rstrip(".!?")
    if "?" in word[len(body) :]:
        return body, "?"
    if body == word or not _says(body):  # also ":)." and "!" alone
        body = word.rstrip(",;") if following is None else word
        return (body, "") if _says(body) else (word, "")
    if following is not None and body.isdigit() and word == body + "!":  # 5! is 120
        return word, ""
    # Between two sentences the sign says where the first one ends.
    return body, "" if following is None else "."


def _says(word: str) -> bool:
    """Whether there is a letter or a digit in it."""
    return word[:1].isalnum() or any(map(str.isalnum, word))


def _folded(word: str, *, shouted: bool, begins: bool, near: tuple[str, str]) -> str:
    """`word` in small letters, unless its case may matter; `near` are the words around it."""
    small = word.lower()
    if small == word:
        return word
    if not _is_plain(word):
        # Codes, paths, addresses keep their case. What only wears punctuation is a plain word.
        inner = word.strip("\"'(),;:")
        if not _is_plain(inner):
            return _folded_compound(word)
        folded = _folded(inner, shouted=shouted, begins=begins, near=near)
        return word.replace(inner, folded)
    if (small in _UNITS or len(word) == 1) and _has_digit(near[0]):
        return word
    if shouted or small == "i" or (small in _MONTHS and any(map(_has_digit, near))):
        return small
    if len(word) == 1:
        return small if begins else word
    if word == small.capitalize():
        return word if small in _NAMES and not begins else small
    if word.isupper():
        return word if small in _ACRONYMS or small in _NAMES else small
    # camelCase is an identifier or a code; tHE and dARK are somebody's caps lock.
    caps_lock = len(word) > 3 and word[0].islower() and word[1:].isupper()
    return small if caps_lock or is_stop_word(small) else word


def _has_digit(word: str) -> bool:
    return any(map(str.isdigit, word))


def _folded_compound(word: str) -> str:
    """E-MAIL and E-mail as e-mail; what else is joined of pieces keeps its case."""
    parts = word.split("-")
    if len(parts) < 2 or not all(map(_is_plain, parts)):
        return word
    if word.isupper() or all(part == part.capitalize() or part.islower() for part in parts):
        return word.lower()
    return word


def _is_plain(word: str) -> bool:
    return word.isalpha() or _LETTERS.fullmatch(word) is not None


def _commas_matter(words: list[str]) -> bool:
    """Whether a comma may change the sense: near a negation, in a list, before an address."""
    small = {word.lower().strip(".,;!?\"'()") for word in set(words)}
    if not small.isdisjoint(_NEGATIONS) or not small.isdisjoint(_LISTS):
        return True
    if any(word.endswith("n't") for word in small):
        return True
    return len(words) > 2 and words[-2].endswith((",", ";"))
