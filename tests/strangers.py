"""What somebody else may have put into a backup: manifests sealed anew, objects and rows forged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from botwire_server.store.driver import Connection, connect

Manifest = dict[str, Any]


def manifests(dest: Path) -> list[Path]:
    """The manifests of a backup, oldest first."""
    return sorted(dest.glob("generations/*.json"))


def read(file: Path) -> Manifest:
    """What a manifest says."""
    return dict(json.loads(file.read_bytes().splitlines()[0]))


def seal(file: Path, manifest: Manifest | bytes) -> None:
    """Write a manifest as whoever knows its form."""
    content = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    file.write_bytes(content + b"\n" + hashlib.sha256(content).hexdigest().encode() + b"\n")


def without_ids(dest: Path) -> None:
    """Make a backup one of before there were markers and ids."""
    for file in manifests(dest):
        manifest = read(file)
        del manifest["installation"]
        seal(file, manifest)
    (dest / "botwire-server-backup.json").unlink(missing_ok=True)


def forge(dest: Path, change: Callable[[Manifest], None]) -> None:
    """Change the newest manifest and seal it again."""
    file = manifests(dest)[-1]
    manifest = read(file)
    change(manifest)
    seal(file, manifest)


def in_registry(dest: Path, change: Callable[[Connection], object]) -> None:
    """Change the registry's copy of the newest generation, manifest and all."""

    def forged(manifest: Manifest) -> None:
        _rewrite(dest, manifest["control"], change)

    forge(dest, forged)


def in_namespace(dest: Path, change: Callable[[Connection], object]) -> None:
    """Change the first namespace's copy of the newest generation, manifest and all."""

    def forged(manifest: Manifest) -> None:
        _rewrite(dest, manifest["namespaces"][0]["object"], change)

    forge(dest, forged)


def _rewrite(dest: Path, told: dict[str, Any], change: Callable[[Connection], object]) -> None:
    file = dest / told["path"]
    with closing(connect(file)) as connection:
        change(connection)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = file.read_bytes()
    told |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
