"""docs/security.md names what there is: tests and scripts, options, lists, bounds."""

from __future__ import annotations

import re
from pathlib import Path

from botwire_server.cli.serve import serve
from botwire_server.web import callers, origins

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "security.md").read_text()


def test_what_tries_a_promise_is_there():
    named = set(re.findall(r"`((?:tests|scripts)/[\w./-]+)`", TEXT))
    assert len(named) > 10
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_the_options_are_those_of_serve():
    options = {name for parameter in serve.params for name in parameter.opts}
    assert set(re.findall(r"--[a-z]+-[a-z]+", TEXT)) <= options


def test_the_lists_are_those_of_the_code():
    flat = " ".join(TEXT.split())
    assert f"`{', '.join(origins.METHODS)}`" in flat
    assert f"`{', '.join(origins.HEADERS)}`" in flat
    assert callers.MOST_FAILURES == 10 and callers.WITHIN_SECONDS == 60
    assert f"{callers.MOST_ADDRESSES:,} addresses" in flat


def test_how_to_report_is_found():
    link = "docs/security.md#reporting-a-hole"
    assert f"({link})" in (ROOT / "SECURITY.md").read_text()
    assert "## Reporting a hole" in TEXT
    assert "(docs/security.md" in (ROOT / "README.md").read_text()
