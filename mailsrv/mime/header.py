"""Header blocks: their fields, unfolding, and the field sets that IMAP serves.

RFC 5322 section 2.2, read leniently: lines end with LF or CRLF, and a line that
is no field (mbox's "From ", junk) is passed over.
"""

import re
from collections.abc import Callable, Collection, Iterator

from mailsrv.mime.served import to_crlf

MAX_HEADER = 256 * 1024  # octets of one header block that are looked at

_VALUE = rb"[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)"
_FIELD = re.compile(rb"\n([!-9;-~]++)" + _VALUE)
_FOLD = re.compile(rb"\r?\n[ \t]*+")


def fields(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield each field's name as written and its raw value, folds and all."""
    for found in _FIELD.finditer(b"\n" + header[:MAX_HEADER]):
        yield found[1], found[2]


def finder(names: Collection[bytes]) -> Callable[[bytes], list[tuple[bytes, bytes]]]:
    """Return a function that finds the fields so named, as `fields` would.

    It takes the header block with a newline put before it.
    """
    first = b"".join(sorted({name[:1] for name in names}))
    any_name = b"|".join(re.escape(name) for name in names)
    pattern = rb"\n(?=[%b])(%b)" % (first, any_name)  # the look-ahead halves the cost
    return re.compile(pattern + _VALUE, re.IGNORECASE).findall


def unfold(raw: bytes) -> bytes:
    """Return a raw value on one line, each fold being a single space."""
    value = raw.strip()
    return _FOLD.sub(b" ", value) if b"\n" in value else value


def select(header: bytes, names: Collection[bytes], *, exclude: bool = False) -> bytes:
    """Return the fields so named, in their order, served, with a blank line.

    `names` are lower-case. With `exclude`, all the other fields
    (RFC 3501 section 6.4.5, HEADER.FIELDS and HEADER.FIELDS.NOT).
    """
    found = b"".join(
        field[0][1:] + b"\n"
        for field in _FIELD.finditer(b"\n" + header[:MAX_HEADER])
        if (field[1].lower() in names) != exclude
    )
    return to_crlf(found.replace(b"\r\n", b"\n")) + b"\r\n"
