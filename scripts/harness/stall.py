"""Commands run by the hundred: each in a child of one process that has imported everything.

    python -m harness.stall      reads a line of JSON for each command, and answers with one

A Python takes longer to start than most commands to run. `Stall` is the other end.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 15.0


class Done(NamedTuple):
    """How a command ended: its exit code, minus a signal's number, and what it printed."""

    code: int
    out: str
    err: str
    hung: bool
    seconds: float


class Stall:
    """A process that runs commands; leaving the `with` block ends it."""

    def __init__(self, package: Path, scratch: Path, environment: Mapping[str, str]) -> None:
        here = Path(__file__).parents[1]
        self._scratch = scratch
        self._process = subprocess.Popen(
            [sys.executable, "-m", "harness.stall"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
            env={
                name: value for name, value in os.environ.items() if not name.startswith("BOTWIRE")
            }
            | {"PYTHONPATH": str(here), "STALL_PACKAGE": str(package)}
            | dict(environment),
        )

    def __enter__(self) -> Stall:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def run(self, *arguments: str, user: int = 0, kill: tuple[int, float] | None = None) -> Done:
        """Run a command, as another `user` than root or with `kill`: a signal after seconds."""
        asked = {"arguments": arguments, "user": user, "kill": kill, "to": str(self._scratch)}
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        began = time.monotonic()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        out, err = ((self._scratch / name).read_text("utf-8", "replace") for name in ("out", "err"))
        return Done(answer["code"], out, err, answer["hung"], time.monotonic() - began)


def _serve_commands() -> None:
    sys.path.insert(0, os.environ["STALL_PACKAGE"])
    # Everything that commands import, before the first of them.
    from botwire_server.cli import main
    from botwire_server.web import app

    assert app
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if not child:
            _be_a_command(main, asked)
        print(json.dumps(_wait(child, asked["kill"])), flush=True)


def _be_a_command(main: Any, asked: dict[str, Any]) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        for number, name in ((0, "/dev/null"), (1, "out"), (2, "err")):
            path = name if number == 0 else f"{asked['to']}/{name}"
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(file, number)
            os.close(file)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
        if asked["user"]:
            os.setgroups([])
            os.setresgid(*[asked["user"]] * 3)
            os.setresuid(*[asked["user"]] * 3)
        random.seed()
        sys.argv = ["botwire-server", *asked["arguments"]]
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    finally:
        os._exit(code)


def _wait(child: int, kill: tuple[int, float] | None) -> dict[str, Any]:
    end = time.monotonic() + SECONDS
    at = time.monotonic() + kill[1] if kill else None
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return {"code": os.waitstatus_to_exitcode(status), "hung": False}
        now = time.monotonic()
        if at is not None and kill is not None and now > at:
            os.kill(child, kill[0])
            at = None
        if now > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return {"code": -signal.SIGKILL, "hung": True}
        time.sleep(0.002)


if __name__ == "__main__":
    _serve_commands()
