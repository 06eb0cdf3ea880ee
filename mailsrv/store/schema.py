"""The tables of an account's two SQLite files. All of them can be rebuilt.

The truth stands in the Maildir (content, flags) and in the uidlists (UIDs); what
is here is a copy of those, and what is dear to compute. So a file of another
version is thrown away, not migrated.
"""

import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Schema:
    """What a file is made with."""

    version: int  # in PRAGMA user_version; with another value it is made anew
    statements: str
    page_octets: int
    commits: str  # PRAGMA synchronous: FULL keeps each commit, NORMAL the file sound


PAGE_CACHE_KIB = 256  # for each connection
HEADER_KEYS = 1024  # sets of header fields in an index's life; key begins at 1
WAL_OCTETS = 4 * 1024 * 1024  # between two checkpoints

# `mailbox`: one row for each mailbox that was opened since the index exists.
# mod_seq is the highest given out (RFC 7162 section 3.1.2); below history_floor
# the tombstones are gone. What follows is the uidlist and the folders as last read:
# if they are still the same, nothing was changed from outside.
#
# `message`: thin rows, so that opening, COPY and MOVE are cheap. The file is
# (new if in_new else cur)/base+info. content is a number that exists before the
# row that it names, since ready bytes are written later. email_id is NULL where it
# is the base name. size_octets is RFC822.SIZE if exact, else a guess for the quota.
# saved_at: when the message came into this mailbox, see maildir.saved_at.
#
# Queries name their index (INDEXED BY) where SQLite, which knows no figures of these
# tables, would walk through the whole mailbox; message_mod_seq has all that a view
# needs, so that opening reads a fifth of what the rows take.
#
# `content`: repeats: the ENVELOPE does not tell of all fields it is made of.
#
# `expunged`: tombstones; content is NULL once every session was told.
#
# `sort_key`: what SORT and THREAD compare, beside `content` so that a whole mailbox
# of it is read quickly. A row of the one has a row of the other.
#
# `header_key`: the sets of header fields that clients ask for, most of all one for
# each kind of client. `header_fields`: those fields of a message, ready for the wire;
# id is content * HEADER_KEYS + key, since rows of such size are read twice as fast in
# a table with rowid as without. No key's number is given out again: somebody may just
# be writing fields of a set that has made room for another.
#
# Content numbers are never given out twice, not even if the index is lost or an older
# one comes back: search.sqlite knows messages by them.
#
# `intent`: a MOVE on its way, written before the first rename, so that after a crash
# ids follow the file.
_INDEX = """
CREATE TABLE mailbox (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    uid_validity INTEGER NOT NULL,
    uid_next INTEGER NOT NULL,
    mod_seq INTEGER NOT NULL,
    history_floor INTEGER NOT NULL,
    recent_uid INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    octets INTEGER NOT NULL,
    mailbox_id TEXT NOT NULL,
    uidlist_inode INTEGER NOT NULL,
    uidlist_octets INTEGER NOT NULL,
    uidlist_digest BLOB NOT NULL,
    uidlist_last_uid INTEGER NOT NULL,
    uidlist_broken INTEGER NOT NULL,
    new_mtime_ns INTEGER NOT NULL,
    cur_mtime_ns INTEGER NOT NULL,
    new_settled INTEGER NOT NULL,
    cur_settled INTEGER NOT NULL
);
CREATE TABLE message (
    mailbox INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    mod_seq INTEGER NOT NULL,
    in_new INTEGER NOT NULL,
    base BLOB NOT NULL,
    info BLOB NOT NULL,
    size_octets INTEGER NOT NULL,
    exact INTEGER NOT NULL,
    internal_date INTEGER NOT NULL,
    saved_at INTEGER NOT NULL,
    content INTEGER NOT NULL,
    email_id BLOB,
    pop3_uidl BLOB,
    pop3_order INTEGER,
    PRIMARY KEY (mailbox, uid)
) WITHOUT ROWID;
CREATE INDEX message_mod_seq ON message (mailbox, mod_seq, flags);
CREATE INDEX message_base ON message (mailbox, base);
CREATE INDEX message_content ON message (content);
CREATE INDEX message_new ON message (mailbox) WHERE in_new;
CREATE TABLE expunged (
    mailbox INTEGER NOT NULL,
    uid INTEGER NOT NULL,
    mod_seq INTEGER NOT NULL,
    at_utc INTEGER NOT NULL,
    flags INTEGER NOT NULL,
    size_octets INTEGER NOT NULL,
    internal_date INTEGER NOT NULL,
    saved_at INTEGER NOT NULL,
    content INTEGER,
    email_id BLOB NOT NULL,
    PRIMARY KEY (mailbox, uid)
) WITHOUT ROWID;
CREATE INDEX expunged_mod_seq ON expunged (mailbox, mod_seq);
CREATE INDEX expunged_content ON expunged (mailbox) WHERE content NOT NULL;
CREATE TABLE content (
    id INTEGER PRIMARY KEY,
    size_octets INTEGER NOT NULL,
    sent_day INTEGER,
    envelope BLOB NOT NULL,
    repeats INTEGER NOT NULL,
    body BLOB NOT NULL,
    bodystructure BLOB NOT NULL,
    structure BLOB NOT NULL,
    checkpoints BLOB NOT NULL,
    preview BLOB NOT NULL,
    thread_root BLOB
);
CREATE TABLE sort_key (
    content INTEGER PRIMARY KEY,
    sent_at INTEGER,
    subject BLOB NOT NULL,
    is_reply INTEGER NOT NULL,
    from_mailbox BLOB NOT NULL,
    to_mailbox BLOB NOT NULL,
    cc_mailbox BLOB NOT NULL,
    from_name BLOB NOT NULL,
    to_name BLOB NOT NULL,
    message_id BLOB NOT NULL,
    reference_ids BLOB NOT NULL
);
CREATE TABLE next_content (id INTEGER NOT NULL);
INSERT INTO next_content VALUES (1);
CREATE TABLE header_key (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    key BLOB NOT NULL UNIQUE,
    used_day INTEGER NOT NULL
);
CREATE TABLE header_fields (id INTEGER PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE intent (
    source TEXT NOT NULL,
    target TEXT NOT NULL,
    old_base BLOB NOT NULL,
    new_base BLOB NOT NULL,
    email_id BLOB NOT NULL,
    content INTEGER NOT NULL,
    PRIMARY KEY (target, new_base)
) WITHOUT ROWID;
"""

