"""Where a server is reached: both families, Unix sockets, passed sockets; what systemd is told."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys

import httpx
import pytest
from serving import PATIENCE, command, environment, until


def health(data, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        **command("health", "--data-dir", str(data), *options),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("host", ["::", "[::]", "localhost"])
def test_both_families_answer_and_health_asks_both(make_server, host):
    server = make_server("--host", host)
    port = httpx.URL(server.url).port
    for place in ("127.0.0.1", "[::1]"):
        assert httpx.get(f"http://{place}:{port}/health").status_code == 200
    done = health(server.data)
    assert (done.returncode, done.stdout.count("\nok") + done.stdout.startswith("ok")) == (0, 2)
    server.stop()
    assert health(server.data).returncode == 1


@pytest.mark.parametrize("taken", [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)])
def test_a_port_that_is_taken_in_one_family_is_refused(make_server, taken):
    host, family = taken
    with socket.create_server((host, 0), family=family) as other:
        port = str(other.getsockname()[1])
        with pytest.raises(AssertionError, match="another process listens there"):
            make_server("--host", "localhost", "--port", port)


def test_a_unix_socket_has_its_mode_and_outlives_a_kill(make_server, tmp_path):
    path = tmp_path / "s.sock"
    server = make_server("--host", f"unix:{path}", "--socket-mode", "600")
    for _ in range(2):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            assert client.get("http://localhost/health").status_code == 200
        assert health(server.data, "--ready").returncode == 0
        server.kill()
        server.start()
    server.stop()
    assert not path.exists()
    path.write_text("precious")
    with pytest.raises(AssertionError, match="is no socket"):
        server.start()
    assert path.read_text() == "precious"


def test_a_passed_socket_is_served_and_systemd_is_told(tmp_path):
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(tmp_path / "notify"))
    told.settimeout(PATIENCE)
    with socket.create_server(("127.0.0.1", 0)) as given:
        port = given.getsockname()[1]
        passer = (
            f"import os, sys; os.dup2({given.fileno()}, 3); os.environ['LISTEN_PID'] = "
            "str(os.getpid()); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
        )
        arguments = command("serve", "--port", "1", "--data-dir", str(tmp_path / "data"))
        arguments["args"] = [sys.executable, "-c", passer, *arguments["args"][1:]]
        arguments["env"] |= environment(
            LISTEN_FDS="1", NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="200000"
        )
        process = subprocess.Popen(
            **arguments,
            close_fds=False,
            preexec_fn=lambda: os.set_inheritable(given.fileno(), True),
        )
    try:
        assert told.recv(4096).startswith(b"READY=1\n")
        assert [told.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
        process.terminate()
        until(lambda: told.recv(4096).startswith(b"STOPPING=1"), "it says that it ends")
    finally:
        process.kill()
        process.wait()
        told.close()
