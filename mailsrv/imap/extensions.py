"""The extensions that are offered, and what ENABLE can set on."""

from typing import get_args

from mailsrv.settings import ImapExtension

WORDS = tuple(word.encode("ascii") for word in get_args(ImapExtension))
# Of use before the log-in.
ALWAYS = frozenset(
    (b"IMAP4REV2", b"LITERAL+", b"SASL-IR", b"ID", b"ENABLE", b"IDLE", b"NAMESPACE")
)
# Words that are not in capitals only.
SPELLINGS = {b"IMAP4REV2": b"IMAP4rev2"}
# Of no use, and not offered, without another one.
NEEDS = {
    b"LIST-STATUS": b"LIST-EXTENDED",
    b"QRESYNC": b"CONDSTORE",
    b"SEARCHRES": b"ESEARCH",
    b"SORT=DISPLAY": b"SORT",
    b"ESORT": b"SORT",
}
# RFC 9051 appendix E: part of IMAP4rev2, and so there once it is enabled.
IN_REV2 = frozenset(
    (
        *(b"BINARY", b"CHILDREN", b"ENABLE", b"ESEARCH", b"IDLE", b"LIST-EXTENDED"),
        *(b"LIST-STATUS", b"MOVE", b"NAMESPACE", b"SASL-IR", b"SEARCHRES"),
        *(b"SPECIAL-USE", b"STATUS=SIZE", b"UIDPLUS", b"UNSELECT"),
    )
)
# RFC 5161 section 3.1: those that a client has to ask for.
ENABLES: frozenset[bytes] = frozenset(
    (b"CONDSTORE", b"QRESYNC", b"UTF8=ACCEPT", b"IMAP4REV2")
)