# `document`: a message's folded text by its content number: header, a newline, body.
# whole is 0 if there is more of it than is kept here. A newline is in no folded text,
# so nothing is found across two parts.
#
# `trigram`: which documents hold any three characters; found by document.id. Without
# positions it is half as large, and costs a look at the text of what is found.
_TEXTS = """
CREATE TABLE document (
    id INTEGER PRIMARY KEY,
    content INTEGER NOT NULL,
    whole INTEGER NOT NULL,
    body_at INTEGER NOT NULL,
    text BLOB NOT NULL
);
CREATE UNIQUE INDEX document_content ON document (content);
CREATE INDEX document_part ON document (id) WHERE NOT whole;
CREATE VIRTUAL TABLE trigram USING fts5 (
    text, content='', columnsize=0, detail=none, tokenize='trigram case_sensitive 1'
);
"""


def _unicode_version() -> int:
    """Text is folded as Unicode has it, and so does not outlive a new Unicode.

    Nor another `charset.fold`: then the number that stands before this one grows.
    """
    major, minor, update = map(int, unicodedata.unidata_version.split("."))
    return major * 10_000 + minor * 100 + update


INDEX = Schema(8, _INDEX, 4096, "FULL")
# Large pages: most texts are in one, and a long search reads half as long.
TEXTS = Schema(20_000_000 + _unicode_version(), _TEXTS, 16384, "NORMAL")
