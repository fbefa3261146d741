"""What the registry knows of a tenant, a namespace and a key."""

from __future__ import annotations

from typing import NamedTuple

# The id of a tenant that is made when something is first stored in it.
UNMADE = ""


class TenantRow(NamedTuple):
    """A tenant as the registry knows it; or one that it does not know yet, `UNMADE`."""

    id: str
    name: str
    tier: str


class NamespaceRow(NamedTuple):
    """A namespace as the registry knows it. `file` is relative to the data directory."""

    id: str
    tenant_id: str
    name: str
    file: str


class KeyRow(NamedTuple):
    """An API key as the registry knows it; an operator's has no tenant. Times in Unix seconds."""

    id: str
    tenant_id: str | None
    hash: bytes
    label: str
    scopes: str
    pattern: str
    created_at: float
    last_used_at: float | None
    expires_at: float | None
    revoked_at: float | None

    def works(self, now: float) -> bool:
        """Whether it is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)
