"""The `mnemora` client against a real server, sync and async through one face."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from mnemora import MnemoraClient, MnemoraSync
from serving import Server, command

needs_semantic = pytest.mark.skipif(
    importlib.util.find_spec("botwire_server.embedding") is None,
    reason="semantic memory is not in this build",
)


class Async:
    """`MnemoraClient`, each call run to its end, so that one test can drive both clients."""

    def __init__(self, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = MnemoraClient(**options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)
        return lambda *args, **kwargs: self._loop.run_until_complete(method(*args, **kwargs))

    def close(self) -> None:
        """Close the client and its loop."""
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


CLIENTS: dict[str, Callable[..., Any]] = {"sync": MnemoraSync, "async": Async}


def fail(response: httpx.Response, status: int, code: str) -> str:
    """Check a refusal's status and envelope; its message."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error", "meta"}
    assert set(body["error"]) == {"code", "message"}
    assert body["error"]["code"] == code
    assert body["meta"]["request_id"] == response.headers["x-request-id"]
    return str(body["error"]["message"])


def data(response: httpx.Response, status: int = 200) -> Any:
    """Check a success's status and envelope; its data."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"data", "meta"}
    assert body["meta"]["request_id"] == response.headers["x-request-id"]
    assert body["meta"]["latency_ms"] >= 0
    return body["data"]


def tenant_key(server: Server, name: str, *, tier: str = "unlimited") -> str:
    """Make a tenant with a key on a server, as its operator does; the key."""
    _operate(server, "tenants", "create", name, "--tier", tier)
    return str(_operate(server, "keys", "create", name)["key"])


def _operate(server: Server, *arguments: str) -> Any:
    done = subprocess.run(
        **command(*arguments, "--json", "--data-dir", str(server.data)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
