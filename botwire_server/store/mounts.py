"""Which places are mounts of their own: they can be neither moved nor removed."""

from __future__ import annotations

import os
import re
from pathlib import Path

_OCTAL = re.compile(r"\\([0-7]{3})")


def below(path: Path) -> list[Path]:
    """The mounts at a path and below it, as Linux tells them; elsewhere what can be seen of it."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return [path] if path.is_mount() else []
    real = Path(os.path.realpath(path))
    points = (Path(_OCTAL.sub(_character, line.split(" ")[4])) for line in lines)
    return sorted({point for point in points if point == real or real in point.parents})


def _character(escaped: re.Match[str]) -> str:
    return chr(int(escaped[1], 8))
