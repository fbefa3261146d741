"""What the frameworks' tests share: the server that scripts/test-frameworks has started.

These run without the server's own package, so nothing of the quick suite is imported here.
"""

from __future__ import annotations

import os
import uuid

import pytest


class Server:
    """The server under test."""

    url = os.environ.get("BOTWIRE_URL", "")


@pytest.fixture(scope="session")
def server() -> Server:
    return Server()


@pytest.fixture
def ns() -> str:
    """A namespace nobody else uses."""
    return f"ns-{uuid.uuid4()}"
