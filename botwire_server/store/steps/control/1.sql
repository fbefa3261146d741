-- Once a key was made, keys are required for good: the door does not open when the last tenant is
-- purged.
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;

CREATE TABLE tenants (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        tier TEXT NOT NULL,
        created_at REAL NOT NULL,
        purging_at REAL
    ) WITHOUT ROWID;

-- An operator's key has no tenant. hash is the SHA-256 of the whole key.
CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        tenant_id TEXT REFERENCES tenants (id),
        hash BLOB NOT NULL,
        label TEXT NOT NULL,
        scopes TEXT NOT NULL,
        pattern TEXT NOT NULL,
        created_at REAL NOT NULL,
        last_used_at REAL,
        expires_at REAL,
        revoked_at REAL
    ) WITHOUT ROWID;

CREATE INDEX keys_tenant ON keys (tenant_id);

CREATE TABLE namespaces (
        id TEXT PRIMARY KEY,
        tenant_id TEXT NOT NULL REFERENCES tenants (id),
        name TEXT NOT NULL,
        file TEXT NOT NULL,
        created_at REAL NOT NULL,
        sweep_at REAL,
        model TEXT,
        entries INTEGER NOT NULL DEFAULT 0,
        states INTEGER NOT NULL DEFAULT 0,
        memories INTEGER NOT NULL DEFAULT 0,
        episodes INTEGER NOT NULL DEFAULT 0,
        vectors INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0,
        sessions INTEGER NOT NULL DEFAULT 0,
        UNIQUE (tenant_id, name)
    ) WITHOUT ROWID;

CREATE INDEX namespaces_sweep ON namespaces (sweep_at) WHERE sweep_at IS NOT NULL;

-- A purge is written down before the first file goes; its receipt when the last is gone. Neither holds a
-- name: what was purged is known by its ids.
CREATE TABLE purges (
        id TEXT PRIMARY KEY,
        tenant_id TEXT NOT NULL,
        scope TEXT NOT NULL,
        actor TEXT NOT NULL,
        started_at REAL NOT NULL,
        receipt TEXT
    ) WITHOUT ROWID;

CREATE INDEX purges_due ON purges (started_at) WHERE receipt IS NULL;

CREATE TABLE tombstones (
        namespace_id TEXT PRIMARY KEY,
        purge_id TEXT NOT NULL REFERENCES purges (id),
        file TEXT NOT NULL,
        known TEXT NOT NULL,
        held TEXT,
        removed_at REAL
    ) WITHOUT ROWID;

CREATE INDEX tombstones_due ON tombstones (purge_id) WHERE removed_at IS NULL;

CREATE TABLE calls (
        day INTEGER NOT NULL,
        tenant_id TEXT NOT NULL,
        key_id TEXT NOT NULL,
        calls INTEGER NOT NULL,
        embeddings INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (tenant_id, key_id, day)
    ) WITHOUT ROWID;

CREATE TABLE holdings (
        day INTEGER NOT NULL,
        tenant_id TEXT NOT NULL,
        namespaces INTEGER NOT NULL,
        vectors INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        PRIMARY KEY (tenant_id, day)
    ) WITHOUT ROWID;

CREATE TABLE audit (
        id INTEGER PRIMARY KEY,
        at REAL NOT NULL,
        actor TEXT NOT NULL,
        action TEXT NOT NULL,
        tenant_id TEXT,
        subject TEXT,
        outcome TEXT NOT NULL
    );

CREATE INDEX audit_tenant ON audit (tenant_id);

-- What a command asks the holder of the lock to do.
CREATE TABLE chores (
        kind TEXT NOT NULL,
        namespace_id TEXT NOT NULL REFERENCES namespaces (id) ON DELETE CASCADE,
        asked_at REAL NOT NULL,
        done INTEGER NOT NULL DEFAULT 0,
        total INTEGER NOT NULL DEFAULT 0,
        outcome TEXT,
        PRIMARY KEY (kind, namespace_id)
    ) WITHOUT ROWID;

CREATE INDEX chores_namespace ON chores (namespace_id);
