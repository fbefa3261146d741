"""Clients of both dialects that know what they were told, and look whether it is true.

Each writes to places of its own in namespaces that all share, and in one that is its own and that
it purges now and then. What is refused with 503 or 507 may be there or not, but not by halves.
"""

from __future__ import annotations

import http.client
import itertools
import json
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from harness.kinds import KINDS, Ask, Client, Reader, Unreadable, purge
from harness.ledger import Ledger, Place
from harness.server import ServerProcess

PURGE = 0.006
OWN = 0.15
# What has been there for a while and was looked at is looked at again by samples.
SAMPLED = 25

# What makes requests on a connection.
Asking = Callable[[http.client.HTTPConnection], Ask]

DONE = (200, 201, 204)
LATER = (503, 507)


def own(number: int) -> str:
    """The namespace that only this writer writes to, and purges."""
    return f"own-{number}"


class Answer(NamedTuple):
    """When a request was sent and answered, and how. `namespaces` are those it would change."""

    began: float
    ended: float
    status: int
    method: str
    namespaces: frozenset[str]


class Writer:
    """One client, one request after the other."""

    def __init__(self, number: int, seed: int, *, kinds: Sequence[str] = tuple(KINDS)) -> None:
        self.number = number
        self.acknowledged: Counter[str] = Counter()
        self.purged = 0
        self.answers: list[Answer] = []
        self.wrong: list[str] = []
        # Why it was cut off, if it was.
        self.cut_off: Exception | None = None
        self._kinds = kinds
        count = itertools.count(1)
        self._client = Client(
            number, random.Random(seed * 1000 + number), Ledger(), {}, lambda: next(count)
        )
        self._new: set[Place] = set()

    @property
    def ledger(self) -> Ledger:
        """What it was told."""
        return self._client.ledger

    def write(self, ask: Ask, namespaces: Sequence[str]) -> int:
        """One request; its status. Whatever `ask` raises: it may have been done."""
        client = self._client
        chance = client.chance
        namespace = own(self.number) if chance.random() < OWN else chance.choice(namespaces)
        if chance.random() < PURGE:
            kind, step = "purge", purge(client, own(self.number))
        else:
            kind = chance.choice(self._kinds)
            step = KINDS[kind](client, namespace)
        self._new |= step.changes.keys()
        there = any(None not in client.ledger.possible(place) for place in step.changes)
        attempts = client.ledger.begin(step.changes)
        began = time.monotonic()
        status, answer = ask(step.method, step.path, step.body)
        # An agent's requests name it in the body: what was to change says where it would be.
        where = {place.namespace for place in step.changes}
        self.answers.append(Answer(began, time.monotonic(), status, step.method, frozenset(where)))
        if status in DONE or (step.method == "DELETE" and status == 404):
            client.ledger.end(attempts)
            self.acknowledged[kind] += 1
            if status == 404 and there:
                self.wrong.append(f"{step.path} answers 404 and was told to be there")
            if status in DONE:
                step.learn(answer)
                self.purged += kind == "purge"
        elif status not in LATER:
            self.wrong.append(f"{step.method} {step.path} answers {status}: {str(answer)[:200]}")
        return status

    def write_until(
        self,
        server: ServerProcess,
        namespaces: Sequence[str],
        done: Callable[[], bool],
        asking: Asking,
    ) -> None:
        """Write until `done`, or until the server is gone."""
        connection = server.connect(timeout=20)
        try:
            ask = asking(connection)
            while not done():
                self.write(ask, namespaces)
        except (OSError, http.client.HTTPException) as error:
            self.cut_off = error
        finally:
            connection.close()

    def losses(self, ask: Ask, *, at: float = math.inf, everything: bool = True) -> Iterator[str]:
        """What is not as this writer was told, if everything stopped at this time.

        Not `everything`: what it wrote since it last looked, and samples of the rest.
        """
        places = self.ledger.places(at)
        if not everything:
            old = [place for place in places if place not in self._new]
            some = self._client.chance.sample(old, min(SAMPLED, len(old)))
            places = [*(place for place in places if place in self._new), *some]
        reader = Reader(ask)
        for place in places:
            here = "/".join(place)
            try:
                found, version = reader.read(place)
            except Unreadable as error:
                yield f"{here} {error}"
                continue
            possible = self.ledger.possible(place, at)
            if found not in possible:
                told = " or ".join(_short(value) for value in possible)
                yield f"{here} is {_short(found)} and was told to be {told}"
            known = None if found is None else self._client.told.get((place, found))
            if place.kind == "state" and known is not None and version != known:
                yield f"{here} is at version {version} and was told {known}"
            if at == math.inf:
                if not self.ledger.sure(place):
                    self.ledger.settle(place, found)
                    self._client.told.pop((place, ""), None)
                if place.kind == "state" and found is not None:
                    self._client.told[place, found] = version
        if at == math.inf:
            self._new.clear()


def asking(connection: http.client.HTTPConnection) -> Ask:
    """Requests on a connection to a server."""

    def ask(method: str, path: str, body: Any) -> tuple[int, Any]:
        headers = {} if body is None else {"Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, body=data, headers=headers)
        response = connection.getresponse()
        answer = response.read()
        return response.status, json.loads(answer) if answer else None

    return ask


def start(
    writers: Iterable[Writer],
    server: ServerProcess,
    namespaces: Sequence[str],
    done: Callable[[], bool] = lambda: False,
    *,
    asking: Asking = asking,
) -> list[threading.Thread]:
    """Let everybody write until `done` or until the server is gone; the threads to join."""
    threads = [
        threading.Thread(target=writer.write_until, args=(server, namespaces, done, asking))
        for writer in writers
    ]
    for thread in threads:
        thread.start()
    return threads


def told(writers: Iterable[Writer]) -> str:
    """How much was acknowledged, for people."""
    counts: Counter[str] = Counter()
    for writer in writers:
        counts += writer.acknowledged
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    return f"{counts.total()} acknowledged writes ({kinds})"


def _short(value: str | None) -> str:
    return "absent" if value is None else repr(value[:60])
