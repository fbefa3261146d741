"""nginx of this machine before a server, with the site of docs/deploy but for TLS and addresses.

Where there is none it is installed, if this user may.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import CHECKOUT

SITE = CHECKOUT / "docs" / "deploy" / "nginx.conf"
START_SECONDS = 20


def found() -> str:
    """Where nginx is; installed where it is missing. Raises `RuntimeError`."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    there = shutil.which("nginx", path=path)
    if there is None and os.geteuid() == 0 and shutil.which("apt-get"):
        wait = ("-o", "DPkg::Lock::Timeout=300")
        quiet = {"check": False, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["apt-get", *wait, "-q", "update"], **quiet)  # type: ignore[call-overload]
        subprocess.run(["apt-get", *wait, "-qy", "install", "nginx-light"], **quiet)  # type: ignore[call-overload]
        there = shutil.which("nginx", path=path)
    if there is None:
        raise RuntimeError("nginx is missing: on Debian, apt install nginx-light")
    return there


def configuration(directory: Path, *, port: int, server: int) -> str:
    """The documented site as a whole configuration: it listens on `port`, asks `server`."""
    site = re.sub(r"(?m)^ *(ssl_|listen \[).*\n", "", SITE.read_text())
    site = site.replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
    site = site.replace("127.0.0.1:8000", f"127.0.0.1:{server}")
    paths = "\n".join(
        f"{name}_temp_path {directory}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # whose directories these are
    return (
        f"{user} daemon off; pid {directory}/pid; error_log {directory}/error.log;\nevents {{}}\n"
        f"http {{ access_log off; {paths}\n{site}\n}}\n"
    )


@contextmanager
def in_front_of(server: int, directory: Path) -> Iterator[int]:
    """Run it; the port it listens on."""
    program = found()
    directory.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    file = directory / "nginx.conf"
    file.write_text(configuration(directory, port=port, server=server))
    process = subprocess.Popen(
        [program, "-p", str(directory), "-c", str(file)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(process, port)
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    over = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < over:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("nginx does not start")
