-- How many namespaces a tenant has is known without counting them: there is a limit for everybody.

ALTER TABLE tenants ADD COLUMN namespaces INTEGER NOT NULL DEFAULT 0;

UPDATE tenants SET namespaces = (SELECT count(*) FROM namespaces WHERE tenant_id = tenants.id);

CREATE TRIGGER namespace_added AFTER INSERT ON namespaces BEGIN
    UPDATE tenants SET namespaces = namespaces + 1 WHERE id = new.tenant_id; END;

CREATE TRIGGER namespace_removed AFTER DELETE ON namespaces BEGIN
    UPDATE tenants SET namespaces = namespaces - 1 WHERE id = old.tenant_id; END;

-- The oldest receipts of what tenants purged themselves go when there are very many.

CREATE INDEX purges_tenant ON purges (tenant_id, scope, started_at);

CREATE INDEX tombstones_purge ON tombstones (purge_id);
