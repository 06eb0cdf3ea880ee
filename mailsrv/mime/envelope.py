"""The ENVELOPE of a message as it goes on the wire (RFC 3501 section 7.4.2)."""

from collections.abc import Iterable, Mapping

from mailsrv.mime.address import Address, addresses
from mailsrv.mime.header import fields, unfold
from mailsrv.mime.nstring import nstring

ADDRESS_FIELDS = frozenset((b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc"))
FIELDS = ADDRESS_FIELDS | {b"date", b"subject", b"in-reply-to", b"message-id"}


def envelope(header: bytes) -> bytes:
    """Return the ENVELOPE of a message with this header block."""
    return envelope_of(collect(fields(header)))


def collect(every: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Pick the unfolded values an ENVELOPE needs, by lower-case name.

    Of a repeated field the first counts, but address lists are joined: nobody
    whom a second To names should be hidden.
    """
    values: dict[bytes, bytes] = {}
    for name, raw in every:
        lower = name.lower()
        if lower in FIELDS:
            if lower not in values:
                values[lower] = unfold(raw)
            elif lower in ADDRESS_FIELDS:
                values[lower] += b"," + unfold(raw)
    return values


def envelope_of(values: Mapping[bytes, bytes]) -> bytes:
    """Write the ENVELOPE of unfolded `values` by lower-case field name."""
    author = _list(values.get(b"from"))
    sender = _list(values.get(b"sender"))
    reply_to = _list(values.get(b"reply-to"))
    return b"(%b %b %b %b %b %b %b %b %b %b)" % (
        nstring(values.get(b"date")),
        nstring(values.get(b"subject")),
        author,
        # RFC 3501 section 7.4.2: without (or with empty) Sender and Reply-To
        # the server puts From there.
        author if sender == b"NIL" else sender,
        author if reply_to == b"NIL" else reply_to,
        _list(values.get(b"to")),
        _list(values.get(b"cc")),
        _list(values.get(b"bcc")),
        nstring(values.get(b"in-reply-to")),
        nstring(values.get(b"message-id")),
    )


def _list(value: bytes | None) -> bytes:
    found = addresses(value) if value else []
    if not found:
        return b"NIL"
    return b"(%b)" % b"".join(map(_address, found))


def _address(address: Address) -> bytes:
    return b"(%b %b %b %b)" % tuple(map(nstring, address))
