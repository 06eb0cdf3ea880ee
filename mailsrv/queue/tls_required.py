"""Whether mail had better arrive without TLS than not at all (RFC 8689 section 3).

The author says so in the header, as of a report that something is wrong with TLS.
"""

from mailsrv.mime.header import fields, unfold

_NAME = b"tls-required"


def is_tls_optional(header: bytes) -> bool:
    """Look for ``TLS-Required: No``; what stands there twice says nothing."""
    if _NAME not in header.lower():
        return False
    found = [unfold(raw) for name, raw in fields(header) if name.lower() == _NAME]
    return [value.strip().lower() for value in found] == [b"no"]
