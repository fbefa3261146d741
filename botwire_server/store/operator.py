"""What an operator can do: the verbs behind the command line and the operator API.

Each leaves a line in the audit. It cannot read what tenants store.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import orjson

from botwire_server import limits
from botwire_server.errors import Invalid, NotFound
from botwire_server.store import archive, keys, listings, names, purges, records, shown, usage
from botwire_server.store.deadlines import Deadline
from botwire_server.store.registry import Registry, new_id
from botwire_server.store.rows import KeyRow, TenantRow
from botwire_server.store.staging import MARK, staging
from botwire_server.tiers import UNLIMITED, Tier

Row = TypeVar("Row")
# What a list shows, some of it at a time: JSON arrays.
Pages = AsyncIterator[bytes]
FinishPurge = Callable[[str], Awaitable[dict[str, Any]]]

_DURATION = re.compile("([0-9]{1,6})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


class Operator:
    """An operator, known in the audit as `actor`.

    `finish_purge` does what a purge has begun and returns the receipt; `settle` writes down what
    this process has counted, `deadline` is what may be read until. Lists come by the page.
    """

    def __init__(
        self,
        registry: Registry,
        tiers: Mapping[str, Tier],
        *,
        actor: str,
        finish_purge: FinishPurge,
        settle: Callable[[], Awaitable[None]] | None = None,
        deadline: Deadline | None = None,
    ) -> None:
        self._registry = registry
        self._tiers = tiers
        self._actor = actor
        self._finish_purge = finish_purge
        self._settle = settle
        self._deadline = deadline

    async def create_tenant(self, name: str, *, tier: str = UNLIMITED) -> dict[str, Any]:
        """Make a tenant. Raises `Invalid` if the name is taken."""
        _check_tenant_name(name)
        self._check_tier(tier)
        id = secrets.token_hex(8)
        await self._registry.change(records.add_tenant, id, name, tier)
        await self._note("create tenant", id, id)
        return await self._shown_tenant(id)

    async def list_tenants(self) -> list[dict[str, Any]]:
        """See `tenants`: all at once."""
        return await whole(self.tenants())

    async def tenants(self) -> Pages:
        """Every tenant with what it holds."""
        await self._noted()
        async for page in self._every(
            listings.tenants, shape=shown.tenant, behind=lambda each: each.row.name
        ):
            yield page

    async def show_tenant(self, name: str) -> dict[str, Any]:
        """One tenant: what it holds, and its keys."""
        return await self._shown_tenant(self._tenant(name).id)

    async def set_tier(self, name: str, tier: str) -> dict[str, Any]:
        """Give a tenant another tier; it holds from the next request on."""
        row = self._tenant(name)
        self._check_tier(tier)
        await self._registry.change(records.set_tier, row.id, tier)
        await self._note("set tier", row.id, tier)
        return await self._shown_tenant(row.id)

    async def create_key(
        self,
        tenant: str | None,
        *,
        label: str = "",
        scopes: list[str] | None = None,
        namespace: str = keys.EVERYTHING,
        expires: str | None = None,
    ) -> dict[str, Any]:
        """Make a key of a tenant, or an operator's where `tenant` is None.

        The answer's "key" is the only place where it is ever to be seen. `expires` is a duration
        such as 90d.
        """
        stored, pattern = keys.check_grant(scopes or [], namespace)
        if label:
            names.check(label, "label", longest=limits.LABEL)
        row = None if tenant is None else self._tenant(tenant)
        lifetime = None if expires is None else duration(expires, "expires")
        made = keys.new_key()
        now = self._registry.now
        key = await self._registry.change(
            records.add_key,
            KeyRow(
                id=made.id,
                tenant_id=None if row is None else row.id,
                hash=made.hash,
                label=label,
                scopes=stored,
                pattern=pattern,
                created_at=now,
                last_used_at=None,
                expires_at=None if lifetime is None else now + lifetime,
                revoked_at=None,
            ),
        )
        await self._note("create key", key.tenant_id, key.id)
        return {**shown.key(key, tenant), "key": made.text}

    async def list_keys(self, tenant: str | None = None) -> list[dict[str, Any]]:
        """See `keys`: all at once."""
        return await whole(self.keys(tenant))

    async def keys(self, tenant: str | None = None) -> Pages:
        """The keys of a tenant, or all of them; never their secrets."""
        tenant_id = None if tenant is None else self._tenant(tenant).id
        async for page in self._keys(tenant_id):
            yield page

    async def rotate_key(self, id: str, *, grace: str | None = None) -> dict[str, Any]:
        """Replace a key by a new one with the same label, scopes, pattern and lifetime.

        The old one works for `grace` (such as 24h) more, or no longer.
        """
        key, tenant = await self._key(id)
        now = self._registry.now
        if not key.works(now):
            raise Invalid(
                "This key does not work any more; create a new one.", where=("path", "id")
            )
        seconds = 0.0 if grace is None else duration(grace, "grace")
        made = keys.new_key()
        lifetime = None if key.expires_at is None else key.expires_at - key.created_at
        new = await self._registry.change(
            records.rotate,
            key,
            made,
            works_until=now + seconds,
            expires_at=None if lifetime is None else now + lifetime,
        )
        await self._note("rotate key", key.tenant_id, f"{key.id} to {new.id}")
        return {**shown.key(new, tenant), "key": made.text, "replaces": key.id}

    async def revoke_key(self, id: str) -> dict[str, Any]:
        """Let a key work no longer; safe to repeat."""
        key, tenant = await self._key(id)
        key = await self._registry.change(records.revoke, key.id)
        await self._note("revoke key", key.tenant_id, key.id)
        return shown.key(key, tenant)

    async def list_namespaces(self, tenant: str, *, prefix: str = "") -> list[dict[str, Any]]:
        """See `namespaces`: all at once."""
        return await whole(self.namespaces(tenant, prefix=prefix))

    async def namespaces(self, tenant: str, *, prefix: str = "") -> Pages:
        """A tenant's namespaces with what they hold."""
        await self._noted()
        row = self._tenant(tenant)
        async for page in self._every(
            listings.namespaces,
            row.id,
            prefix=prefix,
            shape=shown.namespace,
            behind=lambda held: held.row.name,
        ):
            yield page

    async def purge_namespace(self, tenant: str, name: str) -> dict[str, Any]:
        """Remove one namespace for good; the receipt."""
        row = self._tenant(tenant)
        found = self._registry.namespace(row.id, name)
        if found is None:
            raise NotFound("This tenant has no such namespace.")
        return await self._purge(purges.bury_namespace, row.id, found.id, tenant=tenant)

    async def purge_prefix(self, tenant: str, prefix: str) -> dict[str, Any]:
        """Remove every namespace whose name begins so; the receipt."""
        row = self._tenant(tenant)
        if not prefix:
            raise Invalid("The prefix must not be empty.", where=("query", "prefix"))
        return await self._purge(purges.bury_prefix, row.id, prefix, tenant=tenant)

    async def purge_tenant(self, tenant: str) -> dict[str, Any]:
        """Remove a tenant with its keys, namespaces and accounts for good; the receipt."""
        begun = await self._registry.query(purges.begun, tenant)
        if begun is not None:
            return {"tenant": tenant, **await self._finish_purge(begun)}
        row = self._tenant(tenant)
        return await self._purge(purges.bury_tenant, row.id, tenant=tenant)

    async def export_tenant(
        self, name: str, file: Path, *, data_dir: Path, progress: archive.Progress
    ) -> dict[str, Any]:
        """Write a tenant to a file; what was written."""
        row = self._tenant(name)
        await self._noted()
        pages = listings.every(
            self._registry,
            listings.namespaces,
            row.id,
            shape=lambda held: held,
            behind=lambda held: held.row.name,
        )
        namespaces = [held async for page in pages for held in page]
        manifest = await asyncio.to_thread(archive.write, file, data_dir, row, namespaces, progress)
        await self._note("export tenant", row.id, f"{len(namespaces)} namespaces")
        return {"tenant": name, "file": str(file), **_counts(manifest)}

    async def import_tenant(
        self,
        file: Path,
        *,
        name: str | None,
        data_dir: Path,
        progress: archive.Progress,
        any_size: bool = False,
    ) -> dict[str, Any]:
        """Make a tenant of a file, under the name it had or another."""
        manifest = await asyncio.to_thread(archive.check, file, progress, any_size=any_size)
        name = name or manifest["tenant"]
        _check_tenant_name(name)
        if self._registry.tenant(name) is not None:
            raise Invalid("There is a tenant of this name; give another with --as.")
        tier = manifest["tier"] if manifest["tier"] in self._tiers else UNLIMITED
        known = set(await self._registry.query(records.namespace_ids))
        tenant_id = secrets.token_hex(8)
        with staging(data_dir) as place:
            built = await asyncio.to_thread(
                lambda: list(
                    archive.build(
                        file,
                        data_dir,
                        place,
                        tenant_id,
                        # The ids go on where they can, and with them those of the memories.
                        new_id=lambda old: old if old not in known else new_id(),
                        progress=progress,
                    )
                )
            )
            built_at = data_dir / "tenants" / tenant_id
            try:
                await self._registry.change(records.add_built, tenant_id, name, tier, built)
            except BaseException:
                shutil.rmtree(built_at, ignore_errors=True)
                raise
            (built_at / MARK).unlink()
        await self._note("import tenant", tenant_id, f"{len(built)} namespaces")
        return {"tenant": name, "file": str(file), **_counts(manifest)}

    async def usage(self, tenant: str | None = None) -> list[dict[str, Any]]:
        """Calls and holdings of one tenant or of all, by key and by day."""
        return await whole(self.usages()) if tenant is None else [await self.usage_of(tenant)]

    async def usages(self) -> Pages:
        """Calls and holdings of all tenants, by key and by day."""
        await self._noted()
        pages = listings.every(
            self._registry,
            listings.tenants,
            limit=listings.REPORTS,
            shape=lambda each: each.row,
            behind=lambda each: each.row.name,
            deadline=self._deadline,
        )
        async for page in pages:
            reports = []
            for row in page:
                with suppress(NotFound):  # purged meanwhile
                    reports.append(await self._usage_of(row))
            yield orjson.dumps(reports)

    async def usage_of(self, tenant: str) -> dict[str, Any]:
        """Calls and holdings of one tenant, by key and by day."""
        await self._noted()
        return await self._usage_of(self._tenant(tenant))

    async def audit(self, tenant: str | None = None) -> list[dict[str, Any]]:
        """See `audited`: all at once."""
        return await whole(self.audited(tenant))

    async def audited(self, tenant: str | None = None) -> Pages:
        """What was done, oldest first."""
        tenant_id = None if tenant is None else self._tenant(tenant).id
        async for page in self._every(
            listings.audit, tenant_id, shape=shown.line, behind=lambda line: line.number
        ):
            yield page

    async def note(self, action: str, tenant: str, subject: str, outcome: str = "done") -> None:
        """Leave a line in the audit."""
        await self._note(action, self._tenant(tenant).id, subject, outcome)

    def _tenant(self, name: str) -> TenantRow:
        row = self._registry.tenant(name)
        if row is None:
            raise records.no_tenant()
        return row

    async def _shown_tenant(self, id: str) -> dict[str, Any]:
        await self._noted()
        owned = await whole(self._keys(id))
        found = await self._registry.query_within(self._deadline, listings.tenants, id=id)
        if not found:
            raise records.no_tenant()
        return {**shown.tenant(found[0]), "keys": owned}

    async def _keys(self, tenant_id: str | None) -> Pages:
        async for page in self._every(
            listings.keys,
            tenant_id,
            shape=lambda row: shown.key(*row),
            behind=lambda row: (row[0].created_at, row[0].id),
        ):
            yield page

    async def _every(
        self,
        unit: Callable[..., list[Row]],
        *args: Any,
        shape: Callable[[Row], dict[str, Any]],
        behind: Callable[[Row], Any],
        **kwargs: Any,
    ) -> Pages:
        """The pages of a list as JSON."""
        async for page in listings.every(
            self._registry,
            unit,
            *args,
            shape=lambda row: orjson.dumps(shape(row)),
            behind=behind,
            deadline=self._deadline,
            **kwargs,
        ):
            yield b"[" + b",".join(page) + b"]"

    async def _usage_of(self, row: TenantRow) -> dict[str, Any]:
        found = await self._registry.query_within(self._deadline, usage.report, row.id)
        if self._tenant(row.name).id != row.id:
            raise records.no_tenant()
        return {"tenant": row.name, **found}

    async def _key(self, id: str) -> tuple[KeyRow, str | None]:
        found = await self._registry.query_within(self._deadline, listings.key, id)
        if found is None:
            raise records.no_key()
        return found

    def _check_tier(self, tier: str) -> None:
        if tier not in self._tiers:
            raise Invalid(
                f"There is no such tier; there are {', '.join(sorted(self._tiers))}.",
                where=("body", "tier"),
            )

    async def _purge(
        self,
        bury: Callable[..., str | None],
        tenant_id: str,
        *what: str,
        tenant: str,
    ) -> dict[str, Any]:
        purge_id = await self._registry.change(bury, tenant_id, *what, actor=self._actor)
        if purge_id is None:
            raise NotFound("There is nothing to remove.")
        return {"tenant": tenant, **await self._finish_purge(purge_id)}

    async def _noted(self) -> None:
        if self._settle is not None:
            await self._settle()

    async def _note(
        self, action: str, tenant_id: str | None, subject: str, outcome: str = "done"
    ) -> None:
        await self._registry.change(
            records.add_audit, self._actor, action, tenant_id, subject, outcome
        )


async def whole(pages: Pages) -> list[dict[str, Any]]:
    """A list with all its pages, for who has room for it."""
    return [row async for page in pages for row in orjson.loads(page)]


def _check_tenant_name(name: str) -> None:
    names.check(name, "tenant", longest=limits.TENANT)
    if "/" in name or name in (".", ".."):
        # It stands in the paths of the operator API.
        raise Invalid("A tenant's name must not hold a slash.", where=("body", "name"))


def _counts(manifest: dict[str, Any]) -> dict[str, int]:
    counts = dict.fromkeys(archive.KINDS, 0)
    for namespace in manifest["namespaces"]:
        for member in namespace["members"]:
            counts[member["kind"]] += member["records"]
    return {"namespaces": len(manifest["namespaces"]), **counts}


def duration(text: str, field: str) -> float:
    """Seconds of 30s, 15m, 24h or 90d."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Invalid(
            f"{field} must be a number with s, m, h or d, such as 24h.", where=("body", field)
        )
    return float(int(match[1]) * _SECONDS[match[2]])
