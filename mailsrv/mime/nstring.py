"""Strings as IMAP writes them (RFC 3501 section 4.3): quoted if they can be.

Does not know atoms: what is written here comes from mail.
"""

import re

# A quoted string holds no CR, LF or 8-bit octet (RFC 3501 section 9, QUOTED-CHAR).
_UNQUOTABLE = re.compile(rb"[\r\n\x80-\xff]")
_SPECIAL = re.compile(rb'["\\]')


def string(value: bytes) -> bytes:
    """Write `value` as a quoted string, or as a literal where that is needed.

    No literal may hold NUL (RFC 3501 section 4.3): it becomes 0x80.
    """
    if b"\0" in value:
        value = value.replace(b"\0", b"\x80")
    if _UNQUOTABLE.search(value):
        return b"{%d}\r\n%b" % (len(value), value)
    if _SPECIAL.search(value):
        value = _SPECIAL.sub(rb"\\\g<0>", value)
    return b'"%b"' % value


def nstring(value: bytes | None) -> bytes:
    """Write `value`, or NIL for None."""
    return b"NIL" if value is None else string(value)
