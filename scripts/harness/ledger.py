"""What a client was told and what it tried, and so what it may find at any moment.

A place is written by one client, one request after the other. Whatever happens to the server, the
place must then read as the last request that was answered, or as a later one that was not.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple


class Place(NamedTuple):
    """Where something is: `kind` is one of `kinds.KINDS`."""

    namespace: str
    kind: str
    name: str


# None is nothing there.
Value = str | None


@dataclass(slots=True)
class Attempt:
    """A request that would leave `value`. Times are of CLOCK_MONOTONIC, in seconds."""

    value: Value
    began: float
    ended: float = math.inf  # when it was answered with yes


@dataclass
class Ledger:
    """The attempts of one client at each of its places."""

    attempts: dict[Place, list[Attempt]] = field(default_factory=lambda: defaultdict(list))

    def begin(self, changes: dict[Place, Value]) -> list[Attempt]:
        """A request is about to be sent that would change this."""
        now = time.monotonic()
        made = [Attempt(value, now) for value in changes.values()]
        for place, attempt in zip(changes, made, strict=True):
            self.attempts[place].append(attempt)
        return made

    def end(self, attempts: Iterable[Attempt]) -> None:
        """It was answered with yes."""
        now = time.monotonic()
        for attempt in attempts:
            attempt.ended = now

    def possible(self, place: Place, at: float = math.inf) -> set[Value]:
        """What may be there if everything stopped at this time."""
        found: set[Value] = {None}
        for attempt in self.attempts[place]:
            if attempt.began > at:
                break
            if attempt.ended <= at and attempt.ended != math.inf:
                found = {attempt.value}
            else:
                found.add(attempt.value)
        return found

    def latest(self, place: Place) -> Value:
        """What is there as far as the client was told; None where it cannot know."""
        return self.attempts[place][-1].value if self.sure(place) else None

    def sure(self, place: Place) -> bool:
        """Whether the last request was answered."""
        attempts = self.attempts.get(place, [])
        return bool(attempts) and attempts[-1].ended != math.inf

    def settle(self, place: Place, value: Value) -> None:
        """This was found there: from now on it is known."""
        now = time.monotonic()
        self.attempts[place] = [Attempt(value, now, now)]

    def places(self, at: float = math.inf) -> list[Place]:
        """The places that were tried until then."""
        return [place for place, tried in self.attempts.items() if tried and tried[0].began <= at]
