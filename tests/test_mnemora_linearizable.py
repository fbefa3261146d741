"""One state document under many clients: linearizable, and the checker sees a lost update.

scripts/linearizable checks many histories of this kind.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from linearizability import Operation, document, linearizable
from serving import InProcess, Server
from state_clients import history

from botwire_server.store import states
from botwire_server.store.units import brief

CLIENTS = 8


def holds(seen: list[Operation]) -> bool:
    return linearizable(seen, document, None)


def test_states_are_linearizable(server: Server, ns: str) -> None:
    for seed in range(3):
        seen = asyncio.run(
            history(server.url, f"{ns}-{seed}", clients=CLIENTS, operations=100, seed=seed)
        )
        assert len(seen) == CLIENTS * 100
        assert any(seen_.answer == "conflict" for seen_ in seen)
        assert holds(seen)


def test_a_planted_lost_update_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update = states.update

    @brief
    def forgetful(connection: Any, session_id: str, data: bytes, **more: Any) -> Any:
        """Takes the last version for the present one, once in a while."""
        present = states.get(connection, session_id)
        if present is not None and present.version % 7 == 0:
            more["version"] += more["version"] == present.version - 1
        return update(connection, session_id, data, **more)

    monkeypatch.setattr(states, "update", forgetful)
    with InProcess(tmp_path / "data") as server:
        seen = asyncio.run(history(server.url, "a", clients=CLIENTS, operations=100, seed=1))
    assert not holds(seen)


def operation(name: str, argument: Any, answer: Any, called: float, returned: float) -> Operation:
    return Operation(name, argument, answer, called, returned)


def test_the_checker_knows_what_can_and_cannot_be() -> None:
    stored = operation("store", "a", 1, 0, 1)
    one = operation("update", ("b", 1), 2, 2, 5)
    other = operation("update", ("c", 1), 2, 3, 6)
    beaten = operation("update", ("c", 1), "conflict", 3, 6)
    assert holds([stored, one, beaten])
    assert not holds([stored, one, other])  # both cannot have come from version 1
    # A read that began before an update returned may see either; one that began after may not.
    assert holds([stored, one, operation("get", None, (1, "a"), 3, 4)])
    assert holds([stored, one, operation("get", None, (2, "b"), 3, 4)])
    assert not holds([stored, one, operation("get", None, (1, "a"), 6, 7)])
    assert holds(
        [stored, operation("delete", None, True, 2, 3), operation("get", None, None, 4, 5)]
    )
    assert not holds([stored, operation("get", None, None, 2, 3)])
    assert not holds([stored, operation("store", "b", 1, 2, 3)])  # it must go on from version 1
