-- Entries: writing one again moves it to the next revision (see totals), which is never used twice:
-- newest first is the table read backwards.
CREATE TABLE entries (
        revision INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        value BLOB NOT NULL,
        bytes INTEGER NOT NULL,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        expires_at REAL
    );

CREATE INDEX entries_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL;

-- States: data is JSON. One row a session; the version goes on where a state is stored over.
CREATE TABLE states (
        id INTEGER PRIMARY KEY,
        session_id TEXT NOT NULL UNIQUE,
        data BLOB NOT NULL,
        version INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        expires_at REAL
    );

CREATE INDEX states_expiry ON states (expires_at) WHERE expires_at IS NOT NULL;

-- Memories: the collection, the session and the canonical text make same: who stores the same again
-- finds the row there. memory_history keeps what a merge replaced. Triggers keep rows and words
-- together; a trigger may not write to vec0, so vectors and memory_bits are kept together by code.
CREATE TABLE memories (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        collection TEXT NOT NULL,
        content TEXT NOT NULL,
        metadata TEXT NOT NULL,
        session_id TEXT,
        same BLOB NOT NULL UNIQUE,
        bytes INTEGER NOT NULL,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL
    );

CREATE INDEX memories_session ON memories (session_id, collection)
        WHERE session_id IS NOT NULL;

CREATE TABLE memory_history (
        memory_id INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        content TEXT NOT NULL,
        metadata TEXT NOT NULL,
        replaced_at REAL NOT NULL,
        PRIMARY KEY (memory_id, revision)
    ) WITHOUT ROWID;

CREATE VIRTUAL TABLE memory_text USING fts5 (
        content, content='memories', content_rowid='id', tokenize='porter unicode61'
    );

INSERT INTO memory_text (memory_text, rank) VALUES ('secure-delete', 1);

-- Whose vectors these are; complete is 0 while some memory has none of this model.
CREATE TABLE vector_model (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        name TEXT,
        dimension INTEGER,
        complete INTEGER NOT NULL DEFAULT 1
    );

INSERT INTO vector_model (id) VALUES (1);

CREATE TABLE vectors (id INTEGER PRIMARY KEY, embedding BLOB NOT NULL);

CREATE VIRTUAL TABLE memory_bits USING vec0 (
            bits bit[256], chunk_size=256
        );

CREATE TRIGGER vectors_added AFTER INSERT ON vectors BEGIN
            UPDATE totals SET vectors = vectors + 1; END;

CREATE TRIGGER vectors_removed AFTER DELETE ON vectors BEGIN
            UPDATE totals SET vectors = vectors - 1; END;

CREATE TRIGGER memory_text_added AFTER INSERT ON memories BEGIN
        INSERT INTO memory_text (rowid, content) VALUES (new.id, new.content); END;

CREATE TRIGGER memory_text_rewritten AFTER UPDATE OF content ON memories BEGIN
        INSERT INTO memory_text (memory_text, rowid, content)
            VALUES ('delete', old.id, old.content);
        INSERT INTO memory_text (rowid, content) VALUES (new.id, new.content); END;

CREATE TRIGGER memory_erased AFTER DELETE ON memories BEGIN
        INSERT INTO memory_text (memory_text, rowid, content)
            VALUES ('delete', old.id, old.content);
        DELETE FROM memory_history WHERE memory_id = old.id; END;

-- Episodes: the order of the ids is their order, also within one millisecond. content and metadata are
-- JSON. The index keeps no text: what it indexed follows from content.
CREATE TABLE episodes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        session_id TEXT NOT NULL,
        type TEXT NOT NULL,
        content BLOB NOT NULL,
        metadata BLOB NOT NULL,
        bytes INTEGER NOT NULL,
        created_at REAL NOT NULL
    );

CREATE INDEX episodes_session ON episodes (session_id, id);

CREATE VIRTUAL TABLE episode_text USING fts5 (
        text, content='', tokenize='porter unicode61'
    );

INSERT INTO episode_text (episode_text, rank) VALUES ('secure-delete', 1);

-- Totals: one row, so that a write touches one page for all that is counted: the writes of the UTC day;
-- the revision, which every change moves; and what the file holds, which triggers keep. sessions are
-- those that have a state or episodes.
CREATE TABLE totals (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        day INTEGER NOT NULL DEFAULT 0,
        writes INTEGER NOT NULL DEFAULT 0,
        revision INTEGER NOT NULL DEFAULT 0,
        entries INTEGER NOT NULL DEFAULT 0,
        states INTEGER NOT NULL DEFAULT 0,
        memories INTEGER NOT NULL DEFAULT 0,
        episodes INTEGER NOT NULL DEFAULT 0,
        vectors INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL DEFAULT 0,
        key_bytes INTEGER NOT NULL DEFAULT 0,
        sessions INTEGER NOT NULL DEFAULT 0
    );

INSERT INTO totals (id) VALUES (1);

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

CREATE TRIGGER memories_rewritten AFTER UPDATE ON memories BEGIN
            UPDATE totals SET bytes = bytes + new.bytes - old.bytes; END;

CREATE TRIGGER episodes_rewritten AFTER UPDATE ON episodes BEGIN
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

CREATE TRIGGER memories_added AFTER INSERT ON memories BEGIN
            UPDATE totals SET memories = memories + 1, bytes = bytes + new.bytes
            ; END;

CREATE TRIGGER memories_removed AFTER DELETE ON memories BEGIN
            UPDATE totals SET memories = memories - 1, bytes = bytes - old.bytes
            ; END;
