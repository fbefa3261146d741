-- A checksum beside what was stored (NULL for what was there before), and long values last: what is
-- read without them would else be read from behind them, page after page, and a garbled page there is
-- noticed by nobody.
DROP TRIGGER episodes_added;

DROP TRIGGER episodes_removed;

CREATE TABLE new_entries (
        revision INTEGER PRIMARY KEY,
        bytes INTEGER NOT NULL,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        expires_at REAL,
        crc INTEGER,
        key TEXT NOT NULL UNIQUE,
        value BLOB NOT NULL
    );

CREATE TABLE new_states (
        id INTEGER PRIMARY KEY,
        version INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        expires_at REAL,
        crc INTEGER,
        session_id TEXT NOT NULL UNIQUE,
        data BLOB NOT NULL
    );

INSERT INTO new_entries (revision, bytes, created_at, updated_at, expires_at, key, value) SELECT revision, bytes, created_at, updated_at, expires_at, key, value FROM entries;

DROP TABLE entries;

ALTER TABLE new_entries RENAME TO entries;

INSERT INTO new_states (id, version, bytes, created_at, updated_at, expires_at, session_id, data) SELECT id, version, bytes, created_at, updated_at, expires_at, session_id, data FROM states;

DROP TABLE states;

ALTER TABLE new_states RENAME TO states;

CREATE INDEX entries_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL;

CREATE INDEX states_expiry ON states (expires_at) WHERE expires_at IS NOT NULL;

CREATE TRIGGER entries_added AFTER INSERT ON entries BEGIN
        UPDATE totals SET entries = entries + 1, bytes = bytes + new.bytes,
            key_bytes = key_bytes + octet_length(new.key); END;

CREATE TRIGGER entries_removed AFTER DELETE ON entries BEGIN
        UPDATE totals SET entries = entries - 1, bytes = bytes - old.bytes,
            key_bytes = key_bytes - octet_length(old.key); END;

CREATE TRIGGER entries_rewritten AFTER UPDATE ON entries BEGIN
            UPDATE totals SET bytes = bytes + new.bytes - old.bytes; END;

CREATE TRIGGER states_rewritten AFTER UPDATE ON states BEGIN
            UPDATE totals SET bytes = bytes + new.bytes - old.bytes; END;

CREATE TRIGGER states_added AFTER INSERT ON states BEGIN
            UPDATE totals SET states = states + 1, bytes = bytes + new.bytes
            , sessions = sessions + NOT EXISTS (SELECT 1 FROM episodes WHERE session_id = new.session_id); END;

CREATE TRIGGER states_removed AFTER DELETE ON states BEGIN
            UPDATE totals SET states = states - 1, bytes = bytes - old.bytes
            , sessions = sessions - NOT EXISTS (SELECT 1 FROM episodes WHERE session_id = old.session_id); END;

CREATE TRIGGER episodes_added AFTER INSERT ON episodes BEGIN
            UPDATE totals SET episodes = episodes + 1, bytes = bytes + new.bytes
            , sessions = sessions + NOT EXISTS (SELECT 1 FROM states WHERE session_id = new.session_id UNION ALL
                SELECT 1 FROM episodes WHERE session_id = new.session_id AND id <> new.id); END;

CREATE TRIGGER episodes_removed AFTER DELETE ON episodes BEGIN
            UPDATE totals SET episodes = episodes - 1, bytes = bytes - old.bytes
            , sessions = sessions - NOT EXISTS (SELECT 1 FROM states WHERE session_id = old.session_id UNION ALL
                SELECT 1 FROM episodes WHERE session_id = old.session_id AND id <> old.id); END;

ALTER TABLE memories ADD COLUMN crc INTEGER;

ALTER TABLE memory_history ADD COLUMN crc INTEGER;

ALTER TABLE episodes ADD COLUMN crc INTEGER;
