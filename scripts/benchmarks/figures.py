"""What was measured, beside what was asked for, as a table, as Markdown or as JSON."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness import CHECKOUT


@dataclass(frozen=True)
class Setup:
    """How to measure: where files may lie, how many rounds, how long each turn takes.

    `package` is the directory that holds the `botwire_server` to measure, where a section takes it.
    """

    scratch: Path
    rounds: int
    seconds: int
    package: Path = CHECKOUT

    def say(self, what: str) -> None:
        """Tell whoever is waiting what goes on."""
        print(f"  {what} ...", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Figure:
    """A number, and the `least` or `most` it may be. `note` is what goes with it."""

    name: str
    value: float
    unit: str
    least: float | None = None
    most: float | None = None
    note: str = ""

    @property
    def passes(self) -> bool | None:
        """Whether it is as asked for; None where nothing is."""
        if self.least is None and self.most is None:
            return None
        return (self.least is None or self.value >= self.least) and (
            self.most is None or self.value <= self.most
        )

    @property
    def asked(self) -> str:
        """The bound, in words."""
        if self.least is not None:
            return f"≥ {self.least:g} {self.unit}"
        return "" if self.most is None else f"≤ {self.most:g} {self.unit}"

    @property
    def shown(self) -> str:
        """The number with its unit, in as many digits as mean something."""
        if math.isnan(self.value):
            return "–"
        digits = 0 if self.value >= 100 or self.value == int(self.value) else 1
        if self.unit == "s":
            digits = 2
        return f"{self.value:,.{digits}f} {self.unit}".strip()

    @property
    def verdict(self) -> str:
        """pass, FAIL, or nothing."""
        return {True: "pass", False: "FAIL", None: ""}[self.passes]

    def json(self) -> dict[str, Any]:
        """All of it, for machines."""
        value = None if math.isnan(self.value) else self.value
        return asdict(self) | {"value": value, "passes": self.passes}


def table(figures: Sequence[Figure]) -> str:
    """Lines for a terminal."""
    rows = [(f.name, f.shown, f.asked, f.verdict, f.note) for f in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for name, shown, asked, verdict, note in rows:
        cells = [
            name.ljust(widths[0]),
            shown.rjust(widths[1]),
            asked.ljust(widths[2]),
            verdict.ljust(widths[3]),
            note,
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown(machine: str, figures: Sequence[Figure]) -> str:
    """A table for a document, under the machine it comes from."""
    lines = [f"Measured on {machine}.", "", "| | measured | floor | |", "|---|---|---|---|"]
    lines += [f"| {f.name} | {f.shown} | {f.asked} | {f.note} |" for f in figures]
    return "\n".join(lines)
