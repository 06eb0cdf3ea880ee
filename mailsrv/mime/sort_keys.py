"""What SORT and THREAD compare of a message (RFC 5256; RFC 5957 for names).

Texts are made comparable once, when a message comes in: octets that are compared
as they stand, as the i;unicode-casemap collation (RFC 5051) orders them.
"""

from collections.abc import Mapping
from hashlib import blake2b
from typing import NamedTuple

from mailsrv.mime.address import Address, addresses
from mailsrv.mime.charset import casemap, decode
from mailsrv.mime.header import decode as decode_words
from mailsrv.mime.message_id import message_ids
from mailsrv.mime.subject import base_subject

MAX_KEY = 200  # characters that are compared
MAX_REFERENCES = 500  # of one message, the last ones; mailers keep far fewer
ID_OCTETS = 8

_NOBODY = Address(None, None, None, None)


class SortKeys(NamedTuple):  # goes to the index as it stands
    """Columns of the index, in its order.

    Message ids are digests of `ID_OCTETS`: threads need only know which are equal,
    and read those of a whole mailbox at once.
    """

    subject: bytes  # the base subject
    is_reply: bool
    from_mailbox: bytes
    to_mailbox: bytes
    cc_mailbox: bytes
    from_name: bytes
    to_name: bytes
    message_id: bytes  # empty: it has none that is valid
    reference_ids: bytes  # of its ancestors, the oldest first


def sort_keys(fields: Mapping[bytes, bytes]) -> SortKeys:
    """Compute the keys from unfolded `fields` by lower-case name."""
    subject = base_subject(decode_words(fields.get(b"subject", b"")))
    author, to, cc = (_first(fields.get(name)) for name in (b"from", b"to", b"cc"))
    # RFC 5256 section 3: the first of In-Reply-To stands in for References.
    references = _ids(fields, b"references") or _ids(fields, b"in-reply-to")[:1]
    return SortKeys(
        _key(subject.text),
        subject.is_reply,
        _key(decode(author.mailbox or b"", "")),
        _key(decode(to.mailbox or b"", "")),
        _key(decode(cc.mailbox or b"", "")),
        _key(_shown(author)),
        _key(_shown(to)),
        b"".join(_ids(fields, b"message-id")[:1]),
        b"".join(references[-MAX_REFERENCES:]),
    )


def _first(value: bytes | None) -> Address:
    found = addresses(value) if value else ()
    return found[0] if found else _NOBODY


def _shown(address: Address) -> str:
    """Return what stands for an address in a list of messages (RFC 5957 section 3)."""
    if address.name and (name := decode_words(address.name)):
        return name
    mailbox = decode(address.mailbox or b"", "")
    if address.host is None:
        return mailbox
    return f"{mailbox}@{decode(address.host, '')}"


def _ids(fields: Mapping[bytes, bytes], name: bytes) -> list[bytes]:
    """Return digests of the message ids in a field; what has no "@" is none."""
    return [
        blake2b(found, digest_size=ID_OCTETS).digest()
        for found in message_ids(fields.get(name, b""))
        if b"@" in found
    ]


def _key(text: str) -> bytes:
    return casemap(text[:MAX_KEY]).encode("utf-8", "replace")
