"""The kinds of things that are written, each with its requests and with how it is read back.

A step is one request and what it would leave. Texts are used once: a word in them is their name,
so that reading them back by that word asks the keyword index as well.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from harness.ledger import Ledger, Place, Value

# Method, path and JSON body; status and JSON answer.
Ask = Callable[[str, str, Any], tuple[int, Any]]

KEYS = 12
SESSIONS = 4
LARGEST_BATCH = 6
SIZES = (20, 200, 200, 5_000, 5_000, 90_000)


class Step(NamedTuple):
    """A request, and what it would leave where. `learn` is told the answer."""

    method: str
    path: str
    body: Any
    changes: dict[Place, Value]
    learn: Callable[[Any], None] = lambda answer: None


class Client(NamedTuple):
    """Who writes: its number, its luck, what it was told."""

    number: int
    chance: random.Random
    ledger: Ledger
    # Ids and versions that it was told, by place and value.
    told: dict[tuple[Place, str], Any]
    next_number: Callable[[], int]


def entry(client: Client, namespace: str) -> Step:
    """An entry is stored, stored over or deleted."""
    place = Place(namespace, "entry", f"w{client.number}-{client.chance.randrange(KEYS)}")
    path = f"/memory/{namespace}/{place.name}"
    if client.chance.random() < 0.25:
        return Step("DELETE", path, None, {place: None})
    value = f"{client.next_number()}-" + "v" * client.chance.choice(SIZES)
    return Step("PUT", path, {"value": value}, {place: value})


def state(client: Client, namespace: str) -> Step:
    """A state is stored, put over its version, or deleted."""
    session = f"w{client.number}-{client.chance.randrange(SESSIONS)}"
    place = Place(namespace, "state", session)
    latest = client.ledger.latest(place)
    version = None if latest is None else client.told.get((place, latest))
    choice = client.chance.random()
    if choice < 0.15:
        path = f"/v1/state/{namespace}/{session}"
        return Step("DELETE", path, None, {place: None})
    value = str(client.next_number())
    body = {"session_id": session, "data": {"n": value, "pad": "s" * client.chance.choice(SIZES)}}

    def learn(answer: Any) -> None:
        client.told[place, value] = answer["data"]["version"]

    if version is not None and choice < 0.6:
        body["version"] = version
        return Step("PUT", f"/v1/state/{namespace}", body, {place: value}, learn)
    return Step("POST", "/v1/state", {"agent_id": namespace, **body}, {place: value}, learn)


def memory(client: Client, namespace: str) -> Step:
    """A memory, or a batch; a merge into one that was told; a deletion of one."""
    ledger, chance = client.ledger, client.chance
    mine = [
        place
        for place in ledger.attempts
        if place.namespace == namespace and place.kind == "memory" and ledger.latest(place)
    ]
    choice = chance.random()
    if mine and choice < 0.2:
        place = chance.choice(mine)
        ids = client.told.get((place, ""))
        if ids:
            texts = str(ledger.latest(place)).split("\n")
            gone = chance.randrange(len(texts))
            left = texts[:gone] + texts[gone + 1 :]

            def forget(answer: Any) -> None:
                client.told[place, ""] = ids[:gone] + ids[gone + 1 :]

            path = f"/v1/memory/semantic/{ids[gone]}"
            return Step("DELETE", path, None, {place: "\n".join(left) or None}, forget)
    if mine and choice < 0.3:
        # The same once more with another number is merged into it.
        place = chance.choice(mine)
        texts = str(ledger.latest(place)).split("\n")
        text = chance.choice(texts)
        new = f"{text.partition('#')[0]}#{client.next_number()}"
        merged = [new if each == text else each for each in texts]
        return Step(
            "POST", "/v1/memory/semantic", _memory(namespace, new), {place: "\n".join(merged)}
        )
    word = f"w{client.number}m{client.next_number()}"
    place = Place(namespace, "memory", word)
    size = chance.randint(2, LARGEST_BATCH) if choice < 0.5 else 1
    words = " and".join([" something to remember"] * chance.choice((1, 1, 2, 60)))
    texts = [f"{word} part {n} of{words}#0" for n in range(10, 10 + size)]

    def learn(answer: Any) -> None:
        found = answer["data"]
        client.told[place, ""] = [one["id"] for one in found.get("items", [found])]

    changes: dict[Place, Value] = {place: "\n".join(texts)}
    items = [_memory(namespace, text) for text in texts]
    if size > 1:
        return Step("POST", "/v1/memory/semantic/batch", {"items": items}, changes, learn)
    return Step("POST", "/v1/memory/semantic", items[0], changes, learn)


def _memory(namespace: str, text: str) -> dict[str, Any]:
    content, _, number = text.partition("#")
    return {"agent_id": namespace, "content": content, "metadata": {"n": int(number)}}


def episode(client: Client, namespace: str) -> Step:
    """An episode, or a batch, is appended to the client's session."""
    word = f"w{client.number}e{client.next_number()}"
    place = Place(namespace, "episode", word)
    size = client.chance.choice((1, 1, 1, 3))
    texts = [f"{word} happened {n}" for n in range(size)]
    session = f"w{client.number}"
    items = [
        {"agent_id": namespace, "session_id": session, "type": "action", "content": text}
        for text in texts
    ]
    path, body = (
        ("/v1/memory/episodic", items[0])
        if size == 1
        else ("/v1/memory/episodic/batch", {"items": items})
    )
    return Step("POST", path, body, {place: "\n".join(texts)})


