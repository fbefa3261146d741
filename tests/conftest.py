"""Servers and clients that many tests share. A test that changes a server starts its own."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import botwire
import httpx
import pytest
from clear import keys_in
from serving import Running, Server

# They have requirements and environments of their own; see scripts/test-frameworks.
collect_ignore = ["frameworks"]

_numbers = itertools.count(1)

# Every httpx client makes a TLS context, which takes 30 ms, and nothing here speaks TLS.
_context = ssl.create_default_context()
httpx._transports.default.create_ssl_context = lambda *_, **__: _context


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine function that is a test."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    asyncio.run(pyfuncitem.obj(**arguments))
    return True


MakeServer = Callable[..., Server]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server | Running]:
    """A server that all tests share: use `ns` for a namespace of one's own.

    `TEST_SERVER_URL` is that of one which runs already; a key may stand in it.
    """
    url = os.environ.get("TEST_SERVER_URL")
    if url is not None:
        yield Running(url)
        return
    server = Server(tmp_path_factory.mktemp("shared"))
    try:
        yield server.start()
    finally:
        server.end()


@pytest.fixture(scope="session")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a shared server with `--profile hosted`."""
    server = Server(tmp_path_factory.mktemp("hosted"), "--profile", "hosted")
    try:
        server.start()
        with httpx.Client(base_url=server.url, timeout=30) as client:
            yield client
    finally:
        server.end()


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    """Makes servers that are gone after the test: `make_server("--option", ..., started=True)`."""
    servers: list[Server] = []

    def make(*options: str, started: bool = True, **more: Path) -> Server:
        directory = tmp_path / f"server-{len(servers)}"
        directory.mkdir()
        server = Server(directory, *options, **more)
        servers.append(server)
        return server.start() if started else server

    yield make
    for server in servers:
        server.end()


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    """An HTTP client of the shared server."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


@pytest.fixture
def ns() -> str:
    """A namespace nobody else uses."""
    return f"ns-{next(_numbers)}"


@pytest.fixture
def memory(server: Server) -> Iterator[Callable[..., botwire.Memory]]:
    """Makes clients of the `botwire` package for the shared server."""
    with ExitStack() as stack:

        def make(namespace: str, url: str = server.url) -> botwire.Memory:
            made = botwire.Memory(namespace, base_url=url)
            stack.callback(made._client.close)
            return made

        yield make


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With a server that runs already, no other is started."""
    if "TEST_SERVER_URL" in os.environ:
        others = {"make_server", "hosted"}
        left_out = [
            item for item in items if others.intersection(getattr(item, "fixturenames", ()))
        ]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """No key lies about in clear in what the tests of all workers left."""
    if hasattr(session.config, "workerinput"):  # whoever started the workers looks
        return
    base = session.config._tmp_path_factory.getbasetemp()
    found = keys_in(base)
    if found:
        lines = "\n".join(found[:20])
        print(f"\n{len(found)} keys lie about in clear below {base}:\n{lines}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
