"""What goes out on a connection, as far as the client takes it."""

from __future__ import annotations

import asyncio
import fcntl
import struct
import termios

# A client that took nothing of its answer for so long is given up.
ANSWER_SECONDS = 30.0


class Outgoing:
    """The answers of a connection.

    While the client is behind, `paused` is true and `drained` waits: what makes an answer in
    parts makes no more of them meanwhile. A client that takes nothing at all is abandoned; one
    that is slow and goes on may be as slow as it is.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self.paused = False
        self._transport = transport
        self._loop = loop
        self._writable = asyncio.Event()
        self._written = 0
        self._watching: asyncio.TimerHandle | None = None
        self._ended = False

    @property
    def unsent(self) -> int:
        """Bytes that our system has not taken."""
        return 0 if self._ended else self._transport.get_write_buffer_size()

    @property
    def taken(self) -> int:
        """Bytes that the client's system has taken."""
        return self._written - self.unsent - self._underway()

    def _underway(self) -> int:
        """Bytes that our system holds: megabytes, of which it takes more a third at a time."""
        try:
            socket = self._transport.get_extra_info("socket")
            (count,) = struct.unpack("i", fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4)))
        except (OSError, AttributeError):  # another system than Linux, or closed
            return 0
        return int(count)

    def write(self, data: bytes) -> None:
        """Send, or keep until the client takes it."""
        self._written += len(data)
        self._transport.write(data)

    def pause(self) -> None:
        """The client is behind."""
        self.paused = True
        self._writable.clear()
        self.watch()

    def resume(self) -> None:
        """It has taken most of it."""
        self.paused = False
        self._writable.set()

    async def drained(self) -> None:
        """Wait until the client has taken most of what was sent, or is gone."""
        if self.paused:
            await self._writable.wait()

    def watch(self) -> None:
        """See to it that what is unsent is taken, or the client given up."""
        if self._watching is None and self.unsent:
            self._look(None)

    def end(self) -> None:
        """The connection is gone."""
        self._ended = True
        self.resume()
        if self._watching is not None:
            self._watching.cancel()

    def _look(self, taken_before: int | None) -> None:
        self._watching = None
        if not self.unsent:
            return
        taken = self.taken
        if taken == taken_before:
            self._transport.abort()
        else:
            self._watching = self._loop.call_later(ANSWER_SECONDS, self._look, taken)
