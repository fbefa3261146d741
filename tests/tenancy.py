"""Servers with keys for the tests of tenants: a server, its operator, and everybody's keys."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import InProcess, Server, command

from botwire_server.cli import main
from botwire_server.cli.common import operate

KEY_SHAPE = r"bw_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}"


def first_key(server: Server) -> str:
    """The key that a first start beyond this machine made, where nobody looked on."""
    path = server.data / "first-key"
    assert path.stat().st_mode & 0o777 == 0o600
    [key] = re.findall(rf"^{KEY_SHAPE}$", path.read_text().rstrip("\n"))
    return str(key)


def operator_of(data: Path, action: Callable[[Any], Any]) -> Any:
    """What the command line does, without a process of its own: `action(operator)`."""
    return operate(data, None, action, make=True)


def make_tenant(data: Path, name: str, *, tier: str = "unlimited") -> str:
    """Make a tenant and give it a key; the key."""
    operator_of(data, lambda it: it.create_tenant(name, tier=tier))
    return str(operator_of(data, lambda it: it.create_key(name))["key"])


def cli(
    data: Path, *arguments: Any, expect: int = 0, input: str = "", process: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command of the operator, in a process of its own where that matters."""
    full = [*arguments, "--data-dir", str(data)]
    run = _in_process_of_its_own if process else _here
    done = run(full, input)
    assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def _in_process_of_its_own(arguments: list[Any], input: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        **command(*arguments), input=input, capture_output=True, text=True, timeout=60, check=False
    )


def _here(arguments: list[Any], input: str) -> subprocess.CompletedProcess[str]:
    """The console script's own function: starting a Python takes longer than all it does."""
    code = 0
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["botwire-server", *map(os.fsdecode, arguments)])
        patch.setattr(sys, "stdin", io.StringIO(input))
        with redirect_stdout(out), redirect_stderr(err):
            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def cli_json(data: Path, *arguments: str, **more: Any) -> Any:
    """The same with --json; what it printed."""
    return json.loads(cli(data, *arguments, "--json", **more).stdout)


def basic(user: str, password: str = "") -> dict[str, str]:
    """The header that a URL's user-info becomes."""
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}


def bearer(key: str) -> dict[str, str]:
    """The usual header of a key."""
    return {"Authorization": f"Bearer {key}"}


class Keyed(InProcess):
    """A server that requires keys, in this process, with an operator's key of its own.

    It answers as many keys that do not work as a test shows it, if not told `most_failures`.
    """

    def __init__(
        self,
        data: Path,
        *,
        clock: Callable[[], float] = time.time,
        most_failures: int = 1_000_000,
        **options: Any,
    ) -> None:
        self.data = data
        self.operator_key = str(operator_of(data, lambda it: it.create_key(None))["key"])
        self._clients = ExitStack()
        super().__init__(data, clock=clock, **options)
        self.app.failures.most = most_failures

    def __exit__(self, *exc: object) -> None:
        self._clients.close()
        super().__exit__(*exc)

    @property
    def bare(self) -> httpx.Client:
        """A client that presents nothing."""
        if not hasattr(self, "_bare"):
            self._bare = self.client()
        return self._bare

    def client(self, key: str | None = None, **headers: str) -> httpx.Client:
        """A client that presents this key."""
        presented = {} if key is None else bearer(key)
        return self._clients.enter_context(
            httpx.Client(base_url=self.url, headers=presented | headers, timeout=30)
        )

    def admin(self, method: str, path: str, *, expect: int = 0, **body: Any) -> Any:
        """A request of the operator; the answer."""
        if not hasattr(self, "_admin"):
            self._admin = self.client(self.operator_key)
        answer = self._admin.request(
            method, f"/admin/v1{path}", json=body if method in ("POST", "PATCH") else None
        )
        assert answer.status_code == expect if expect else answer.is_success, answer.text
        return answer.json()

    def tenant(self, name: str, **options: Any) -> str:
        """Make a tenant and give it a key; the key."""
        self.admin("POST", "/tenants", name=name, **options)
        return str(self.key(name)["key"])

    def key(self, tenant: str, **options: Any) -> dict[str, Any]:
        """A key of a tenant, as the operator API tells it."""
        made: dict[str, Any] = self.admin("POST", f"/tenants/{tenant}/keys", **options)
        return made


def shown(answer: httpx.Response) -> tuple[int, list[tuple[str, str]], bytes]:
    """Everything of an answer that two of the same kind must share."""
    request_id = answer.headers["x-request-id"].encode()
    headers = [
        (name, value)
        for name, value in answer.headers.multi_items()
        if name not in ("date", "x-request-id")
    ]
    content = answer.content.replace(request_id, b"REQUEST-ID")
    content = re.sub(rb'"latency_ms":[0-9.e-]+', b'"latency_ms":0', content)
    # Usage tells everybody of their own key and calls.
    content = re.sub(rb'"(api_calls\w*)":[0-9]+', rb'"\1":0', content)
    content = re.sub(rb'"keys":\[\{"id":"\w+"', b'"keys":[{"id":"-"', content)
    # What was just made has an id of its own; that it is made where the asker may is shown
    # elsewhere.
    if answer.request.method == "POST":
        content = re.sub(rb'"(id|semantic_memory_id)":"[^"]*"', b'"id":"-"', content)
        headers = [(name, value) for name, value in headers if name != "content-length"]
        content = re.sub(rb"said number [0-9]+", b"said number N", content)
    elif b'"latency_ms"' in content:
        headers = [(name, value) for name, value in headers if name != "content-length"]
    return answer.status_code, headers, content


def files_with(data: Path, *needles: str | bytes) -> Iterator[str]:
    """The names of all files below `data` that hold, or are called by, one of these."""
    for path in sorted(data.rglob("*")):
        try:
            content = path.read_bytes() if path.is_file() else b""
        except FileNotFoundError:
            continue
        for needle in needles:
            raw = needle.encode() if isinstance(needle, str) else needle
            if raw in content or raw in str(path.relative_to(data)).encode():
                yield f"{path.relative_to(data)}: {raw!r}"
