"""A `botwire-server serve` process on a free port of this machine."""

from __future__ import annotations

import http.client
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from harness import CHECKOUT

START_SECONDS = 30


class ServerProcess:
    """A running server; leaving the `with` block ends it.

    `package` is the directory that holds the `botwire_server` to run: this checkout, or a copy
    with a planted fault. `descriptors` is its limit of open files.
    """

    def __init__(
        self,
        data_dir: Path,
        *options: str,
        package: Path = CHECKOUT,
        log_level: str = "warning",
        descriptors: int | None = None,
        log: Path | None = None,
        more_environment: Mapping[str, str] | None = None,
    ) -> None:
        # A setting of whoever runs this must not change what is tested.
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("BOTWIRE_SERVER_")
        }
        environment["PYTHONPATH"] = str(package)
        environment |= more_environment or {}
        command = [sys.executable, "-m", "botwire_server", "serve", "--port", "0"]
        command += ["--data-dir", str(data_dir), "--log-level", log_level, *options]
        errors = None if log is None else log.open("ab")
        try:
            self._process = subprocess.Popen(
                command,
                env=environment,
                cwd=package,
                stdout=subprocess.PIPE,
                stderr=errors,
                preexec_fn=None if descriptors is None else _limit(descriptors),
            )
        finally:
            if errors is not None:
                errors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    port = 0

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Wait until it serves `port`. Raises `RuntimeError` if it does not start."""
        watchdog = threading.Timer(START_SECONDS, self.kill)
        watchdog.start()
        assert self._process.stdout is not None
        try:
            for line in self._process.stdout:
                if found := re.search(rb"address +http://\S+:(\d+)", line):
                    self.port = int(found[1])
                    return
        finally:
            watchdog.cancel()
        raise RuntimeError(f"the server did not start (exit code {self._process.wait()})")

    def connect(self, timeout: float = 30) -> http.client.HTTPConnection:
        """A client's connection to it."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def resident_bytes(self, field: str = "VmRSS") -> int:
        """Its memory, now (`VmRSS`) or at most so far (`VmHWM`)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(rf"{field}:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) * 1024

    def forget_peak(self) -> None:
        """Let `VmHWM` begin anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def kill(self) -> None:
        """kill -9: it gets no chance to finish anything."""
        self._process.kill()
        self._process.wait()

    def wait(self, seconds: float) -> int | None:
        """Its exit code, once it ends; None where it does not within so many seconds."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def stop(self) -> int:
        """SIGTERM, and its exit code; kill -9 where it does not end within 20 s."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code: int = self._process.wait(20)
            return code
        except subprocess.TimeoutExpired:
            self.kill()
            raise RuntimeError("the server did not stop within 20 s of SIGTERM") from None
        finally:
            if self._process.stdout is not None:
                self._process.stdout.close()


def _limit(descriptors: int) -> Callable[[], None]:
    def apply() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))

    return apply


def request(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
) -> tuple[int, bytes]:
    """One request; its status and body."""
    headers: dict[str, str] = {} if body is None else {"Content-Type": "application/json"}
    connection.request(method, path, body=body, headers=headers)
    response = connection.getresponse()
    return response.status, response.read()


def failures(found: Sequence[str], most: int = 10) -> str:
    """A list of what was found wrong, cut short."""
    lines = [f"  {problem}" for problem in found[:most]]
    if len(found) > most:
        lines.append(f"  and {len(found) - most} more")
    return "\n".join(lines)
