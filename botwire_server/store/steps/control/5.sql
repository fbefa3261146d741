-- Writes of the UTC day that namespaces had had when they were purged: their names, made again, go on
-- from there. A name is known by its HMAC under a secret of the day, which goes with the day.

CREATE TABLE day_secret (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    day INTEGER NOT NULL,
    secret BLOB NOT NULL
);

CREATE TABLE spent (
    mark BLOB PRIMARY KEY,
    writes INTEGER NOT NULL
) WITHOUT ROWID;

-- Of a namespace whose writes are not counted yet.
ALTER TABLE tombstones ADD COLUMN mark BLOB;

CREATE INDEX tombstones_marked ON tombstones (mark) WHERE mark IS NOT NULL;
