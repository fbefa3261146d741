"""A small linearizability checker (Wing and Gong, with the states seen before left out).

A history is linearizable if every operation can be given one moment between its call and its
return, so that the answers are those of a single thread doing them one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple


class Operation(NamedTuple):
    """What was asked and answered, and when."""

    name: str
    argument: Any
    answer: Any
    called: float
    returned: float


# Given a state and an operation: the state after it, or `IMPOSSIBLE`.
Step = Callable[[Hashable, Operation], Hashable]
IMPOSSIBLE = object()


def linearizable(history: Sequence[Operation], step: Step, initial: Hashable) -> bool:
    """Whether there is such an order."""
    operations = sorted(history, key=lambda operation: operation.called)
    # Where we are: every operation before `first` is done, and those in `ahead`.
    start: tuple[int, frozenset[int], Hashable] = (0, frozenset(), initial)
    seen = {start}
    stack = [start]
    while stack:
        first, ahead, state = stack.pop()
        if first == len(operations):
            return True
        # What was called before anything that is still to be done returned can come next.
        horizon = float("inf")
        for number in range(first, len(operations)):
            operation = operations[number]
            if operation.called > horizon:
                break
            if number in ahead:
                continue
            horizon = min(horizon, operation.returned)
            after = step(state, operation)
            if after is IMPOSSIBLE:
                continue
            done = ahead | {number}
            begin = first
            while begin in done:
                done -= {begin}
                begin += 1
            reached = (begin, done, after)
            if reached not in seen:
                seen.add(reached)
                stack.append(reached)
    return False


def document(state: Hashable, operation: Operation) -> Hashable:
    """A state document: None, or its version and content."""
    name, argument, answer = operation[:3]
    if name == "get":
        after, expected = state, state
    elif name == "store":
        version = 1 if state is None else state[0] + 1  # type: ignore[index]
        after, expected = (version, argument), version
    elif name == "delete":
        after, expected = None, state is not None
    else:
        assert name == "update"
        content, version = argument
        if state is None:
            after, expected = state, "missing"
        elif state[0] != version:  # type: ignore[index]
            after, expected = state, "conflict"
        else:
            after, expected = (version + 1, content), version + 1
    return after if answer == expected else IMPOSSIBLE
