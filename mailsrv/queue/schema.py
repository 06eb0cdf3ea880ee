"""The tables of the queue, one SQLite file: precious, so versions migrate."""

# Each step leads from the user_version that is its index to the next one.
#
# `recipient`: one row each, kept until all of the message are settled, so that an
# admin sees what became of the others. next_at_utc is NULL where nothing is to come.
# `destination` names whom to talk to; many recipients of one are sent together.
MIGRATIONS = (
    """
    CREATE TABLE message (
        id TEXT PRIMARY KEY,
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
    ) WITHOUT ROWID;
    CREATE TABLE recipient (
        id INTEGER PRIMARY KEY,
        message TEXT NOT NULL,
        priority INTEGER NOT NULL,
        forward_path TEXT NOT NULL,
        destination TEXT NOT NULL,
        next_at_utc REAL,
        state TEXT NOT NULL,
        notify TEXT NOT NULL,
        orcpt TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        warned INTEGER NOT NULL,
        code INTEGER,
        enhanced_code TEXT,
        text TEXT,
        at_utc REAL,
        peer TEXT,
        tls TEXT
    );
    CREATE INDEX recipient_message ON recipient (message);
    CREATE INDEX recipient_due ON recipient (priority, next_at_utc)
        WHERE next_at_utc NOT NULL;
    CREATE INDEX recipient_destination ON recipient (destination);
    """,
)
