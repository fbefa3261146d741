"""Run the checks one after the other, go on after a failure, and say how long each took.

Without --all: what a change needs before it is shown to others, in minutes: every test that is not
marked slow, and one short campaign. With --all: everything, which is what CI runs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import CHECKOUT
from testing.table import ALL, AT_ONCE, QUICK_CAMPAIGN, QUICK_TESTS, Check

MOST_MINUTES = 70
MOST_GIGABYTES = 10
# Campaigns that found their fault, as they were then: what did not change since finds it again.
GREEN = CHECKOUT / "build" / "green.json"


def main() -> int:
    """Check; exit code 1 where something failed."""
    parser = argparse.ArgumentParser(prog="scripts/test", description=__doc__)
    parser.add_argument("--all", action="store_true", help="everything, as CI does")
    parser.add_argument(
        "--at-once",
        action="store_true",
        help="what takes seconds, side by side; scripts/check calls it",
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="of all, those whose name holds NAME; may be repeated",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="also campaigns that have not changed since they passed",
    )
    options = parser.parse_args()
    if options.only:
        checks: Sequence[Check] = [
            each for each in ALL if any(name in each.name for name in options.only)
        ]
        if not checks:
            names = "\n".join(f"  {each.name}" for each in ALL)
            parser.error(f"no check is called so; there are\n{names}")
    elif options.at_once:
        return _side_by_side(AT_ONCE)
    else:
        checks = ALL if options.all else (QUICK_TESTS, QUICK_CAMPAIGN)
    return _one_by_one(checks, again=options.again, whole=options.all)


def _one_by_one(checks: Sequence[Check], *, again: bool, whole: bool) -> int:
    began = time.monotonic()
    free = shutil.disk_usage(CHECKOUT).free
    green = _read_green()
    taken: list[tuple[float, str]] = []
    failed: list[str] = []
    skipped = 0
    for check in checks:
        if check.caught and not again and green.get(check.name) == check.digest:
            skipped += 1
            continue
        print(f"== {check.name}", flush=True)
        start = time.monotonic()
        code = subprocess.run(check.command, cwd=CHECKOUT).returncode
        taken.append((time.monotonic() - start, check.name))
        if code == (1 if check.caught else 0):
            if check.caught:
                green[check.name] = check.digest
                _write_green(green)
        else:
            green.pop(check.name, None)
            failed.append(check.name)
            said = "found nothing" if check.caught and not code else f"exit code {code}"
            print(f"-- {check.name}: {said}", file=sys.stderr, flush=True)
    print("\nseconds")
    for seconds, name in sorted(taken, reverse=True):
        print(f"{seconds:7.1f}  {name}")
    minutes = (time.monotonic() - began) / 60
    gigabytes = max(0, free - shutil.disk_usage(CHECKOUT).free) / 1e9
    print(f"{minutes:.1f} minutes, {gigabytes:.1f} GB of disk; {skipped} unchanged and skipped")
    if whole and minutes > MOST_MINUTES:
        failed.append(f"more than {MOST_MINUTES} minutes")
    if whole and gigabytes > MOST_GIGABYTES:
        failed.append(f"more than {MOST_GIGABYTES} GB")
    names = f": {', '.join(failed)}" if failed else ""
    print(f"checks: {len(checks) - skipped - len(failed)} passed, {len(failed)} failed{names}")
    return 1 if failed else 0


def _side_by_side(checks: Sequence[Check]) -> int:
    def run(check: Check) -> tuple[Check, subprocess.CompletedProcess[bytes]]:
        return check, subprocess.run(check.command, cwd=CHECKOUT, capture_output=True)

    failed = []
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        for check, done in pool.map(run, checks):
            if done.returncode:
                failed.append(check.name)
                print(f"== {check.name}\n{(done.stdout + done.stderr).decode()}", flush=True)
    names = f": {', '.join(failed)}" if failed else ""
    seconds = time.monotonic() - began
    print(
        f"{seconds:.1f} s; checks: {len(checks) - len(failed)} passed, {len(failed)} failed{names}"
    )
    return 1 if failed else 0


def _read_green() -> dict[str, str]:
    try:
        found = json.loads(GREEN.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_green(green: dict[str, str]) -> None:
    GREEN.parent.mkdir(exist_ok=True)
    draft = Path(f"{GREEN}.new")
    draft.write_text(json.dumps(green, indent=1))
    draft.replace(GREEN)


if __name__ == "__main__":
    sys.exit(main())
