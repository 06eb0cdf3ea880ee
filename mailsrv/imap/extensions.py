"""The extensions that are offered, and what ENABLE can set on."""

from typing import get_args

from mailsrv.settings import ImapExtension

WORDS = tuple(word.encode("ascii") for word in get_args(ImapExtension))
# Of use before the log-in.
ALWAYS = frozenset((b"LITERAL+", b"SASL-IR", b"ID", b"ENABLE", b"IDLE", b"NAMESPACE"))
# Of no use, and not offered, without another one.
NEEDS = {b"QRESYNC": b"CONDSTORE"}
# RFC 5161 section 3.1: those that a client has to ask for.
ENABLES: frozenset[bytes] = frozenset((b"CONDSTORE", b"QRESYNC"))
