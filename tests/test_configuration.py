"""`config show` says what a server would be set to, and tells no secret. The shell completes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from serving import command, environment

SECRET = "sk-nobody-may-see-this"


def shown(*arguments: str, **variables: str) -> dict[str, dict[str, Any]]:
    """Every setting by its name."""
    run = command("config", "show", "--json", *arguments, **variables)
    done = subprocess.run(**run, capture_output=True, text=True, check=True)
    assert SECRET not in done.stdout + done.stderr
    return {each["setting"]: each for each in json.loads(done.stdout)}


def test_every_value_has_its_origin(tmp_path: Path) -> None:
    found = shown("--port", "9001", BOTWIRE_SERVER_HOST="::1", BOTWIRE_SERVER_PORT="9000")
    assert (found["port"]["value"], found["port"]["origin"]) == (9001, "option")
    assert (found["host"]["value"], found["host"]["origin"]) == (
        "::1",
        "variable BOTWIRE_SERVER_HOST",
    )
    assert (found["durability"]["value"], found["durability"]["origin"]) == ("full", "default")


def test_a_secret_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    by_variable = shown(BOTWIRE_SERVER_EMBEDDER_KEY=SECRET)["embedder_key"]
    by_file = shown(BOTWIRE_SERVER_EMBEDDER_KEY_FILE=str(file))["embedder_key"]
    assert by_variable["value"] == by_file["value"] == "(set, not shown)"
    assert by_file["origin"] == "variable BOTWIRE_SERVER_EMBEDDER_KEY_FILE"
    url = f"openai:model@http://user:{SECRET}@127.0.0.1:9/v1"
    assert "(not shown)" in shown(BOTWIRE_SERVER_SUMMARIZER=url)["summarizer"]["value"]


def test_it_is_what_doctor_tells(tmp_path: Path) -> None:
    run = command("doctor", "--json", "--data-dir", str(tmp_path / "data"))
    done = subprocess.run(**run, capture_output=True, text=True, check=False)
    settings = {each["setting"]: each for each in json.loads(done.stdout)["settings"]}
    assert settings == shown("--data-dir", str(tmp_path / "data"))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_a_completion_for(shell: str) -> None:
    run = command(_BOTWIRE_SERVER_COMPLETE=f"{shell}_source")
    done = subprocess.run(**run, capture_output=True, text=True, check=True)
    assert "_BOTWIRE_SERVER_COMPLETE" in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("words", "completes"),
    [("botwire-server ten", "tenants"), ("botwire-server tenants pu", "purge")],
)
def test_bash_completes(tmp_path: Path, words: str, completes: str) -> None:
    """A real bash, with the line of the docs."""
    program = tmp_path / "botwire-server"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m botwire_server "$@"\n')
    program.chmod(0o755)
    count = len(words.split()) - 1
    script = f"""
        eval "$(_BOTWIRE_SERVER_COMPLETE=bash_source botwire-server)"
        COMP_WORDS=({words}); COMP_CWORD={count}
        _botwire_server_completion botwire-server
        echo "${{COMPREPLY[@]}}"
    """
    run = command()
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHONPATH": run["env"]["PYTHONPATH"]}
    done = subprocess.run(
        ["bash", "--norc", "-c", script], env=environment() | path, capture_output=True, text=True
    )
    assert completes in done.stdout.split(), done.stderr
