"""What a namespace's file is made of, step by step. A step that was released is never changed:
what comes later is one more.
"""

from __future__ import annotations


def vector_tables(dimension: int) -> tuple[str, ...]:
    """The tables for vectors of this dimension.

    `vectors` holds normalised float32 under the memory's id times 4,096 plus the number of the
    chunk; `memory_bits` their signs (padded to whole bytes), by which a search is narrowed down.
    """
    return (
        "CREATE TABLE vectors (id INTEGER PRIMARY KEY, embedding BLOB NOT NULL)",
        # A small chunk: the first vector reserves room for a whole one.
        f"""CREATE VIRTUAL TABLE memory_bits USING vec0 (
            bits bit[{dimension + -dimension % 8}], chunk_size=256
        )""",
        """CREATE TRIGGER vectors_added AFTER INSERT ON vectors BEGIN
            UPDATE totals SET vectors = vectors + 1; END""",
        """CREATE TRIGGER vectors_removed AFTER DELETE ON vectors BEGIN
            UPDATE totals SET vectors = vectors - 1; END""",
    )


# Writing an entry again moves it to the next revision (see `totals`), which is never used twice:
# newest first is the table read backwards.
_ENTRIES = (
    """CREATE TABLE entries (
        revision INTEGER PRIMARY KEY,
        key TEXT NOT NULL UNIQUE,
        value BLOB NOT NULL,
        bytes INTEGER NOT NULL,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        expires_at REAL
    )""",
    "CREATE INDEX entries_expiry ON entries (expires_at) WHERE expires_at IS NOT NULL",
)

# The collection, the session and the canonical text make `same`: who stores the same again finds
# the row there. `memory_history` keeps what a merge replaced. Triggers keep rows and words
# together; a trigger may not write to vec0, so `vectors` keeps its own two tables together.
_MEMORIES = (
    """CREATE TABLE memories (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        collection TEXT NOT NULL,
        content TEXT NOT NULL,
        metadata TEXT NOT NULL,
        session_id TEXT,
        same BLOB NOT NULL UNIQUE,
        bytes INTEGER NOT NULL,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL
    )""",
    """CREATE INDEX memories_session ON memories (session_id, collection)
        WHERE session_id IS NOT NULL""",
    """CREATE TABLE memory_history (
        memory_id INTEGER NOT NULL,
        revision INTEGER NOT NULL,
        content TEXT NOT NULL,
        metadata TEXT NOT NULL,
        replaced_at REAL NOT NULL,
        PRIMARY KEY (memory_id, revision)
    ) WITHOUT ROWID""",
    """CREATE VIRTUAL TABLE memory_text USING fts5 (
        content, content='memories', content_rowid='id', tokenize='porter unicode61'
    )""",
    "INSERT INTO memory_text (memory_text, rank) VALUES ('secure-delete', 1)",
    # Whose vectors these are; `complete` is 0 while some memory has none of this model.
    """CREATE TABLE vector_model (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        name TEXT,
        dimension INTEGER,
        complete INTEGER NOT NULL DEFAULT 1
    )""",
    "INSERT INTO vector_model (id) VALUES (1)",
    *vector_tables(256),
    """CREATE TRIGGER memory_text_added AFTER INSERT ON memories BEGIN
        INSERT INTO memory_text (rowid, content) VALUES (new.id, new.content); END""",
    """CREATE TRIGGER memory_text_rewritten AFTER UPDATE OF content ON memories BEGIN
        INSERT INTO memory_text (memory_text, rowid, content)
            VALUES ('delete', old.id, old.content);
        INSERT INTO memory_text (rowid, content) VALUES (new.id, new.content); END""",
    """CREATE TRIGGER memory_erased AFTER DELETE ON memories BEGIN
        INSERT INTO memory_text (memory_text, rowid, content)
            VALUES ('delete', old.id, old.content);
        DELETE FROM memory_history WHERE memory_id = old.id; END""",
)

# `data` is JSON. One row a session, the version goes on where a state is stored over.
_STATES = (
    """CREATE TABLE states (
        id INTEGER PRIMARY KEY,
        session_id TEXT NOT NULL UNIQUE,
        data BLOB NOT NULL,
        version INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        expires_at REAL
    )""",
    "CREATE INDEX states_expiry ON states (expires_at) WHERE expires_at IS NOT NULL",
)

# The order of the ids is the order of the episodes, also within one millisecond. `content` and
# `metadata` are JSON. The index keeps no text: what it indexed follows from `content`.
_EPISODES = (
    """CREATE TABLE episodes (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        session_id TEXT NOT NULL,
        type TEXT NOT NULL,
        content BLOB NOT NULL,
        metadata BLOB NOT NULL,
        bytes INTEGER NOT NULL,
        created_at REAL NOT NULL
    )""",
    "CREATE INDEX episodes_session ON episodes (session_id, id)",
    """CREATE VIRTUAL TABLE episode_text USING fts5 (
        text, content='', tokenize='porter unicode61'
    )""",
    "INSERT INTO episode_text (episode_text, rank) VALUES ('secure-delete', 1)",
)

