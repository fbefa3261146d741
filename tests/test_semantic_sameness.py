"""What merges, and what must never: in doubt, two memories."""

from __future__ import annotations

import pytest

from botwire_server.store.sameness import canonical, fingerprint

INVOICE = "Invoice 1043 for $500 was paid by Acme on May 3"
LIKES = "The user likes dark mode"

SAME = [
    (LIKES, "the user likes dark mode"),
    (LIKES, "THE USER LIKES DARK MODE!"),
    (LIKES, "The User Likes Dark Mode"),
    (LIKES, "tHE USER LIKES DARK MODE"),
    (LIKES, "  The user\n likes\tdark   mode. "),
    (LIKES, "The user likes dark mode..."),
    (LIKES, "The user likes dark mode;"),
    (INVOICE, INVOICE.lower()),
    (INVOICE, INVOICE.upper() + "!!!"),
    (INVOICE, INVOICE.title()),
    (INVOICE, INVOICE.replace("Acme", "Acme,")),
    ("Hello, world!", "hello world"),
    ("However, the user likes dark mode", "however the user likes dark mode"),
    ("I can't swim", "I can’t swim."),
    ("The user’s name is Bob", "the user's name is bob"),
    ("He left. She stayed.", "he left. she stayed"),
    ("Really?", "really??"),
    ("cafe\u0301 au lait", "caf\u00e9 au lait"),
]

DIFFERENT = [
    (INVOICE, INVOICE.replace("1043", "1044")),
    (INVOICE, INVOICE.replace("$500", "$5.00")),
    (INVOICE, INVOICE.replace("$500", "€500")),
    (INVOICE, INVOICE.replace("May 3", "May 4")),
    (INVOICE, INVOICE.replace("Acme", "Acne")),
    (LIKES, "The user does not like dark mode"),
    (LIKES, "The user likes dark mode?"),
    (LIKES, "The user dislikes dark mode"),
    (LIKES, "The user likes light mode"),
    ("The price will increase", "The price will decrease"),
    ("Ann pays Bob", "Bob pays Ann"),
    ("She wants to re-sign", "She wants to resign"),
    ("He wrote it in C++", "He wrote it in C"),
    ("He wrote it in C#", "He wrote it in C"),
    ("They live in the US", "They live in the us"),
    ("She works in IT", "She works in it"),
    ("They asked WHO", "They asked who"),
    ("I can't swim", "I cant swim"),
    ("I can't swim", "I can swim"),
    ("We're here", "Were here"),
    ("I'll go", "Ill go"),
    ("-5 degrees", "5 degrees"),
    ("~5 degrees", "5 degrees"),
    ("costs 1,000", "costs 1000"),
    ("costs 1,000", "costs 1.000"),
    ("at 10:30", "at 1030"),
    ("3/4 cup", "34 cup"),
    ("100% sure", "100 sure"),
    ("version 1.2", "version 12"),
    ("5 mW", "5 MW"),
    ("5mW", "5MW"),
    ("10 m away", "10 M away"),
    ("m² of wood", "m2 of wood"),
    ("The user likes Turkey", "The user likes turkey"),
    ("The user met Will", "The user met will"),
    ("x < 5", "x > 5"),
    ("the code is aBcD", "the code is abcd"),
    ("The password is Hunter2", "The password is hunter2"),
    ("see /Home/A", "see /home/a"),
    ("write to A@x.com", "write to a@x.com"),
    ("she is fine :)", "she is fine :("),
    ("No, more coffee", "No more coffee"),
    ("Stop, not now", "Stop not now"),
    ("Let's eat, grandma", "Let's eat grandma"),
    ("She likes cooking, dogs and kids", "She likes cooking dogs and kids"),
    ("resume", "résumé"),
    ("now here", "nowhere"),
    ("a grade A exam", "a grade a exam"),
    ("the user said yes", "the user said no"),
    ("5! is 120", "5 is 120"),
    ("😀", "😢"),
    ("!", "?"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same_in_another_dress_is_one(one: str, other: str) -> None:
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_may_mean_something_else_is_two(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


def test_a_text_is_the_same_in_one_collection_and_session_only() -> None:
    places = [("a", None), ("b", None), ("a", "s"), ("a", ""), ("a", "t")]
    assert len({fingerprint(*place, LIKES) for place in places}) == len(places)
    # What belongs to the session must not be read as the beginning of the text.
    assert fingerprint("a", "b", "c") != fingerprint("a", None, "b c")


def test_nothing_but_signs_is_still_a_text() -> None:
    assert canonical("...") != canonical("!!!") != canonical(":-)")
    for odd in ("...", "!", "?", ",", ";", "''", '""', "(", "\x00", "\u200b", "\ud800"):
        fingerprint("c", None, odd)
