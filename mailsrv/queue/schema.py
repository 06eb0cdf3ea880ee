"""The tables of the queue, one SQLite file: precious, so versions migrate."""

# Each step leads from the user_version that is its index to the next one.
#
# `recipient`: one row each, kept until all of the message are settled, so that an
# admin sees what became of the others. next_at_utc is NULL where nothing is to come.
# No id is used twice: it marks the copy of a local delivery.
#
# `recipient_lane` has all that the dispatcher asks when it begins, in its order.
#
# `once`: words of messages that are taken one time only (a newsletter that is sent
# again after a crash), kept for as long as somebody may come again.
MIGRATIONS = (
    """
    CREATE TABLE message (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        file TEXT NOT NULL,
        reverse_path TEXT NOT NULL,
        account TEXT,
        arrived_at_utc REAL NOT NULL,
        priority INTEGER NOT NULL,
        size_octets INTEGER NOT NULL,
        skip_octets INTEGER NOT NULL,
        prefix BLOB NOT NULL,
        eight_bit INTEGER NOT NULL,
        smtputf8 INTEGER NOT NULL,
        require_tls INTEGER NOT NULL,
        ret TEXT NOT NULL,
        envid TEXT NOT NULL
    );
    CREATE TABLE recipient (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        message INTEGER NOT NULL,
        priority INTEGER NOT NULL,
        sender TEXT NOT NULL,
        forward_path TEXT NOT NULL,
        destination TEXT NOT NULL,
        next_at_utc REAL,
        state TEXT NOT NULL,
        notify TEXT NOT NULL,
        orcpt TEXT NOT NULL,
        original TEXT NOT NULL,
        reverse_path TEXT,
        prefix BLOB NOT NULL,
        attempts INTEGER NOT NULL,
        warned INTEGER NOT NULL,
        code INTEGER,
        enhanced_code TEXT,
        text TEXT,
        at_utc REAL,
        peer TEXT,
        tls TEXT,
        relayed INTEGER
    );
    CREATE INDEX message_file ON message (file);
    CREATE INDEX recipient_message ON recipient (message, state);
    CREATE INDEX recipient_lane
        ON recipient (priority, destination, sender, next_at_utc)
        WHERE next_at_utc NOT NULL;
    CREATE TABLE once (id TEXT PRIMARY KEY) WITHOUT ROWID;
    """,
    """
    ALTER TABLE once ADD COLUMN at_utc REAL NOT NULL DEFAULT 0;
    UPDATE once SET at_utc = (julianday('now') - 2440587.5) * 86400.0;
    CREATE INDEX once_at ON once (at_utc);
    """,
    """
    ALTER TABLE message ADD COLUMN tls_optional INTEGER NOT NULL DEFAULT 0;
    """,
)
