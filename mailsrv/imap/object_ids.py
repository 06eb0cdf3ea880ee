"""The identifiers of messages and threads as the wire has them (RFC 8474)."""

import re
from hashlib import blake2b

_OBJECT_ID = re.compile(rb"[A-Za-z0-9_-]{1,255}")  # section 7, objectid


def email_id(stored: bytes) -> bytes:
    """Return EMAILID: what the store names a message by, if the grammar allows it."""
    return _object_id(b"M", stored)


def thread_id(root: bytes) -> bytes:
    """Return THREADID of the message (its id) that began a thread."""
    return b"T" + _digest(root)


def _object_id(prefix: bytes, stored: bytes) -> bytes:
    if _OBJECT_ID.fullmatch(stored):  # as Dovecot makes them: kept
        return stored
    # A copy's note of its first name cannot hold blanks (see store.transfer).
    return prefix + _digest(stored.replace(b" ", b"_"))


def _digest(octets: bytes) -> bytes:
    return blake2b(octets, digest_size=16).hexdigest().encode("ascii")
