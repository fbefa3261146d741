"""What operators see of the registry's rows, on the command line as in the operator API."""

from __future__ import annotations

from typing import Any

from botwire_server.logs import timestamp
from botwire_server.store.listings import Held, Line, Tenant
from botwire_server.store.rows import KeyRow


def tenant(tenant: Tenant) -> dict[str, Any]:
    """A tenant."""
    id, name, tier = tenant.row
    return {
        "tenant": name,
        "id": id,
        "tier": tier,
        "created_at": timestamp(tenant.created_at),
        "namespaces": tenant.namespaces,
        **tenant.totals._asdict(),
    }


def namespace(held: Held) -> dict[str, Any]:
    """A namespace with what it holds."""
    return {
        "namespace": held.row.name,
        "id": held.row.id,
        "created_at": timestamp(held.created_at),
        **held.totals._asdict(),
    }


def line(line: Line) -> dict[str, Any]:
    """A line of the audit."""
    return {
        "at": timestamp(line.at),
        "actor": line.actor,
        "action": line.action,
        "tenant": line.tenant or line.tenant_id,
        "tenant_id": line.tenant_id,
        "subject": line.subject,
        "outcome": line.outcome,
    }


def key(key: KeyRow, tenant: str | None) -> dict[str, Any]:
    """A key, never its secret."""

    def time(moment: float | None) -> str | None:
        return None if moment is None else timestamp(moment)

    return {
        "id": key.id,
        "tenant": tenant,
        "operator": key.tenant_id is None,
        "label": key.label,
        "scopes": key.scopes.split(","),
        "namespace": key.pattern,
        "created_at": time(key.created_at),
        "last_used_at": time(key.last_used_at),
        "expires_at": time(key.expires_at),
        "revoked_at": time(key.revoked_at),
    }
