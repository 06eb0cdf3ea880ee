"""Header blocks: their fields, unfolding, and the field sets that IMAP serves.

RFC 5322 section 2.2, read leniently: lines end with LF or CRLF, and a line that
is no field (mbox's "From ", junk) is passed over.
"""

import binascii
import re
from collections.abc import Callable, Collection, Iterator
from functools import lru_cache

from mailsrv.mime import charset
from mailsrv.mime.served import to_crlf

MAX_HEADER = 256 * 1024  # octets of one header block that are looked at

_MAX_COMPILED = 64  # names of fields that are worth a pattern of their own
_VALUE = rb"[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)"
_FIELD = re.compile(rb"\n([!-9;-~]++)" + _VALUE)
_ENCODED_WORD = re.compile(rb"=\?([^\s?*=]++)[^\s?=]*+\?([bBqQ])\?([^?\r\n]*+)\?=")
_FOLD = re.compile(rb"\r?\n[ \t]*+")


def fields(header: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield each field's name as written and its raw value, folds and all."""
    for found in _FIELD.finditer(b"\n" + header[:MAX_HEADER]):
        yield found[1], found[2]


def header_end(content: bytes) -> int:
    """Return where a message's body begins: behind the blank line, or at the end."""
    for blank in (b"\n", b"\r\n"):  # there is no header
        if content.startswith(blank):
            return len(blank)
    places = ((content.find(blank), len(blank)) for blank in (b"\n\n", b"\n\r\n"))
    ends = (place + octets for place, octets in places if place >= 0)
    return min(ends, default=len(content))


def finder(names: Collection[bytes]) -> Callable[[bytes], list[tuple[bytes, bytes]]]:
    """Return a function that finds the fields so named, as `fields` would.

    It takes the header block with a newline put before it.
    """
    return _named(frozenset(names)).findall


@lru_cache(64)
def _named(names: frozenset[bytes]) -> re.Pattern[bytes]:
    """Compile a pattern of the fields so named, at least one."""
    first = b"".join(sorted({name[:1] for name in names}))
    any_name = b"|".join(re.escape(name) for name in sorted(names))
    # The look-ahead halves the cost.
    pattern = rb"\n(?=[%b])(%b)" % (re.escape(first), any_name)
    return re.compile(pattern + _VALUE, re.IGNORECASE)


def unfold(raw: bytes) -> bytes:
    """Return a raw value on one line, each fold being a single space."""
    value = raw.strip()
    return _FOLD.sub(b" ", value) if b"\n" in value else value


def select(header: bytes, names: Collection[bytes], *, exclude: bool = False) -> bytes:
    """Return the fields so named, in their order, served, with a blank line.

    `names` are lower-case. With `exclude`, all the other fields
    (RFC 3501 section 6.4.5, HEADER.FIELDS and HEADER.FIELDS.NOT).
    """
    block = b"\n" + header[:MAX_HEADER]
    if 0 < len(names) <= _MAX_COMPILED and not exclude:
        found = [*_named(frozenset(names)).finditer(block)]
    else:
        every = _FIELD.finditer(block)
        found = [field for field in every if (field[1].lower() in names) != exclude]
    selected = b"".join([field[0][1:] + b"\n" for field in found])
    return to_crlf(selected.replace(b"\r\n", b"\n")) + b"\r\n"


def decode(value: bytes) -> str:
    """Return an unfolded value as text, with its encoded words decoded (RFC 2047).

    Octets split between two adjacent words of one charset are joined first.
    """
    if b"=?" not in value:
        return charset.decode(value, "")
    text: list[str] = []
    name, octets, place = "", b"", 0  # of the encoded words just read
    for word in _ENCODED_WORD.finditer(value):
        between = value[place : word.start()]
        place = word.end()
        # RFC 2047 section 6.2: blanks between encoded words are not shown.
        is_adjacent = bool(name) and not between.strip()
        word_charset = word[1].decode("ascii", "replace").lower()
        if not is_adjacent or word_charset != name:
            text.append(charset.decode(octets, name))
            octets = b""
        if not is_adjacent:
            text.append(charset.decode(between, ""))
        name = word_charset
        octets += _decode_word(word[2], word[3])
    text.append(charset.decode(octets, name))
    text.append(charset.decode(value[place:], ""))
    return "".join(text)


def _decode_word(encoding: bytes, text: bytes) -> bytes:
    if encoding in b"qQ":
        return binascii.a2b_qp(text, header=True)
    return from_base64(text)


_NOT_BASE64 = bytes(
    set(range(256))
    - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
)


def from_base64(text: bytes) -> bytes:
    """Decode base64 with any junk in it, and however it ends."""
    clean = text.translate(None, _NOT_BASE64)
    if len(clean) % 4 == 1:
        clean = clean[:-1]
    return binascii.a2b_base64(clean + b"=" * (-len(clean) % 4))
