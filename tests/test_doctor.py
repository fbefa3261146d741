"""`botwire-server doctor`: before the first start, beside a server, and where things are broken."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import command, namespace_files


def doctor(*arguments: str, expect: int = 0, **variables: str) -> dict[str, Any]:
    """Its report, and that its exit code fits."""
    done = subprocess.run(
        **command("doctor", "--json", *arguments, **variables),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == expect, (done.stdout, done.stderr)
    report = json.loads(done.stdout)
    assert report["ok"] is (expect == 0)
    for each in report["findings"]:
        assert (each["level"] == "ok") == (each["remedy"] is None), each
    return dict(report)


def finding(report: dict[str, Any], what: str) -> dict[str, Any]:
    [found] = [each for each in report["findings"] if each["what"] == what]
    return dict(found)


def test_before_the_first_start(tmp_path):
    data = tmp_path / "not" / "there"
    report = doctor("--data-dir", str(data))
    assert not data.parent.exists(), "it makes nothing"
    assert "first start" in finding(report, "data directory")["says"]
    for what in ("python", "driver", "sqlite-vec", "fts5", "open files", "disk", "clock"):
        assert finding(report, what)["says"]
    assert "dimensions" in finding(report, "embedder")["says"]


def test_beside_a_server(make_server):
    server = make_server()
    httpx.put(f"{server.url}/memory/n/k", json={"value": 1})
    report = doctor("--data-dir", str(server.data))
    assert str(server.process.pid) in finding(report, "server")["says"]
    assert "1 at version" in finding(report, "namespaces")["says"]
    assert "1 at version" in finding(report, "registry")["says"]
    server.stop()
    assert finding(doctor("--data-dir", str(server.data)), "server")["says"] == "none runs here"


def test_every_setting_says_where_it_comes_from_and_secrets_are_not_shown(tmp_path):
    report = doctor(
        *("--data-dir", str(tmp_path), "--embedder-key", "secret-1"),
        BOTWIRE_SERVER_PORT="8123",
        BOTWIRE_SERVER_SUMMARIZER="openai:m@http://user:secret-2@127.0.0.1:1/v1",
        BOTWIRE_SERVER_SUMMARIZER_KEY="secret-3",
        expect=1,  # a key does not belong into an address
    )
    shown = {each["setting"]: each for each in report["settings"]}
    assert shown["data_dir"]["origin"] == "option"
    assert shown["port"] == {
        "setting": "port",
        "value": 8123,
        "origin": "variable BOTWIRE_SERVER_PORT",
    }
    assert shown["host"]["origin"] == "default"
    assert shown["embedder_key"]["value"] == "(set, not shown)"
    assert "secret" not in json.dumps(report)


def test_variables_that_nobody_reads(tmp_path):
    report = doctor("--data-dir", str(tmp_path), BOTWIRE_SERVER_PROT="8123", expect=1)
    found = finding(report, "variable")
    assert "BOTWIRE_SERVER_PROT" in found["says"] and "BOTWIRE_SERVER_PORT" in found["remedy"]


def test_an_embedder_that_does_not_answer(tmp_path):
    report = doctor(
        "--data-dir", str(tmp_path), "--embedder", "openai:m@http://127.0.0.1:9/v1", expect=1
    )
    assert "does not answer" in finding(report, "embedder")["says"]
    report = doctor("--data-dir", str(tmp_path), "--embedder", "nonsense", expect=1)
    assert finding(report, "embedder")["level"] == "failure"


def test_tiers_that_cannot_be_read(tmp_path):
    (tmp_path / "tiers.toml").write_text("[nonsense]\n")
    assert finding(doctor("--data-dir", str(tmp_path), expect=1), "tiers")["level"] == "failure"


def test_a_directory_that_others_may_enter(tmp_path):
    tmp_path.chmod(0o755)
    found = finding(doctor("--data-dir", str(tmp_path)), "data directory")
    assert found["level"] == "warning" and "chmod" in found["remedy"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_made(tmp_path):
    tmp_path.chmod(0o500)
    doctor("--data-dir", str(tmp_path / "data"), expect=1)


def test_damaged_and_newer_files(make_server):
    server = make_server()
    httpx.put(f"{server.url}/memory/n/k", json={"value": 1})
    server.stop()
    [file] = namespace_files(server.data)
    content = bytearray(file.read_bytes())
    spoil(file, content, at=60, value=(99).to_bytes(4, "big"))
    report = doctor("--data-dir", str(server.data), expect=1)
    assert "update" in finding(report, "namespaces")["remedy"]
    file.write_bytes(b"")
    report = doctor("--data-dir", str(server.data), expect=1)
    assert "check" in finding(report, "namespaces")["remedy"]
    (server.data / "control.db").write_bytes(b"\x77" * 5_000)
    report = doctor("--data-dir", str(server.data), expect=1)
    assert finding(report, "registry")["level"] == "failure"


def spoil(file: Path, content: bytearray, *, at: int, value: bytes) -> None:
    content[at : at + len(value)] = value
    file.write_bytes(content)


def test_a_clock_that_is_behind(make_server):
    server = make_server()
    server.stop()
    os.utime(server.data / "control.db", (4e9, 4e9))
    found = finding(doctor("--data-dir", str(server.data)), "clock")
    assert found["level"] == "warning" and "NTP" in found["remedy"]


def test_for_people(tmp_path):
    done = subprocess.run(
        **command("doctor", "--data-dir", str(tmp_path)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "sqlite-vec" in done.stdout and "open_namespaces" in done.stdout
