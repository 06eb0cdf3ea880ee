"""Message identifiers in header fields (RFC 5322 section 3.6.4).

Read from Message-ID, In-Reply-To and References, whatever else stands there.
"""

import re
from collections.abc import Mapping

_MESSAGE_ID = re.compile(rb"<([^<>]++)>")
_BLANKS = re.compile(rb"\s++")
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)


def message_ids(value: bytes) -> list[bytes]:
    """Return the identifiers in an unfolded value, in order, without brackets.

    Two spellings of one identifier give the same octets: a local part need not be
    quoted, and blanks mean nothing (RFC 5256 section 2.2, message IDs).
    """
    return [_normal(found[1]) for found in _MESSAGE_ID.finditer(value)]


def thread_root(fields: Mapping[bytes, bytes]) -> bytes | None:
    """Return the identifier of the message that began the thread, as far as told.

    `fields` are unfolded values by lower-case name. The first of References; else
    what it replies to; else its own; None if it has none.
    """
    for name in (b"references", b"in-reply-to", b"message-id"):
        if (value := fields.get(name)) and (found := _MESSAGE_ID.search(value)):
            return _normal(found[1])
    return None


def _normal(message_id: bytes) -> bytes:
    if b'"' in message_id:
        local, at, domain = message_id.rpartition(b"@")
        quoted = local.strip()
        if len(quoted) > 1 and quoted[:1] == quoted[-1:] == b'"':
            message_id = _ESCAPED.sub(rb"\1", quoted[1:-1]) + at + domain
    return _BLANKS.sub(b"", message_id)
