"""Debian's Caddy and nginx before a server, set up by the documented files.

All that is changed in them are addresses, names and TLS, which a test has none of; and each request
that a proxy passes on gets an `X-Request-ID` of the proxy's: a request without was in another one.
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

DEPLOY = CHECKOUT / "docs" / "deploy"
PACKAGES = {"caddy": "caddy", "nginx": "nginx-light", "java": "openjdk-17-jdk-headless"}
START_SECONDS = 20

NGINX = "nginx"
CADDY = "caddy"
# With the lines that every guide to WebSockets has.
NGINX_UPGRADING = "nginx with WebSocket lines"
# With a cache that everybody shares.
NGINX_CACHING = "nginx with a shared cache"
ALL = (NGINX, CADDY, NGINX_UPGRADING)


class Missing(Exception):
    """A program is not here and cannot be installed."""


def require(*programs: str) -> None:
    """Install what is missing, where this user may. Raises `Missing`."""
    missing = [PACKAGES[program] for program in programs if _found(program) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Missing(f"needs {', '.join(missing)}: on Debian, apt install {' '.join(missing)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    for command in ([*apt, "update"], [*apt, "-y", "install", *missing]):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        if done.returncode:
            raise Missing(f"{' '.join(command)} failed: {done.stderr.strip()[-300:]}")


def _found(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/bin")


@contextmanager
def proxy(kind: str, upstream: int, directory: Path) -> Iterator[int]:
    """Run one before the server at the port `upstream`; the port of its own."""
    directory.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start = _caddy if kind == CADDY else _nginx
    with (directory / "log").open("wb") as log:
        process = start(kind, port, upstream, directory, log.fileno())
    try:
        _wait(process, port, directory)
        yield port
    finally:
        process.terminate()
        process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, directory: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"the proxy did not start: {(directory / 'log').read_text()[-500:]}")


def _caddy(
    kind: str, port: int, upstream: int, directory: Path, log: int
) -> subprocess.Popen[bytes]:
    site = (DEPLOY / "Caddyfile").read_text()
    site = site.replace("memory.example.com {", f"http://:{port} {{\n\tbind 127.0.0.1", 1)
    passing = f"reverse_proxy 127.0.0.1:{upstream} {{\n"
    site = site.replace(
        "reverse_proxy 127.0.0.1:8000 {\n",
        passing + "\t\theader_up X-Request-ID passed-{http.request.uuid}\n",
    )
    file = directory / "Caddyfile"
    file.write_text("{\n\tadmin off\n\tauto_https off\n}\n" + site)
    environment = os.environ | {"HOME": str(directory), "XDG_DATA_HOME": str(directory)}
    command = [_found("caddy") or "caddy", "run", "--config", str(file)]
    return subprocess.Popen(
        [*command, "--adapter", "caddyfile"], env=environment, stdout=log, stderr=log
    )


def _nginx(
    kind: str, port: int, upstream: int, directory: Path, log: int
) -> subprocess.Popen[bytes]:
    site = re.sub(r"(?m)^ *(ssl_|listen \[).*\n", "", (DEPLOY / "nginx.conf").read_text())
    site = site.replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
    site = site.replace("127.0.0.1:8000", f"127.0.0.1:{upstream}")
    site = site.replace(
        "proxy_http_version 1.1;",
        "proxy_http_version 1.1;\nproxy_set_header X-Request-ID passed-$request_id;",
    )
    outside = ""
    if kind == NGINX_UPGRADING:
        lines = 'proxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection "upgrade";'
        site = site.replace('proxy_set_header Connection "";', lines)
    elif kind == NGINX_CACHING:
        outside = f"proxy_cache_path {directory}/cache keys_zone=shared:1m;\n"
        lines = (
            "proxy_cache shared;\nproxy_cache_key $request_uri;\nproxy_cache_valid any 1h;\n"
            "add_header X-Cache-Status $upstream_cache_status always;"
        )
        site = site.replace("proxy_http_version 1.1;", f"proxy_http_version 1.1;\n{lines}")
    kept = "\n".join(
        f"{name}_temp_path {directory}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # whose directories these are
    file = directory / "nginx.conf"
    file.write_text(
        f"{user} daemon off; pid {directory}/pid; error_log stderr;\n"
        "worker_processes 2;\nevents { worker_connections 1024; }\n"
        f"http {{ access_log off;\n{kept}\n{outside}{site}\n}}\n"
    )
    command = [_found("nginx") or "nginx", "-p", str(directory), "-c", str(file)]
    return subprocess.Popen(command, stdout=log, stderr=log)
