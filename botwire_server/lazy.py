"""Modules that are loaded when they are first used: big ones, and those not every system has."""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

# Every namespace has a thread of its own; numpy's would only stand in their way. It reads this
# when it is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if TYPE_CHECKING:
    import fcntl as fcntl
    import grp as grp
    import resource as resource

    import boto3 as boto3
    import botocore as botocore
    import numpy as numpy
    import prometheus_client
    import rich.console
    import rich.progress
    import rich.table
    import rich.text

    prometheus = prometheus_client
    rich_console = rich.console
    rich_progress = rich.progress
    rich_table = rich.table
    rich_text = rich.text
else:

    class _Lazy:
        """Stands for a module; looking into it loads it (thread-safe, once)."""

        def __init__(self, name: str) -> None:
            self._name = name
            self._module: ModuleType | None = None

        def __getattr__(self, attribute: str) -> Any:
            module = self._module
            if module is None:
                module = self._module = import_module(self._name)
            return getattr(module, attribute)

    numpy = _Lazy("numpy")
    prometheus = _Lazy("prometheus_client")
    # Of a command that has something to show; `serve` has not.
    rich_console = _Lazy("rich.console")
    rich_progress = _Lazy("rich.progress")
    rich_table = _Lazy("rich.table")
    rich_text = _Lazy("rich.text")
    boto3 = _Lazy("boto3")  # an extra: may be missing
    botocore = _Lazy("botocore")

    # Windows has none of these, and says a sentence instead of a traceback.
    fcntl = _Lazy("fcntl")
    grp = _Lazy("grp")
    resource = _Lazy("resource")
