"""Nothing that a command prints is obeyed by a terminal, whatever names and files say."""

from __future__ import annotations

import ast
import json
import re
from contextlib import closing
from pathlib import Path

import pytest
from backing_up import fill
from serving import namespace_files
from tenancy import cli, make_tenant
from test_premises import commands

import botwire_server.cli
from botwire_server.cli import cli as root
from botwire_server.cli import terminal
from botwire_server.store.driver import connect

# Moves the cursor, names the window, turns the writing around, forges a line.
HOSTILE = "a\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\u2066\r\nok  b\x7f"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

COMMANDS = sorted(set(commands(root)) - {"serve", "doctor"})
ARGUMENTS = {
    "tenants create": [HOSTILE],
    "tenants show": [HOSTILE],
    "tenants set-tier": [HOSTILE, HOSTILE],
    "tenants purge": [HOSTILE],
    "tenants export": [HOSTILE, "no/such\x1b[2J/directory/x.zip"],
    "tenants import": [HOSTILE],
    "keys create": [HOSTILE],
    "keys rotate": [HOSTILE],
    "keys revoke": [HOSTILE],
    "namespaces list": [HOSTILE],
    "namespaces purge": [HOSTILE, HOSTILE],
    "namespaces accept": [HOSTILE, HOSTILE, "--yes"],
    "backup": ["PLACE"],
    "backups": [HOSTILE],
    "restore": ["PLACE", "--verify"],
    "reembed": [],
    "usage": [HOSTILE],
    "audit": [HOSTILE],
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> Path:
    """A data directory whose names a stranger has written: the server takes none of them."""
    data = tmp_path_factory.mktemp("hostile") / "data"
    make_tenant(data, "acme")
    fill(data, {"acme": {"notes": {"k": "v"}, "lost": {"k": "v"}}})
    with closing(connect(data / "control.db")) as control:
        for statement in (
            "UPDATE tenants SET name = ?",
            "UPDATE namespaces SET name = ? WHERE name = 'notes'",
            "UPDATE keys SET label = ?",
            "UPDATE audit SET actor = ?",
        ):
            control.execute(statement, (HOSTILE,))
        control.execute("UPDATE audit SET outcome = ?, subject = ?", (HOSTILE, HOSTILE))
        control.execute("UPDATE namespaces SET name = ? WHERE name = 'lost'", (f"l{HOSTILE}",))
    [lost] = [file for file in namespace_files(data) if file.name.startswith("lost-")]
    lost.write_bytes(b"damaged")
    (data / "tenants" / "strange\x1b[2J").write_text("")
    return data


@pytest.mark.parametrize("json_", [False, True])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_output_of_a_command_is_obeyed(name, json_, hostile, tmp_path):
    arguments = [
        str(tmp_path / "backup") if each == "PLACE" else each for each in ARGUMENTS.get(name, [])
    ]
    if name == "restore":
        cli_any(hostile, "backup", str(tmp_path / "backup"))
    done = cli_any(hostile, *name.split(), *arguments, *(["--json"] if json_ else []))
    for text in (done.stdout, done.stderr):
        assert not OBEYED.search(text), (text, OBEYED.search(text))
        if not json_:
            assert "\nok  b" not in text, "a line is forged"
    if json_ and done.stdout:
        json.loads(done.stdout)


def cli_any(data: Path, *arguments: str):
    """Whatever its exit code: a refusal prints names too."""
    for code in (0, 1, 2):
        try:
            return cli(data, *arguments, expect=code)
        except AssertionError as error:
            last = error
    raise last


def test_json_says_the_same_as_before():
    text = json.dumps({"name": HOSTILE, "th": "ภาษาไทย", "emoji": "👩\u200d🚀"}, ensure_ascii=False)
    shown = terminal.printable_json(text)
    assert json.loads(shown) == json.loads(text)
    assert not OBEYED.search(shown)


@pytest.mark.parametrize(
    "name", ["ภาษาไทย", "große Fässer", "日本語", "👩\u200d🚀", "می\u200cخواهم"]
)
def test_names_of_people_stay_as_they_are(name):
    assert terminal.printable(name) == name


def test_commands_print_by_one_way():
    """The next command's output goes through it too."""
    for path in Path(botwire_server.cli.__file__).parent.glob("*.py"):
        if path.name == "terminal.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                raw = called in ("print", "click.echo", "click.secho", "sys.stdout.write")
                json_ = raw and ast.unparse(node.args[0]).startswith("printable_json(")
                assert not raw or json_, f"{path.name}: line {node.lineno}"
                if called == "click.confirm":
                    assert ast.unparse(node.args[0]).startswith("printable(")
