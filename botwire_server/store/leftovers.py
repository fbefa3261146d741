"""What a run before this has left among the files of namespaces: seen when a server starts.

What cannot be removed or read is said, and stops nobody.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path

from botwire_server.store import causes
from botwire_server.store.pool import DRAFT

log = logging.getLogger(__name__)


def drop_drafts(data_dir: Path, known: Collection[str]) -> None:
    """Remove prepared files that the registry does not know: nothing was acknowledged into them."""
    for draft in data_dir.glob(f"tenants/*/*.db{DRAFT}"):
        if str(draft.relative_to(data_dir)).removesuffix(DRAFT) not in known:
            try:
                draft.unlink(missing_ok=True)
            except OSError as error:
                log.warning("%s", causes.told(f"{draft} cannot be removed", error))


def unclean(data_dir: Path) -> list[str]:
    """Files that were not closed in peace: the registry may be a second behind them."""
    return [
        str(journal.relative_to(data_dir)).removesuffix("-wal")
        for journal in data_dir.glob("tenants/*/*.db-wal")
    ]


def lost(data_dir: Path, known: set[str]) -> list[str]:
    """The files that are missing or empty: cheap to see, so it is said at the start."""
    there = set()
    for directory in data_dir.glob("tenants/*"):
        if directory.is_dir():
            try:
                there |= _files_in(directory)
            except OSError as error:  # it is one tenant's; the others are served
                log.error("%s", causes.told(f"{directory} cannot be read", error))
    return sorted(file for file in known - there if file + DRAFT not in there)


def _files_in(directory: Path) -> set[str]:
    with os.scandir(directory) as files:
        return {
            f"tenants/{directory.name}/{file.name}"
            for file in files
            if file.name.endswith((".db", DRAFT)) and file.stat().st_size
        }
