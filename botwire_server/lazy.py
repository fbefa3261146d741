"""Big modules that are loaded when they are first used, so that a server starts without them."""

from __future__ import annotations

import os
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

# Every namespace has a thread of its own; numpy's would only stand in their way. It reads this
# when it is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

if TYPE_CHECKING:
    import boto3 as boto3
    import botocore as botocore
    import numpy as numpy
    import prometheus_client

    prometheus = prometheus_client
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
    boto3 = _Lazy("boto3")  # an extra: may be missing
    botocore = _Lazy("botocore")
