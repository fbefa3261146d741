"""How long a thread keeps a core while others wait for one: where it works long, longer.

Who asks for long turns comes later to each of them. So the event loop, and whoever waits for its
answers, is soon on again where a search keeps a core busy, and the search gets as much of it as
before. Linux does so since 6.12 (the slice of `sched_setattr(2)`); elsewhere nothing happens.
"""

from __future__ import annotations

import platform
import struct
import sys
from functools import cache
from importlib import import_module
from typing import Any

LONG_TURN_NS = 10_000_000

# The number of sched_setattr; sched_getattr has the next.
_NUMBERS = {"x86_64": 314, "aarch64": 274}
_SET, _GET = 0, 1
# struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period.
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
_POLICY, _RUNTIME = 1, 5
_SCHED_OTHER = 0


def take_long_turns() -> None:
    """Ask for long turns for the calling thread, where there is such a thing."""
    found = _attributes()
    # Another policy than the usual one is the operator's choice; so is how nice it is, and stays.
    if found is not None and found[_POLICY] == _SCHED_OTHER:
        found[_RUNTIME] = LONG_TURN_NS
        _call(_SET, bytearray(_ATTRIBUTES.pack(*found)), 0)


def turn_ns() -> int | None:
    """How long the turns of the calling thread are, in nanoseconds; None where nobody says."""
    found = _attributes()
    return None if found is None else found[_RUNTIME]


def _attributes() -> list[int] | None:
    room = bytearray(_ATTRIBUTES.size)
    return list(_ATTRIBUTES.unpack(room)) if _call(_GET, room, len(room), 0) else None


def _call(which: int, room: bytearray, *arguments: int) -> bool:
    """A system call for the calling thread; False where it is unknown or forbidden."""
    ctypes = _ctypes()
    number = _NUMBERS.get(platform.machine()) if sys.platform == "linux" else None
    if ctypes is None or number is None:
        return False
    place = (ctypes.c_char * len(room)).from_buffer(room)
    return bool(ctypes.CDLL(None).syscall(number + which, 0, place, *arguments) == 0)


@cache
def _ctypes() -> Any:
    """The module; None in a Python that was built without libffi."""
    try:
        return import_module("ctypes")
    except ImportError:
        return None