# One row, so that a write touches one page for all that is counted: the writes of the UTC day, in
# the transaction of the write; the revision, which every change moves; and the totals, which
# triggers keep, so that no unit of work can forget them. `sessions` are those that have a state or
# episodes.
_COUNTERS = (
    """CREATE TABLE totals (
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
    )""",
    "INSERT INTO totals (id) VALUES (1)",
    """CREATE TRIGGER entries_added AFTER INSERT ON entries BEGIN
        UPDATE totals SET entries = entries + 1, bytes = bytes + new.bytes,
            key_bytes = key_bytes + octet_length(new.key); END""",
    """CREATE TRIGGER entries_removed AFTER DELETE ON entries BEGIN
        UPDATE totals SET entries = entries - 1, bytes = bytes - old.bytes,
            key_bytes = key_bytes - octet_length(old.key); END""",
    *(
        f"""CREATE TRIGGER {table}_rewritten AFTER UPDATE ON {table} BEGIN
            UPDATE totals SET bytes = bytes + new.bytes - old.bytes; END"""  # noqa: S608
        for table in ("entries", "states", "memories", "episodes")
    ),
    *(
        f"""CREATE TRIGGER {table}_{verb} AFTER {event} ON {table} BEGIN
            UPDATE totals SET {table} = {table} {sign} 1, bytes = bytes {sign} {row}.bytes
            {sessions}; END"""  # noqa: S608
        for table, others in (
            ("states", "SELECT 1 FROM episodes WHERE session_id = {row}.session_id"),
            (
                "episodes",
                """SELECT 1 FROM states WHERE session_id = {row}.session_id UNION ALL
                SELECT 1 FROM episodes WHERE session_id = {row}.session_id AND id <> {row}.id""",
            ),
            ("memories", ""),
        )
        for verb, event, sign, row in (
            ("added", "INSERT", "+", "new"),
            ("removed", "DELETE", "-", "old"),
        )
        for sessions in (
            f", sessions = sessions {sign} NOT EXISTS ({others.format(row=row)})" if others else "",
        )
    ),
)

# The namespace's id, written when the file is first opened: a file that stands in another's place
# is known by it.
_OWNER = ("ALTER TABLE totals ADD COLUMN owner TEXT",)

# A checksum beside what was stored (see `checksums`; NULL for what was there before), and long
# values last: what is read without them would else be read from behind them, page after page,
# and a garbled page there is noticed by nobody.
_CHECKSUMS = (
    "DROP TRIGGER episodes_added",
    "DROP TRIGGER episodes_removed",
    """CREATE TABLE new_entries (
        revision INTEGER PRIMARY KEY,
        bytes INTEGER NOT NULL,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        expires_at REAL,
        crc INTEGER,
        key TEXT NOT NULL UNIQUE,
        value BLOB NOT NULL
    )""",
    """CREATE TABLE new_states (
        id INTEGER PRIMARY KEY,
        version INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        expires_at REAL,
        crc INTEGER,
        session_id TEXT NOT NULL UNIQUE,
        data BLOB NOT NULL
    )""",
    *(
        statement
        for table, columns in (
            ("entries", "revision, bytes, created_at, updated_at, expires_at, key, value"),
            (
                "states",
                "id, version, bytes, created_at, updated_at, expires_at, session_id, data",
            ),
        )
        for statement in (
            f"INSERT INTO new_{table} ({columns}) SELECT {columns} FROM {table}",  # noqa: S608
            f"DROP TABLE {table}",
            f"ALTER TABLE new_{table} RENAME TO {table}",
        )
    ),
    *(
        statement
        for statement in (*_ENTRIES, *_STATES, *_COUNTERS)
        if statement.startswith(("CREATE INDEX", "CREATE TRIGGER episodes_added"))
        or statement.startswith("CREATE TRIGGER episodes_removed")
        or (statement.startswith("CREATE TRIGGER") and "ON entries" in statement)
        or (statement.startswith("CREATE TRIGGER") and "ON states" in statement)
    ),
    "ALTER TABLE memories ADD COLUMN crc INTEGER",
    "ALTER TABLE memory_history ADD COLUMN crc INTEGER",
    "ALTER TABLE episodes ADD COLUMN crc INTEGER",
)

STEPS = ((*_ENTRIES, *_STATES, *_MEMORIES, *_EPISODES, *_COUNTERS), _OWNER, _CHECKSUMS)
