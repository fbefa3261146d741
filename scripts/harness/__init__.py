"""What the campaign scripts share: a server process, planted faults, and a look at its files.

Importing it makes `botwire_server` the one of this checkout, and moves over to the checkout's
`.venv` where the Python that runs the script lacks the server's dependencies.
"""

import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

sys.path.insert(0, str(CHECKOUT))

if any(importlib.util.find_spec(name) is None for name in ("uvicorn", "aiosqlite", "orjson")):
    python = CHECKOUT / ".venv" / "bin" / "python"
    if not python.exists() or Path(sys.executable) == python:
        sys.exit("The project is not installed for this Python: run scripts/test once.")
    os.execv(python, [str(python), *sys.argv])


def run(main: Callable[[], int]) -> None:
    """End with what `main` returns; 3 where it fails itself: 1 says that it found something."""
    try:
        code = main()
    except Exception:
        traceback.print_exc()
        code = 3
    sys.exit(code)
