"""Strings as IMAP writes them (RFC 3501 section 4.3): quoted if they can be.

Does not know atoms: what is written here comes from mail.
"""

import re

# A quoted string holds no CR, LF or 8-bit octet (RFC 3501 section 9, QUOTED-CHAR).
_needs_literal = re.compile(rb"[\r\n\x80-\xff]").search
_needs_care = re.compile(rb'["\\\0\r\n\x80-\xff]').search


def string(value: bytes) -> bytes:
    """Write `value` as a quoted string, or as a literal where that is needed.

    No literal may hold NUL (RFC 3501 section 4.3): it becomes 0x80.
    """
    if _needs_care(value):
        value = value.replace(b"\0", b"\x80")
        if _needs_literal(value):
            return b"{%d}\r\n%b" % (len(value), value)
        value = value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b'"%b"' % value


def nstring(value: bytes | None) -> bytes:
    """Write `value`, or NIL for None."""
    return b"NIL" if value is None else string(value)
