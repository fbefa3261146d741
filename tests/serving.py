"""Real servers for the tests: as a process of its own, or in a thread where a test needs its clock.

Nothing here knows what a server answers.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

import botwire_server
from botwire_server.config import Config
from botwire_server.store.driver import sqlite3
from botwire_server.web.app import App, create_app
from botwire_server.web.http.protocol import protocol

PACKAGE_ROOT = Path(botwire_server.__file__).parents[1]
# Generous: other work shares the machine. Nothing waits this long when all is well.
PATIENCE = 30.0

JSON = {"Content-Type": "application/json"}


def until(holds: Callable[[], Any], what: str, *, seconds: float = PATIENCE) -> Any:
    """Wait until `holds()` is true; what it returned."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        result = holds()
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds} s")


def environment(**more: str) -> dict[str, str]:
    """This process's environment, without what would steer a server or a client."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("BOTWIRE", "PYTHONPATH"))
    }
    return kept | {"PYTHONDONTWRITEBYTECODE": "1"} | more


def command(*arguments: str, root: Path = PACKAGE_ROOT, **variables: str) -> dict[str, Any]:
    """The arguments for `subprocess` that run `botwire-server` from the package in `root`."""
    return {
        "args": [sys.executable, "-m", "botwire_server", *arguments],
        "env": environment(PYTHONPATH=str(root), **variables),
        "cwd": "/",
    }


class Server:
    """`botwire-server serve` as a process: start, stop, kill, start again on the same data."""

    def __init__(self, directory: Path, *options: str, root: Path = PACKAGE_ROOT) -> None:
        self.data = directory / "data"
        self.options = options
        self.root = root
        self.url = ""
        self.process: subprocess.Popen[bytes]
        self._directory = directory
        self._starts = 0

    def start(self) -> Server:
        """Start, and wait until it says where it listens."""
        self._starts += 1
        with open(self._out, "wb") as out, open(self._err, "wb") as err:
            self.process = subprocess.Popen(
                **command(
                    "serve",
                    "--port",
                    "0",
                    "--data-dir",
                    str(self.data),
                    *self.options,
                    root=self.root,
                ),
                stdout=out,
                stderr=err,
            )
        self.url = until(self._address, "the server started")
        return self

    def _address(self) -> str:
        said = self._out.read_text()
        found = re.search(r'(?:address +|"addresses":\[")((?:http|unix):[^\s"]+).*\n', said)
        if found:
            return found[1]
        code = self.process.poll()
        if code is not None:
            raise AssertionError(f"the server did not start, exit code {code}: {self.log}")
        return ""

    def stop(self) -> int:
        """SIGTERM, and wait; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> Server:
        """Stop, and start again over the same data."""
        self.stop()
        return self.start()

    def end(self) -> None:
        """Be gone, whatever state it is in."""
        if hasattr(self, "process") and self.process.poll() is None:
            self.kill()

    def limit_file_size(self, size: int | None) -> None:
        """Let no file grow beyond `size` from now on, as a full disk would; None lifts it."""
        pid, what = self.process.pid, resource.RLIMIT_FSIZE
        _, hard = resource.prlimit(pid, what)
        resource.prlimit(pid, what, (hard if size is None else size, hard))

    @property
    def rss(self) -> int:
        """Resident bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()

    def settled_rss(self) -> int:
        """Resident bytes once it does not load anything any more."""
        seen = [0]

        def settled() -> bool:
            time.sleep(0.5)
            seen.append(self.rss)
            return abs(seen[-1] - seen[-2]) < 500_000

        until(settled, "the server has loaded what it loads")
        return seen[-1]

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        url = httpx.URL(self.url)
        assert url.port is not None
        return url.host, url.port

    @property
    def banner(self) -> str:
        """What the start printed."""
        return self._out.read_text()

    @property
    def log(self) -> str:
        """What it logged since it was last started."""
        return self._err.read_text()

    @property
    def _out(self) -> Path:
        return self._directory / f"out-{self._starts}.txt"

    @property
    def _err(self) -> Path:
        return self._directory / f"err-{self._starts}.txt"


class Running:
    """A server that somebody else started."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def address(self) -> tuple[str, int]:
        """For tests that speak to a socket, where no key is sent."""
        pytest.skip("speaks without a key")


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 1_790_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class InProcess:
    """The whole server in a thread of this process, for its clock or its constants."""

    def __init__(
        self, data: Path, *, clock: Callable[[], float] = time.time, app: Any = None, **options: Any
    ) -> None:
        self.config = Config(data_dir=data, port=0, **options)
        self.app: App = create_app(self.config, clock=clock)
        served = self.app if app is None else app(self.app)
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                served,
                host="127.0.0.1",
                port=0,
                http=protocol(self.app.refuse),
                ws="none",
                lifespan="on",
                loop="uvloop",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                timeout_graceful_shutdown=10,
            )
        )
        self._thread = threading.Thread(target=self._uvicorn.run, daemon=True)

    def __enter__(self) -> InProcess:
        self._thread.start()
        until(lambda: self._uvicorn.started or not self._thread.is_alive(), "the server started")
        assert self._uvicorn.started, self.app.failure
        self.address = self._uvicorn.servers[0].sockets[0].getsockname()[:2]
        self.url = f"http://127.0.0.1:{self.address[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextmanager
def connected(address: tuple[str, int], *, timeout: float = PATIENCE) -> Iterator[socket.socket]:
    """A bare TCP connection to a server."""
    with closing(socket.create_connection(address, timeout=timeout)) as connection:
        yield connection


def received(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    parts = []
    while True:
        try:
            part = connection.recv(65_536)
        except ConnectionResetError:
            part = b""
        if not part:
            return b"".join(parts)
        parts.append(part)


def exchange(address: tuple[str, int], *parts: bytes | str, pause: float = 0.0) -> bytes:
    """Send bytes on a connection of their own; everything that comes back until it is closed."""
    with connected(address) as connection:
        for part in parts:
            connection.sendall(part.encode() if isinstance(part, str) else part)
            time.sleep(pause)
        return received(connection)


def request(
    method: str, path: str, body: bytes = b"", *, close: bool = True, **headers: str | None
) -> bytes:
    """A request as bytes. Header names are given with `_` for `-`; None leaves one away."""
    fields: dict[str, str | None] = {"Host": "localhost"}
    if body:
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    if close:
        fields["Connection"] = "close"
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def status_of(answer: bytes) -> int:
    """The status of an answer that came as bytes; 0 for none."""
    return int(answer.split(b" ", 2)[1]) if answer else 0


def namespace_files(data: Path) -> list[Path]:
    """The database files of all namespaces."""
    return sorted(data.glob("tenants/*/*.db"))


def query(path: Path, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Ask a database file, past the server."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql, parameters).fetchall()


def run_client(url: str, code: str, **variables: str) -> str:
    """Run code that uses the `botwire` client in a process of its own; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(BOTWIRE_URL=url, **variables),
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
