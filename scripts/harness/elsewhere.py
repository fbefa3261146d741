"""Commands over what came from elsewhere, each in a process of its own, and what lies outside.

Nothing there may be opened, changed or removed, whatever the files say.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import resource
import struct
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOST_MEMORY_KB = 300 * 1024
# Changed, attributes, opened, moved, made, removed.
_WATCHED = 0x2 | 0x4 | 0x20 | 0x40 | 0x80 | 0x100 | 0x200
_DIRECTORY = 0x40000000
_SECONDS = 60  # of CPU that a command may take


class Outside:
    """A folder that nothing may touch, with files that are worth something to somebody."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        for suffix in ("", "-wal", "-shm", ".new"):
            (path / f"precious.db{suffix}").write_bytes(b"PRECIOUS" * 512)
        libc = ctypes.CDLL(None, use_errno=True)
        self._watch = libc.inotify_init1(os.O_NONBLOCK)
        libc.inotify_add_watch(self._watch, str(path).encode(), _WATCHED)

    def touched(self) -> bool:
        """Whether anything happened to it since this was last asked."""
        happened = False
        with contextlib.suppress(BlockingIOError):
            while content := os.read(self._watch, 65_536):
                at = 0
                while at < len(content):
                    _, mask, _, length = struct.unpack_from("iIII", content, at)
                    at += 16 + length
                    happened = happened or bool(mask & _WATCHED and not mask & _DIRECTORY)
        return happened


def forked(main: Callable[[], None], *arguments: Any) -> tuple[int, str, int]:
    """Run the console script's `main` in a child; exit code, what it printed, its memory in KB."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.close(reader)
            os.dup2(writer, 1), os.dup2(writer, 2)
            sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), write_through=True)
            sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), write_through=True)
            sys.stdin = io.StringIO()
            sys.argv = ["botwire-server", *map(str, arguments)]
            resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    with open(reader, "rb") as stream:
        said = stream.read().decode(errors="replace")
    _, status, usage = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), said, usage.ru_maxrss
