"""What a command prints for people: never anything that a terminal obeys.

A name or a message may come from a file of a stranger. Control characters and those that turn the
direction of writing are shown by their numbers, wherever the output goes: what is piped into a file
is looked at in a terminal later.
"""

from __future__ import annotations

import re
from typing import Any

import click

_OBEYED = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_IN_TEXT = re.compile(f"[{_OBEYED}]")
_IN_NAME = re.compile(f"[\t\n{_OBEYED}]")
_IN_JSON = re.compile(f"[{_OBEYED}]")  # line breaks are its layout


def say(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print lines for people, on standard error with `err`."""
    click.echo(_IN_TEXT.sub(_shown, text), err=err, nl=nl)


def draw(text: str) -> None:
    """Draw over the last line of standard error, where one is to be seen."""
    click.echo("\r" + _IN_TEXT.sub(_shown, text), err=True, nl=False)


def printable(name: Any) -> str:
    r"""A name, in which nothing is obeyed: a line break is shown as \x0a."""
    return _IN_NAME.sub(_shown, str(name))


def printable_json(text: str) -> str:
    """The same JSON, with what a terminal would obey as escapes."""
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _shown(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
