"""The command line: help, settings, refusals in one sentence, what a start prints."""

from __future__ import annotations

import re
import socket
import subprocess
from dataclasses import fields
from typing import Any

import click
import httpx
import pytest
from serving import PATIENCE, command, environment, run_client

from botwire_server import __version__
from botwire_server.cli import cli
from botwire_server.config import Config


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        **command(*arguments, **variables),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def commands(group: click.Command, *names: str) -> list[tuple[str, ...]]:
    """Every command below `group`, as the words that call it."""
    found = [names]
    if isinstance(group, click.Group):
        for name, inner in group.commands.items():
            found += commands(inner, *names, name)
    return found


@pytest.mark.parametrize("words", commands(cli), ids=lambda words: " ".join(words) or "(none)")
def test_every_command_has_help(words):
    done = run(*words, "--help" if words else "-h")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: ")
    assert done.stderr == ""
    described = done.stdout.split("\n\n")[1].strip()
    assert len(described) > 10


def test_every_option_says_what_it_does_and_names_its_variable():
    said = run("serve", "--help").stdout
    for setting in fields(Config):
        assert f"--{setting.name.replace('_', '-')}" in said
        assert f"BOTWIRE_SERVER_{setting.name.upper()}" in re.sub(r"\s+", "", said)
        assert setting.metadata["help"].split()[0] in said


def test_version():
    assert run("--version").stdout == f"botwire-server, version {__version__}\n"


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a command that refused to run."""
    assert done.returncode not in (0, None)
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("BOTWIRE_SERVER_PROT", "BOTWIRE_SERVER_PORT"),
        ("BOTWIRE_SERVER_DATADIR", "BOTWIRE_SERVER_DATA_DIR"),
        ("BOTWIRE_SERVER_DAILY_WRITE", "BOTWIRE_SERVER_DAILY_WRITES"),
        ("BOTWIRE_SERVER_INSECURE", "BOTWIRE_SERVER_INSECURE_OPEN"),
    ],
)
def test_a_variable_nobody_reads_is_refused_with_the_nearest_name(tmp_path, name, hint):
    done = run("serve", "--data-dir", str(tmp_path / "data"), "--port", "0", **{name: "1"})
    sentence = refused(done)
    assert sentence.count("\n") == 1
    assert name in sentence
    assert hint in sentence
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "65536"],
        ["--port", "x"],
        ["--profile", "other"],
        ["--daily-writes", "-1"],
        ["--max-body-bytes", "0"],
        ["--durability", "none"],
        ["--log-level", "loud"],
        ["--unknown"],
        ["argument"],
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(tmp_path, arguments):
    sentence = refused(run("serve", "--data-dir", str(tmp_path / "data"), *arguments))
    assert "Error: " in sentence
    assert not (tmp_path / "data").exists()


def test_a_variable_that_makes_no_sense_is_refused_too(tmp_path):
    sentence = refused(
        run("serve", "--data-dir", str(tmp_path / "data"), BOTWIRE_SERVER_PORT="many")
    )
    assert "port" in sentence.lower()


def test_variables_are_settings_and_options_win(make_server, monkeypatch):
    monkeypatch.setattr(
        "serving.environment",
        with_variables(
            BOTWIRE_SERVER_DAILY_WRITES="1",
            BOTWIRE_SERVER_MAX_NAMESPACE_BYTES="10",
            BOTWIRE_SERVER_PORT="1",
            BOTWIRE_SERVER_LOG_FORMAT="json",
        ),
    )
    server = make_server("--daily-writes", "2")
    statuses = [
        httpx.put(f"{server.url}/memory/ns/k", json={"value": text}).status_code
        for text in ("one", "two", "three")
    ]
    assert statuses == [200, 200, 429]
    assert httpx.put(f"{server.url}/memory/b/k", json={"value": "x" * 20}).status_code == 429
    server.stop()
    assert server.log.startswith("{")


def test_the_data_directory_can_be_a_variable(make_server, tmp_path, monkeypatch):
    other = tmp_path / "from the variable"
    server = make_server(started=False)
    monkeypatch.setattr("serving.environment", with_variables(BOTWIRE_SERVER_DATA_DIR=str(other)))
    server.start()
    assert str(server.data) in server.banner
    assert not other.exists()
    done = run("serve", "--port", str(server.address[1]))
    assert f"port {server.address[1]}" in refused(done)
    assert (other / "control.db").exists()


def with_variables(**variables: str) -> Any:
    return lambda **more: environment(**(variables | more))


def test_a_port_that_is_taken_is_one_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("serve", "--data-dir", str(tmp_path / "data"), "--port", port)
    sentence = refused(done)
    assert sentence.count("\n") == 1
    assert port in sentence
    assert "--port" in sentence
    assert done.stdout == ""


def test_an_address_that_is_not_ours_is_one_sentence(tmp_path):
    done = run(
        "serve", "--data-dir", str(tmp_path / "data"), "--host", "127.0.0.1.invalid", "--port", "0"
    )
    assert refused(done).count("\n") == 1


def test_a_second_server_on_one_data_directory_is_one_sentence(make_server):
    server = make_server()
    httpx.put(f"{server.url}/memory/ns/k", json={"value": "v"})
    done = run("serve", "--data-dir", str(server.data), "--port", "0")
    sentence = refused(done)
    assert sentence.count("\n") == 1
    assert "Another botwire-server" in sentence
    assert str(server.data) in sentence
    assert httpx.get(f"{server.url}/memory/ns/k").json()["value"] == "v"
    server.kill()  # the lock goes with the process
    server.start()


def test_a_data_directory_that_cannot_be_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("no directory")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        sentence = refused(run("serve", "--data-dir", str(path), "--port", "0"))
        assert "Traceback" not in sentence
        assert str(path) in sentence


def test_namespaces_without_their_registry_are_one_sentence(make_server):
    server = make_server()
    httpx.put(f"{server.url}/memory/ns/k", json={"value": "v"})
    server.stop()
    (server.data / "control.db").unlink()
    sentence = refused(run("serve", "--data-dir", str(server.data), "--port", "0"))
    assert sentence.count("\n") == 1
    assert "control.db" in sentence
    assert not (server.data / "control.db").exists()


def test_what_a_start_prints(server):
    said = server.banner
    assert f"botwire-server {__version__}" in said
    assert f"data     {server.data}\n" in said
    assert f"address  {server.url}\n" in said
    assert "mode     open" in said
    exported = re.search(r"export BOTWIRE_URL=(\S+)", said)
    assert exported
    assert exported[1] == server.url
    assert "pip install botwire" in said


def test_the_lines_that_a_start_prints_work(server):
    lines = server.banner.splitlines()
    [code] = [line for line in lines if line.strip().startswith("python -c ")]
    program = code.strip().removeprefix("python -c '").removesuffix("'")
    assert run_client(server.url, program) == "Ada\n"


def test_ipv6_is_served_and_printed_in_brackets(make_server):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = make_server("--host", "::1")
    assert server.url.startswith("http://[::1]:")
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_relaxed_durability_serves_too(make_server):
    server = make_server("--durability", "relaxed")
    httpx.put(f"{server.url}/memory/ns/k", json={"value": "v"})
    server.kill()
    server.start()
    assert httpx.get(f"{server.url}/memory/ns/k").json()["value"] == "v"
