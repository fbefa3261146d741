"""Every planted fault fits: its text stands in the package, once, where it says.

A fault is written out where it is made, so that reading the files is enough to know them all: a
second, instead of a campaign that would have said so at its end.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import PACKAGE_ROOT

from harness.planted import Fault, planted
from testing.table import ALL

CHECKOUT = Path(__file__).parents[1]
PACKAGE = CHECKOUT / "botwire_server"
MAKES = re.compile(r"\bFault\(")


def sources() -> Iterator[Path]:
    """Every Python file of scripts and tests, whatever its name ends in."""
    for directory in ("scripts", "tests"):
        for path in sorted((CHECKOUT / directory).rglob("*")):
            if path.is_file() and path.suffix in ("", ".py") and ".venv" not in path.parts:
                yield path


def faults(path: Path) -> Iterator[tuple[int, Fault | None]]:
    """The faults that a file makes, with their lines; None for one that is not written out."""
    text = path.read_text(errors="replace")
    if not MAKES.search(text) or path.name == Path(__file__).name:
        return
    tree = ast.parse(text)
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }

    def text_of(node: ast.expr) -> str:
        if isinstance(node, ast.Name) and node.id in constants:
            return text_of(constants[node.id])
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return text_of(node.left) + text_of(node.right)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        raise ValueError

    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Fault":
            given = (*node.args, *(keyword.value for keyword in node.keywords))
            try:
                yield node.lineno, Fault(*map(text_of, given))
            except (ValueError, TypeError):
                yield node.lineno, None


FOUND = {
    f"{path.relative_to(CHECKOUT)}:{line}": fault
    for path in sources()
    for line, fault in faults(path)
}


@pytest.mark.parametrize("where", FOUND)
def test_a_fault_fits(where):
    fault = FOUND[where]
    assert fault is not None, f"{where}: write the fault out, in literals or names of them"
    count = (PACKAGE / fault.file).read_text().count(fault.code)
    assert count == 1, f"{where}: this stands {count} times in {fault.file}: {fault.code!r}"
    assert fault.code != fault.instead


def test_they_are_found():
    assert len(FOUND) > 57


def test_one_helper_plants():
    """Nobody copies the package to change it by other means."""
    for path in sources():
        text = path.read_text(errors="replace")
        if path.name not in ("planted.py", Path(__file__).name):
            assert not re.search(r"def plant(ed)?\(", text), path


def test_every_campaign_with_faults_is_tried():
    """What has a --plant is in the table, with one of its faults at least."""
    tried = {check.command[0] for check in ALL if check.caught}
    for path in sorted((CHECKOUT / "scripts").iterdir()):
        if path.is_file() and "PLANTS" in path.read_text():
            assert f"scripts/{path.name}" in tried, path.name
            # What dies has found nothing, and must not end as if it had.
            assert "run(main)" in path.read_text(), path.name


def test_a_fault_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(LookupError, match=r"does not fit errors\.py"):
        planted(tmp_path, Fault("errors.py", "nobody wrote this", ""), package=PACKAGE_ROOT)
