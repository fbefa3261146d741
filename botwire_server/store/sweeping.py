"""Erasing what has expired, whatever kind it is: a unit of work for `Namespace`."""

from __future__ import annotations

from botwire_server.store import entries, states
from botwire_server.store.driver import Connection


def sweep(connection: Connection) -> None:
    """Erase what has expired."""
    entries.sweep(connection)
    states.sweep(connection)
