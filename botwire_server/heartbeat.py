"""How long the event loop stands, measured; and where, said by a thread that goes on meanwhile.

While the loop stands nobody is served. The loop owes itself a beat every few milliseconds; how late
a beat comes is counted. Where none comes for a second, a line in the log says which functions the
loop's thread is in: files, lines and names of functions, never a value.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from botwire_server.metrics import LoopCounters

log = logging.getLogger(__name__)

BEAT_EVERY = 0.025
# A loop that stands for so long is looked at.
STALL_SECONDS = 1.0
LOOK_EVERY = 0.2
# Functions that are named, the innermost first.
MOST_FRAMES = 16


class Heartbeat:
    """Watches the loop it is started on, until it is stopped."""

    def __init__(self, counters: LoopCounters) -> None:
        self._counters = counters
        self._stopped = threading.Event()
        self._due = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread_id = threading.get_ident()
        self._owe()
        threading.Thread(target=self._watch, name="heartbeat", daemon=True).start()

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped.set()
        if self._handle is not None:
            self._handle.cancel()

    def _owe(self) -> None:
        self._due = time.monotonic() + BEAT_EVERY
        self._handle = asyncio.get_running_loop().call_later(BEAT_EVERY, self._beat)

    def _beat(self) -> None:
        late = max(0.0, time.monotonic() - self._due)
        self._counters.stood(late, stalled=late >= STALL_SECONDS)
        if late >= STALL_SECONDS:
            log.error("the event loop stood for %.1f s", late)
        self._owe()

    def _watch(self) -> None:
        told = 0.0
        while not self._stopped.wait(LOOK_EVERY):
            due = self._due
            if due != told and time.monotonic() - due >= STALL_SECONDS:
                told = due
                frame = sys._current_frames().get(self._thread_id)
                log.error("the event loop has stood for over a second, in: %s", where(frame))


def where(frame: FrameType | None) -> str:
    """The functions a thread is in, the innermost first."""
    named: list[str] = []
    while frame is not None and len(named) < MOST_FRAMES:
        code = frame.f_code
        file = "/".join(Path(code.co_filename).parts[-2:])
        named.append(f"{code.co_name} ({file}:{frame.f_lineno})")
        frame = frame.f_back
    return " < ".join(named)