def purge(client: Client, namespace: str) -> Step:
    """The whole namespace goes; nobody else may write to it."""
    changes: dict[Place, Value] = {
        place: None for place in client.ledger.attempts if place.namespace == namespace
    }

    def count(answer: Any) -> None:
        client.told[Place("", "purge", ""), str(client.next_number())] = answer

    return Step("DELETE", f"/memory/{namespace}?confirm={namespace}", None, changes, count)


KINDS: Mapping[str, Callable[[Client, str], Step]] = {
    "entry": entry,
    "state": state,
    "memory": memory,
    "episode": episode,
}


class Unreadable(Exception):
    """An answer that neither shows what is there nor says that nothing is."""


class Reader:
    """Reads places back through a server's answers. Made anew for each look."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._replays: dict[tuple[str, str], dict[str, list[str]]] = {}

    def read(self, place: Place) -> tuple[Value, Any]:
        """What is there, and its version if it has one. Raises `Unreadable`."""
        if place.kind == "entry":
            found = self._get(f"/memory/{place.namespace}/{place.name}")
            return (None, None) if found is None else (found["value"], None)
        if place.kind == "state":
            found = self._get(f"/v1/state/{place.namespace}?session_id={quote(place.name)}")
            return (None, None) if found is None else (found["data"]["data"]["n"], _version(found))
        if place.kind == "memory":
            return self._memories(place), None
        return self._episodes(place), None

    def _memories(self, place: Place) -> Value:
        body = {"agent_id": place.namespace, "query": place.name, "mode": "keyword", "top_k": 50}
        answer = self._answer("POST", "/v1/memory/semantic/search", body)
        texts = sorted(
            f"{one['content']}#{one['metadata']['n']}"
            for one in answer["data"]["results"]
            if one["content"].startswith(f"{place.name} ")
        )
        return "\n".join(texts) or None

    def _episodes(self, place: Place) -> Value:
        session = place.name.partition("e")[0]
        where = (place.namespace, session)
        if where not in self._replays:
            path = f"/v1/memory/episodic/{place.namespace}/sessions/{session}"
            replay: dict[str, list[str]] = {}
            for one in self._answer("GET", path, None)["data"]["episodes"]:
                replay.setdefault(one["content"].partition(" ")[0], []).append(one["content"])
            self._replays[where] = replay
        return "\n".join(self._replays[where].get(place.name, [])) or None

    def _get(self, path: str) -> Any:
        status, answer = self._ask("GET", path, None)
        if status not in (200, 404):
            raise Unreadable(f"answers {status}: {json.dumps(answer)[:200]}")
        return None if status == 404 else answer

    def _answer(self, method: str, path: str, body: Any) -> Any:
        status, answer = self._ask(method, path, body)
        if status != 200:
            raise Unreadable(f"answers {status}: {json.dumps(answer)[:200]}")
        return answer


def _version(found: Any) -> Any:
    return found["data"]["version"]
