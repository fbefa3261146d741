"""What systemd is told of a service of `Type=notify`: that it is ready, lives, and ends.

Nobody told of it, nothing is said: the variables name who listens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import MutableMapping
from typing import Self

log = logging.getLogger(__name__)


class Notifier:
    """Tells whoever listens at `path` (with `@`: an abstract socket); None is nobody.

    `pulse` is after how many seconds a sign of life is due, 0 for never.
    """

    def __init__(self, path: str | None, *, pulse: float = 0.0) -> None:
        self._path = path
        self._pulse = pulse
        self._beating: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> Self:
        """The one that the environment names; what names it is taken out for those we start."""
        path = environment.pop("NOTIFY_SOCKET", "")
        due = environment.pop("WATCHDOG_USEC", "")
        of_whom = environment.pop("WATCHDOG_PID", str(os.getpid()))
        if not path.startswith(("/", "@")):
            return cls(None)
        watched = due.isdecimal() and of_whom == str(os.getpid())
        return cls(path, pulse=int(due) / 1_000_000 if watched else 0.0)

    def ready(self, status: str) -> None:
        """It serves. From now on signs of life come from the running loop."""
        self._send(f"READY=1\nSTATUS={status}\nMAINPID={os.getpid()}")
        if self._path is not None and self._pulse:
            self._beating = asyncio.create_task(self._beat())

    async def stopping(self) -> None:
        """It ends, and gives no more signs of life."""
        self._send("STOPPING=1\nSTATUS=finishing what is under way")
        if self._beating is not None:
            self._beating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._beating

    async def _beat(self) -> None:
        while True:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self._pulse / 2)

    def _send(self, text: str) -> None:
        if self._path is None:
            return
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto(text.encode(), address)
        except OSError as error:
            log.warning("the service manager was not told: %s", os.strerror(error.errno or 0))
