"""Where a namespace's file lies: the one form that its path has, whoever wrote the registry's row.

A registry may have come from elsewhere, and what stands in it is opened, copied and removed: every
path is looked at here before it is used.
"""

from __future__ import annotations

import re
from pathlib import Path

from botwire_server.errors import Damaged
from botwire_server.store.rows import NamespaceRow

_TENANT = re.compile("[0-9a-f]{16}")
_FILE = re.compile(r"tenants/([0-9a-f]{16})/[a-z0-9-]{1,40}?-([0-9a-f]{15})\.db")


def located(data_dir: Path, row: NamespaceRow) -> Path:
    """A namespace's file. Raises `Damaged` if the registry names one that cannot be its own."""
    found = _FILE.fullmatch(row.file)
    if found is None or found.groups() != (row.tenant_id, row.id):
        raise _cannot_be()
    return data_dir / row.file


def removable(data_dir: Path, file: str, tenant_id: str) -> Path:
    """A namespace's file that is to be removed. Raises `Damaged` if it cannot be the tenant's."""
    found = _FILE.fullmatch(file)
    if found is None or found[1] != tenant_id:
        raise _cannot_be()
    return data_dir / file


def folder(data_dir: Path, tenant_id: str) -> Path:
    """The directory of a tenant's files. Raises `Damaged` if this cannot be a tenant's id."""
    if not _TENANT.fullmatch(tenant_id):
        raise _cannot_be()
    return data_dir / "tenants" / tenant_id


def _cannot_be() -> Damaged:
    return Damaged(
        "The registry has this namespace under a file that cannot be its own, which was left as it "
        "is; the operator can restore control.db from a backup."
    )
