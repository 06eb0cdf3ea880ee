"""The ENVELOPE of a message as it goes on the wire (RFC 3501 section 7.4.2)."""

import re
from collections.abc import Iterable, Mapping

from mailsrv.mime.address import addresses
from mailsrv.mime.header import MAX_HEADER, finder, unfold
from mailsrv.mime.nstring import nstring

_LISTS = (b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc")
ADDRESS_FIELDS = frozenset(_LISTS)
FIELDS = ADDRESS_FIELDS | {b"date", b"subject", b"in-reply-to", b"message-id"}


_find = finder(FIELDS)


def envelope(header: bytes) -> bytes:
    """Return the ENVELOPE of a message with this header block."""
    return envelope_of(collect(_find(b"\n" + header[:MAX_HEADER])))


def collect(found: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Return unfolded values by lower-case field name.

    Of a repeated field the first counts, but address lists are joined: nobody
    whom a second To names should be hidden.
    """
    values: dict[bytes, bytes] = {}
    for name, raw in found:
        lower = name.lower()
        value = raw.strip()
        if b"\n" in value:
            value = unfold(value)
        if lower not in values:
            values[lower] = value
        elif lower in ADDRESS_FIELDS:
            values[lower] += b"," + value
    return values


def repeats(found: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a field of which the ENVELOPE has the first comes again."""
    names = [name.lower() for name, _ in found]
    ones = [name for name in names if name in FIELDS - ADDRESS_FIELDS]
    return len(set(ones)) < len(ones)


def envelope_of(values: Mapping[bytes, bytes]) -> bytes:
    """Write the ENVELOPE of unfolded `values` by lower-case field name."""
    author, sender, reply_to, to, cc, bcc = (_list(values.get(name)) for name in _LISTS)
    return b"(%b %b %b %b %b %b %b %b %b %b)" % (
        nstring(values.get(b"date")),
        nstring(values.get(b"subject")),
        author,
        # RFC 3501 section 7.4.2: without (or with empty) Sender and Reply-To
        # the server puts From there.
        author if sender == b"NIL" else sender,
        author if reply_to == b"NIL" else reply_to,
        to,
        cc,
        bcc,
        nstring(values.get(b"in-reply-to")),
        nstring(values.get(b"message-id")),
    )


def _list(value: bytes | None) -> bytes:
    found = addresses(value) if value else ()
    if not found:
        return b"NIL"
    return b"(%b)" % b"".join(
        [
            b"(%b %b %b %b)"
            % (nstring(name), nstring(route), nstring(mailbox), nstring(host))
            for name, route, mailbox, host in found
        ]
    )


_NAMES = (
    b"date",
    b"subject",
    *_LISTS,
    b"in-reply-to",
    b"message-id",
)
_TOKEN = re.compile(rb'"((?:[^"\\]++|\\.)*+)"|\{(\d++)\}\r\n|[()]|NIL')
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


def read(written: bytes) -> dict[bytes, bytes]:
    """Return the values in an ENVELOPE that `envelope` wrote, those that are there.

    Address lists come as text, ``name <route:mailbox@host>`` separated by commas.
    """
    values: dict[bytes, bytes] = {}
    names = iter(_NAMES)
    strings: list[bytes | None] = []  # of the address being read
    members: list[bytes] = []
    depth, place = 0, 0
    while found := _TOKEN.match(written, place):
        place = found.end()
        token = found[0]
        if token == b"(":
            depth += 1
        elif token == b")":
            depth -= 1
            if depth == 2:
                members.append(_text(strings))
                strings = []
            elif depth == 1:
                values[next(names)] = b", ".join(members)
                members = []
        else:
            value = found[1]
            if value is not None:
                value = _ESCAPED.sub(rb"\1", value) if b"\\" in value else value
            elif token != b"NIL":
                size = int(found[2])
                value = written[place : place + size]
                place += size
            if depth == 1:
                name = next(names)
                if value is not None:
                    values[name] = value
            else:
                strings.append(value)
        if written[place : place + 1] == b" ":
            place += 1
    return values


def _text(strings: list[bytes | None]) -> bytes:
    name, route, mailbox, host = strings
    if host is None:  # a group's beginning or end
        return mailbox or b""
    address = b"<%b%b@%b>" % (route + b":" if route else b"", mailbox or b"", host)
    return b"%b %b" % (name, address) if name else address
