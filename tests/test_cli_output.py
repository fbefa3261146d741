"""What commands print: tables that line up in every script, errors as JSON for programs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import unicodedata
from pathlib import Path

import pytest
from serving import command, environment
from tenancy import cli, make_tenant

NAMES = ("acme", "ลูกค้า", "顧客サポート", "고객", "Müller GmbH", "e\u0301", "🙂", "[red]x")


def places(text: str) -> int:
    """How many places of a terminal a text takes."""
    return sum(
        0
        if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Cf")
        else 2
        if unicodedata.east_asian_width(char) in "WF"
        else 1
        for char in text
    )


def test_a_table_lines_up_in_every_script(tmp_path: Path) -> None:
    for name in NAMES:
        make_tenant(tmp_path / "data", name)
    lines = cli(tmp_path / "data", "tenants", "list").stdout.splitlines()
    assert len(lines) == 1 + len(NAMES)
    columns = {places(line[: line.index("unlimited")]) for line in lines[1:]}
    assert columns == {places(lines[0][: lines[0].index("tier")])}
    assert {line.split("  ")[0] for line in lines[1:]} == set(NAMES)
    assert not any(line.endswith(" ") or "\x1b" in line for line in lines)


def test_a_table_in_a_pipe_breaks_no_line(tmp_path: Path) -> None:
    make_tenant(tmp_path / "data", "x" * 128)
    lines = cli(tmp_path / "data", "tenants", "list", process=True).stdout.splitlines()
    assert len(lines) == 2 and lines[1].startswith("x" * 128)


@pytest.mark.parametrize("no_color", [False, True])
def test_no_color_is_respected(tmp_path: Path, no_color: bool) -> None:
    make_tenant(tmp_path / "data", "acme")
    run = command("tenants", "list", "--data-dir", str(tmp_path / "data"))
    run["env"] = environment(PYTHONPATH=run["env"]["PYTHONPATH"], TERM="xterm", COLUMNS="120")
    if no_color:
        run["env"]["NO_COLOR"] = "1"
    ours, theirs = pty.openpty()
    try:
        subprocess.run(**run, stdout=theirs, check=True, timeout=60)
        said = os.read(ours, 65_536).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "acme" in said
    assert ("\x1b[" in said) is not no_color


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("tenants", "show", "nobody", "--json"), 1, "tenants list"),
        (("tenants", "shwo", "--json"), 2, "show"),
        (("tenants", "create", "--json"), 2, "NAME"),
        (("keys", "create", "acme", "--scope", "fly", "--json"), 2, "scope"),
        (("check", "--json"), 1, "data"),
    ],
)
def test_an_error_is_json_for_programs(tmp_path: Path, arguments, code, says) -> None:
    data = tmp_path / "data"
    if arguments[0] == "tenants":
        make_tenant(data, "acme")
    done = subprocess.run(
        **command(*arguments, "--data-dir", str(data)), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (code, "")
    [line] = done.stderr.splitlines()
    error = json.loads(line)["error"]
    assert error["exit_code"] == code
    assert says.lower() in error["message"].lower()
