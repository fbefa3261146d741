-- Files that a restore has replaced: to be removed by the holder of the lock. One without a file says
-- only that the tenant's namespaces are others now.
CREATE TABLE discarded (
        id INTEGER PRIMARY KEY,
        tenant_id TEXT NOT NULL,
        file TEXT NOT NULL
    );
