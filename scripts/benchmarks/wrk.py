"""Load, from `wrk`: it costs so little that one core is left to the server."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Self

CONNECTIONS = 16
VALUE_BYTES = 200
KEYS = 1_000

SCRIPT = Path(__file__).with_name("requests.lua")


def require_wrk() -> None:
    """Exit with the remedy where `wrk` is missing."""
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is missing, which makes the load: on Debian, apt install wrk.")


@dataclass(frozen=True)
class Load:
    """What to ask for: `method` of that many keys in all, spread over `namespaces`, with an API
    key where one is needed. POST sends the `lines` of a file instead, each a path and a body.
    `strict`: an answer that is no success, or takes more than 2 s, ends it all.
    """

    port: int
    method: str
    namespaces: int = 1
    keys: int = KEYS
    api_key: str = ""
    lines: Path | None = None
    connections: int = CONNECTIONS
    strict: bool = True

    def command(self, seconds: int) -> list[str]:
        """How wrk is called."""
        command = ["wrk", "-t1", f"-c{self.connections}", f"-d{seconds}s"]
        command += ["-s", str(SCRIPT), f"http://127.0.0.1:{self.port}", "--", self.method]
        command += [str(self.namespaces), str(self.keys // self.namespaces), str(VALUE_BYTES)]
        return [*command, self.api_key, *([] if self.lines is None else [str(self.lines)])]


@dataclass(frozen=True)
class Slice:
    """What one turn gave."""

    per_second: float
    p50_ms: float
    p99_ms: float
    requests: int = 0

    @classmethod
    def of(cls, load: Load, seconds: int) -> Self:
        """Run a load for a while. Raises `RuntimeError` for any answer that is no success."""
        output = subprocess.run(
            load.command(seconds), check=True, capture_output=True, text=True
        ).stdout
        return cls.read(load, output)

    @classmethod
    def read(cls, load: Load, output: str) -> Self:
        """What wrk's script wrote at the end."""
        result = json.loads(output.partition("RESULT ")[2])
        if load.strict and result["errors"]:
            raise RuntimeError(f"{result['errors']} requests failed: {load}")
        return cls(
            result["requests"] / result["seconds"],
            result["p50_ms"],
            result["p99_ms"],
            result["requests"],
        )


class Turns:
    """The slices of several loads, taken in turns."""

    def __init__(self, loads: dict[str, Load], *, rounds: int, seconds: int) -> None:
        self._slices: dict[str, list[Slice]] = {name: [] for name in loads}
        for _ in range(rounds):
            for name, load in loads.items():
                self._slices[name].append(Slice.of(load, seconds))

    def median(self, name: str) -> Slice:
        """The median of each number of a load."""
        slices = self._slices[name]
        return Slice(
            median(turn.per_second for turn in slices),
            median(turn.p50_ms for turn in slices),
            median(turn.p99_ms for turn in slices),
        )

    def ratio(self, name: str, to: str) -> float:
        """How many of one a second for one of the other, in %: the median of the rounds."""
        pairs = zip(self._slices[name], self._slices[to], strict=True)
        return 100 * median(mine.per_second / theirs.per_second for mine, theirs in pairs)
