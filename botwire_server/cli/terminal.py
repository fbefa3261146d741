"""What a command prints for people: never anything that a terminal obeys.

A name or a message may come from a file of a stranger. Control characters and those that turn the
direction of writing are shown by their numbers, wherever the output goes: what is piped into a file
is looked at in a terminal later.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import click

from botwire_server.lazy import rich_console, rich_progress, rich_table, rich_text

_OBEYED = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_IN_TEXT = re.compile(f"[{_OBEYED}]")
_IN_NAME = re.compile(f"[\t\n{_OBEYED}]")
# Columns of a table that nobody looks at.
_UNBROKEN = 1_000_000
_IN_JSON = re.compile(f"[{_OBEYED}]")  # line breaks are its layout


def say(text: str = "", *, err: bool = False, nl: bool = True) -> None:
    """Print lines for people, on standard error with `err`."""
    click.echo(_IN_TEXT.sub(_shown, text), err=err, nl=nl)


def printable(name: Any) -> str:
    r"""A name, in which nothing is obeyed: a line break is shown as \x0a."""
    return _IN_NAME.sub(_shown, str(name))


def printable_json(text: str) -> str:
    """The same JSON, with what a terminal would obey as escapes."""
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of printable cells, the first of them the heading, each column as wide as it must.

    Widths are those that a terminal gives: a Chinese character takes two places, a mark none.
    """
    # rich leaves out colours for NO_COLOR; whoever sets it wants no escape at all.
    style = "" if os.environ.get("NO_COLOR") else "bold"
    made = rich_table.Table(box=None, pad_edge=False, show_edge=False, header_style=style)
    heading, *others = rows
    for name in heading:
        made.add_column(rich_text.Text(name), overflow="fold")
    for row in others:
        made.add_row(*map(rich_text.Text, row))
    console = rich_console.Console(highlight=False, emoji=False, markup=False)
    if not console.is_terminal:  # a program reads it: no line is broken
        console.width = _UNBROKEN
    with console.capture() as captured:
        console.print(made)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


class Progress:
    """A bar on stderr for people; nothing where nobody looks."""

    def __init__(self, label: str) -> None:
        self._bar: rich_progress.Progress | None = None
        self._label = label
        if sys.stderr.isatty():
            self._bar = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}", markup=False),
                rich_progress.BarColumn(),
                rich_progress.MofNCompleteColumn(),
                rich_progress.TimeRemainingColumn(),
                console=rich_console.Console(stderr=True),
            )

    def show(self, done: int, total: int) -> None:
        """Draw the bar."""
        if self._bar is not None and total:
            if not self._bar.task_ids:
                self._bar.add_task(self._label, total=total)
                self._bar.start()
            self._bar.update(self._bar.task_ids[0], completed=done, total=total)

    def close(self) -> None:
        """Leave the bar as it is, and go to the next line."""
        if self._bar is not None and self._bar.task_ids:
            self._bar.stop()


def _shown(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
