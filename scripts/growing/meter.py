"""What a request costs the server: its processor time, and how long another tenant waits."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from harness.server import ServerProcess

# Who waits longer for one answer waits for good.
PATIENCE = 15.0


class Stuck(Exception):
    """The server has not answered; nothing more can be asked of it."""


@dataclass(frozen=True)
class Cost:
    """Processor seconds of one request, the longest that a neighbour waited meanwhile, and the
    status that came of it.
    """

    seconds: float
    stall: float
    status: int


class Meter:
    """Asks a server, while a neighbour of its own asks all the time."""

    def __init__(self, server: ServerProcess, *, key: str, neighbour_key: str) -> None:
        self._server = server
        self._clock = (~server.pid << 3) | 2  # of the process: CPUCLOCK_SCHED
        self.authorization = {"Authorization": f"Bearer {key}"}
        self._neighbour = {"Authorization": f"Bearer {neighbour_key}"}
        self._stalls: list[tuple[float, float]] = []  # when it was asked, and how long it took
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._ask_on, daemon=True)
        self._connection = server.connect(timeout=PATIENCE)
        self._thread.start()

    def close(self) -> None:
        """Let the neighbour rest."""
        self._ended.set()
        self._connection.close()
        self._thread.join()

    def ask(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[int, bytes]:
        """One request that nobody measures. Raises `Stuck`."""
        sent = self.authorization | headers
        if body is not None:
            sent = sent | {"Content-Type": "application/json"}
        try:
            self._connection.request(method.upper(), path, body, sent)
            response = self._connection.getresponse()
            return response.status, response.read()
        except TimeoutError:
            raise Stuck from None
        except OSError:
            # Refused before all of it was sent, and closed.
            self._connection.close()
            return 0, b""

    def cost(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Cost:
        """One request, measured."""
        began, before = time.perf_counter(), self._spent()
        status, _ = self.ask(method, path, body, headers)
        spent = self._spent() - before
        time.sleep(0.004)  # whoever waits has its answer
        waited = [
            min(took, at + took - began) for at, took in self._stalls[-200:] if at + took >= began
        ]
        # A server that stands still works meanwhile; the rest is the machine's.
        return Cost(spent, min(spent, max(waited, default=0.0)), status)

    def _spent(self) -> float:
        return time.clock_gettime(self._clock)

    def _ask_on(self) -> None:
        connection = self._server.connect(timeout=PATIENCE)
        while not self._ended.is_set():
            began = time.perf_counter()
            try:
                connection.request("GET", "/memory/neighbour/k", headers=self._neighbour)
                connection.getresponse().read()
            except OSError:  # the other one finds that out as well
                return
            self._stalls.append((began, time.perf_counter() - began))
            self._ended.wait(0.01)
