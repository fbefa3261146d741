"""Restores a backup over copies of a data directory, and dies at the first step, the second, ...

    python dying.py DATA DEST COPIES

A step is a call that changes what is on the disk. Prints how many there are; COPIES/0, COPIES/1 ...
is what a kill -9 right before each has left. Where a copy ends with a decided restore, finishing it
is killed at each of its steps as well: COPIES/N-0, COPIES/N-1, ...
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from botwire_server.store import swap
from botwire_server.store.backups import restore_everything
from botwire_server.store.places import Directory

STEPS = ("rename", "fsync", "unlink", "rmdir", "mkdir", "link")


def dies_at(step: int, action: Callable[[], object]) -> int | None:
    """Run `action` in a process that is killed at a step; None, or how many steps there were."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        taken = 0

        def counting(original: Callable[..., object]) -> Callable[..., object]:
            def call(*args: object, **more: object) -> object:
                nonlocal taken
                if taken == step:
                    os.kill(os.getpid(), signal.SIGKILL)
                taken += 1
                return original(*args, **more)

            return call

        for name in STEPS:
            setattr(os, name, counting(getattr(os, name)))
        try:
            action()
            os.write(writer, str(taken).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        told = answer.read()
    _, status = os.waitpid(child, 0)
    assert bool(told) != os.WIFSIGNALED(status)
    return int(told) if told else None


def main() -> None:
    """Die at every step there is."""
    data, dest, copies = map(Path, sys.argv[1:])

    def restore(copy: Path) -> Callable[[], object]:
        return lambda: restore_everything(
            Directory(dest), copy, generation=None, progress=lambda done, total: None
        )

    decided = []
    steps = None
    number = 0
    while steps is None:
        copy = copies / str(number)
        shutil.copytree(data, copy)
        steps = dies_at(number, restore(copy))
        if swap.is_due(copy):
            decided.append(copy)
        number += 1
    # All that were cut short after the decision end in the same: the first has most left to do.
    again = None
    number = 0
    while again is None:
        copy = copies / f"{decided[0].name}-{number}"
        shutil.copytree(decided[0], copy)
        again = dies_at(number, lambda copy=copy: swap.finish(copy))
        number += 1
    print(steps, len(decided), again)


main()
