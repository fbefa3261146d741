"""The examples of docs/deploying.md fit the server: its options, its limits, its times."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections import defaultdict
from pathlib import Path

import httpx
import pytest
import yaml
from serving import JSON, until

from botwire_server.cli import cli
from botwire_server.cli.serve import serve
from botwire_server.config import Config, variable
from botwire_server.serve.server import IDLE_SECONDS

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "docs" / "deploy"
DOC = ROOT / "docs" / "deploying.md"


def unit() -> dict[str, list[str]]:
    """The settings of the systemd unit, whatever their section; a setting may be repeated."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in (DEPLOY / "botwire-server.service").read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            found[name].append(value)
    return found


def service() -> dict[str, object]:
    """The one service of the compose file."""
    [found] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].values()
    return found


def test_every_variable_is_a_setting():
    settings = {variable(name) for name in Config.__dataclass_fields__}
    for file in (DOC, *DEPLOY.iterdir()):
        used = set(re.findall(r"BOTWIRE_SERVER_[A-Z_]+", file.read_text()))
        assert {name.removesuffix("_FILE") for name in used} <= settings, file.name


def test_every_option_is_one_of_serve():
    options = {name for parameter in serve.params for name in parameter.opts}
    for text in (*unit()["ExecStart"], DOC.read_text()):
        used = set(re.findall(r"(?<![\w-])--[a-z]+(?:-[a-z]+)*", text))
        assert used - {"--now", "--system", "--home-dir", "--shell"} <= options


def test_every_command_is_one_of_ours():
    for line in re.findall(r"bin/botwire-server ([a-z ]+)", DOC.read_text()):
        group, command = line.split()[:2]
        assert command in cli.commands[group].commands


def test_every_file_is_named():
    text = DOC.read_text()
    for file in DEPLOY.iterdir():
        assert f"(deploy/{file.name})" in text


def test_the_unit_waits_longer_than_the_server():
    assert int(unit()["TimeoutStopSec"][0]) > Config().shutdown_seconds + 1
    state = f"/var/lib/{unit()['StateDirectory'][0]}"
    assert f"BOTWIRE_SERVER_DATA_DIR={state}" in unit()["Environment"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_systemd_understands_the_unit(tmp_path):
    text = (DEPLOY / "botwire-server.service").read_text()
    file = tmp_path / "botwire-server.service"
    file.write_text(text.replace("/opt/botwire-server/bin/botwire-server", "/bin/true"))
    command = ["systemd-analyze", "--man=no", "verify", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert file.name not in result.stderr


def test_compose_runs_the_image_as_it_is_built():
    containerfile = (ROOT / "Containerfile").read_text()
    found = service()
    build = found["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).exists()
    [uid] = re.findall(r"--uid (\d+)", containerfile)
    assert found["user"] == f"{uid}:{uid}"
    [volume] = found["volumes"]
    assert f"BOTWIRE_SERVER_DATA_DIR={volume.partition(':')[2]}" in containerfile
    assert int(found["stop_grace_period"].removesuffix("s")) > Config().shutdown_seconds + 1
    assert found["read_only"] and found["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in found["ports"])


@pytest.mark.parametrize("name", ["nginx.conf", "Caddyfile"])
def test_a_proxy_lets_go_of_connections_before_the_server_does(name):
    [seconds] = re.findall(r"keepalive(?:_timeout)? (\d+)s", (DEPLOY / name).read_text())
    assert int(seconds) < IDLE_SECONDS


def test_a_proxy_takes_what_the_server_takes():
    assert re.search(r"max_body_size 1m\b", (DEPLOY / "nginx.conf").read_text())
    assert Config().max_body_bytes == 1024**2
    # It would cut off clients that still send: scripts/smuggling --only large.
    assert "max_size" not in (DEPLOY / "Caddyfile").read_text()


@pytest.fixture
def proxied(make_server, tmp_path):
    """A client that comes through nginx, set up as in the example but for TLS and addresses."""
    nginx = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if nginx is None:
        pytest.skip("needs nginx")
    server = make_server()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    site = (DEPLOY / "nginx.conf").read_text()
    site = re.sub(r"(?m)^ *(ssl_|listen \[).*\n", "", site)
    site = site.replace("listen 443 ssl", f"listen 127.0.0.1:{port}")
    site = site.replace("127.0.0.1:8000", server.url.removeprefix("http://"))
    paths = "\n".join(
        f"{name}_temp_path {tmp_path}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""  # whose directories these are
    (tmp_path / "nginx.conf").write_text(
        f"{user} daemon off; pid {tmp_path}/pid; error_log stderr;\nevents {{}}\n"
        f"http {{ access_log off; {paths}\n{site}\n}}\n"
    )
    process = subprocess.Popen(
        [nginx, "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def ask(method: str, path: str, **more: object) -> httpx.Response:
        return httpx.request(method, f"http://127.0.0.1:{port}{path}", **more)

    def answers() -> bool:
        try:
            return ask("GET", "/health").status_code < 500
        except httpx.TransportError:
            return False

    try:
        until(answers, "nginx answers")
        yield server, ask
    finally:
        process.terminate()
        process.wait()


def test_nginx_passes_on_what_matters(proxied):
    _, ask = proxied
    path = "/memory/agent/a%2Fb%3Fc//d"
    assert ask("PUT", path, json={"value": [1]}).status_code == 200
    assert ask("GET", path).json()["key"] == "a/b?c//d"
    answer = ask(
        "PUT", "/memory/agent/large", headers=JSON, content=b'{"value":"%s"}' % (b"v" * 1_500_000)
    )
    assert answer.status_code == 413
    assert ask("GET", "/admin/v1/tenants").status_code == 401


def test_strangers_do_not_reach_an_open_server_through_nginx(proxied):
    _, ask = proxied
    answer = ask("GET", "/memory/agent/k", headers={"Host": "memory.example.com"})
    assert answer.status_code == 421
