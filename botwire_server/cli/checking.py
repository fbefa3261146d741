"""`botwire-server check`: is everything whole that was ever stored?"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click

from botwire_server.cli.common import common, show_json
from botwire_server.cli.terminal import Progress, printable, say
from botwire_server.store.driver import require_driver
from botwire_server.store.survey import survey

# A finding with one of these makes the check fail.
BAD = ("damaged", "unchecked")


@click.command()
@click.option("--tenant", help="Only this tenant's namespaces.")
@common
def check(tenant: str | None, data_dir: Path, tiers_file: Path | None, as_json: bool) -> None:
    """Look for damage in the registry and in every namespace's file.

    Beside a running server or without one. It reads every page, compares rows with the index of
    words, vectors with vec0, counters with counts, and files with the registry; it repairs
    nothing. What is damaged is named with a remedy, and the exit code is 1.
    """
    require_driver()
    bar = Progress("checking namespaces")
    checked = 0

    def progress(done: int, total: int) -> None:
        nonlocal checked
        checked = done
        bar.show(done, total)

    found = [each._asdict() for each in survey(data_dir, tenant=tenant, progress=progress)]
    bar.close()
    counts = Counter(each["level"] for each in found)
    ok = not any(counts[level] for level in BAD)
    if as_json:
        show_json({"ok": ok, "namespaces": checked, "findings": found})
    else:
        _show(found)
        say(
            f"{checked} namespaces checked: "
            + (", ".join(f"{counts[level]} {level}" for level in counts) or "all whole")
            + "."
        )
    if not ok:
        sys.exit(1)


def _show(found: list[dict[str, Any]]) -> None:
    for each in found:
        where = " / ".join(
            printable(part) for part in (each["tenant"], each["namespace"], each["file"]) if part
        )
        say(f"{each['level']}: {where}\n  {each['problem']}\n  {each['remedy']}")
