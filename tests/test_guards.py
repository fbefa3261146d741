"""The guards that matter most, each run against a server that keeps its promise and one in which
the fault is planted. What catches nothing there would catch nothing here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import pytest
from serving import Server, namespace_files, query

from harness.planted import Fault, planted


def isolation(server: Server) -> None:
    """What one namespace stores, no other shows."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        client.put("/memory/tenant-a/secret", json={"value": "of a"})
        client.put("/memory/tenant-b/own", json={"value": "of b"})
        assert client.get("/memory/tenant-b/secret").status_code == 404
        assert client.get("/memory/tenant-b").json()["keys"] == ["own"]
        assert client.delete("/memory/tenant-b/secret").status_code == 404
        assert client.get("/memory/tenant-a/secret").json()["value"] == "of a"


def committed_when_answered(server: Server) -> None:
    """Whoever asks the file after the answer finds the entry."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for number in range(50):
            client.put("/memory/ns/k", json={"value": number})
            [file] = namespace_files(server.data)
            found = query(file, "SELECT CAST(value AS TEXT) FROM entries")
            assert found == [(str(number),)]


def survives_kill(server: Server) -> None:
    """What was acknowledged is there after kill -9."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for number in range(20):
            assert client.put(f"/memory/ns/k{number}", json={"value": "v"}).status_code == 200
    server.kill()
    server.start()
    assert len(httpx.get(f"{server.url}/memory/ns").json()["keys"]) == 20


def quota(server: Server) -> None:
    """Of many writers at once, exactly as many are accepted as the day has."""
    accepted: list[int] = []

    def write(who: int) -> None:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            for number in range(6):
                answer = client.put(f"/memory/ns/{who}-{number}", json={"value": "v"})
                accepted.append(answer.status_code)

    threads = [threading.Thread(target=write, args=(who,)) for who in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert accepted.count(200) == 20
    assert len(httpx.get(f"{server.url}/memory/ns").json()["keys"]) == 20


def compare_and_set(server: Server) -> None:
    """A condition that no longer holds refuses the write."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        old = client.put("/memory/ns/k", json={"value": "1"}).headers["etag"]
        client.put("/memory/ns/k", json={"value": "2"})
        client.put("/memory/ns/k", json={"value": "3"}, headers={"If-Match": old})
        assert client.get("/memory/ns/k").json()["value"] == "2"


def purged_for_good(server: Server) -> None:
    """A purge leaves no file."""
    with httpx.Client(base_url=server.url, timeout=30) as client:
        client.put("/memory/ns/k", json={"value": "v"})
        assert client.delete("/memory/ns?confirm=ns").status_code == 200
    assert not list(server.data.glob("tenants/*/*"))


def no_web_page(server: Server) -> None:
    """A page of somebody else reads and writes nothing."""
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        answer = httpx.put(f"{server.url}/memory/ns/k", json={"value": "v"}, headers=headers)
        assert answer.status_code in (403, 421)


def silent_log(server: Server) -> None:
    """The log does not name what is stored."""
    httpx.put(f"{server.url}/memory/Zanzibar/k", json={"value": "v"})
    server.stop()
    assert "Zanzibar" not in server.log


@dataclass(frozen=True)
class Guard:
    check: Callable[[Server], None]
    fault: Fault
    options: tuple[str, ...] = ()


GUARDS = {
    "isolation": Guard(
        isolation,
        Fault(
            "store/registry.py",
            'WHERE tenant_id = ? AND name = ?",\n            tenant_id,\n            name,\n',
            'WHERE tenant_id = ? LIMIT 1",\n            tenant_id,\n',
        ),
    ),
    "committed when answered": Guard(
        committed_when_answered,
        Fault(
            "store/database.py",
            "                self._send(self._commit_on_thread, batch)\n                return\n",
            "                self._deliver(batch)\n"
            "                later = self._loop.call_later\n"
            "                later(0.2, self._send, self._commit_on_thread, batch)\n"
            "                self._away = True\n"
            "                return\n",
        ),
    ),
    "survives kill -9": Guard(
        survives_kill,
        Fault(
            "store/database.py",
            'self._commit = "COMMIT" if keep else "ROLLBACK"',
            'self._commit = "ROLLBACK"',
        ),
    ),
    "quota": Guard(
        quota,
        Fault(
            "store/namespace.py",
            "if limits.daily_writes and writes > limits.daily_writes:",
            "if limits.daily_writes and writes > limits.daily_writes + 1:",
        ),
        ("--daily-writes", "20"),
    ),
    "a write of the day is counted": Guard(
        quota,
        Fault(
            "store/namespace.py",
            "writes = CASE WHEN ?1 > day THEN 1 ELSE writes + 1 END RETURNING writes",
            "writes = CASE WHEN ?1 > day THEN 1 ELSE writes END RETURNING writes",
        ),
        ("--daily-writes", "20"),
    ),
    "compare and set": Guard(
        compare_and_set,
        Fault(
            "store/entries.py",
            "if condition is not None and not condition(get(connection, key)):",
            "if condition is not None and not condition(None) and False:",
        ),
    ),
    "a purge unlinks": Guard(
        purged_for_good,
        Fault(
            "store/pool.py",
            "path.with_name(name).unlink(missing_ok=True)",
            "path.with_name(name)",
        ),
    ),
    "no web page": Guard(
        no_web_page,
        Fault(
            "web/auth.py",
            'raise ForeignOrigin("This server does not answer web pages of other origins.")',
            "pass",
        ),
    ),
    "silent log": Guard(
        silent_log,
        Fault(
            "web/app.py",
            '"-" if route is None else route.path,',
            'scope["path"],',
        ),
    ),
}


@pytest.mark.parametrize("name", GUARDS)
def test_the_promise_is_kept(make_server, name):
    guard = GUARDS[name]
    guard.check(make_server(*guard.options))


@pytest.mark.parametrize("name", GUARDS)
def test_the_fault_is_caught(make_server, tmp_path, name):
    guard = GUARDS[name]
    root = planted(tmp_path, guard.fault)
    with pytest.raises(AssertionError):
        guard.check(make_server(*guard.options, root=root))
