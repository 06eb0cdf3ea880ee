"""Decodes Content-Transfer-Encodings piece by piece (RFC 2045 section 6).

Lenient as mail programs are: junk within base64 is passed over, it may end anywhere.
"""

import binascii
import re
from typing import Protocol

from mailsrv.mime.header import finder, unfold
from mailsrv.mime.parameters import token

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_JUNK = bytes(set(range(256)) - set(_BASE64))
MAX_BLANKS = 1000  # in a row that are held back; lines have 76 octets
_BLANK_ENDS = (b" \n", b" \r\n", b"\t\n", b"\t\r\n")
_TRAILING = re.compile(rb"(?<![ \t])[ \t]++(?=\r?\n)")
_find = finder((b"content-transfer-encoding",))


class Decoder(Protocol):
    """Takes encoded octets, gives decoded ones."""

    def feed(self, octets: bytes) -> bytes: ...

    def end(self) -> bytes:
        """Return what the last octets fed mean without more."""
        ...


class _Identity:
    def feed(self, octets: bytes) -> bytes:
        return octets

    def end(self) -> bytes:
        return b""


class _Base64:
    def __init__(self) -> None:
        self._held = b""  # up to three characters of a group of four
        self._ended = False

    def feed(self, octets: bytes) -> bytes:
        if self._ended:
            return b""
        clean = self._held + octets.translate(None, _JUNK)
        if (padding := clean.find(b"=")) >= 0:
            clean, self._ended = clean[:padding], True
        whole = len(clean) - len(clean) % 4
        self._held = clean[whole:]
        decoded = binascii.a2b_base64(clean[:whole])
        return decoded + self.end() if self._ended else decoded

    def end(self) -> bytes:
        held, self._held = self._held, b""
        if len(held) < 2:  # a single character means nothing
            return b""
        return binascii.a2b_base64(held + b"=" * (4 - len(held)))


class _QuotedPrintable:
    def __init__(self) -> None:
        self._held = b""  # an escape that is not whole, blanks that may end a line

    def feed(self, octets: bytes) -> bytes:
        octets = self._held + octets
        certain = octets.rstrip(b" \t\r")
        cut = len(certain)
        if certain.endswith(b"="):
            cut -= 1
        elif cut == len(octets) and certain[-2:-1] == b"=":
            cut -= 2
        if len(octets) - cut > MAX_BLANKS:
            cut = len(octets)
        self._held = octets[cut:]
        return self._decoded(octets[:cut])

    def end(self) -> bytes:
        held, self._held = self._held.rstrip(b" \t\r"), b""
        return self._decoded(held)

    def _decoded(self, octets: bytes) -> bytes:
        # RFC 2045 section 6.7: blanks at the end of a line are none of its own.
        if any(end in octets for end in _BLANK_ENDS):
            octets = _TRAILING.sub(b"", octets)
        return binascii.a2b_qp(octets)


_DECODERS: dict[bytes, type[_Identity | _Base64 | _QuotedPrintable]] = {
    b"7bit": _Identity,
    b"8bit": _Identity,
    b"binary": _Identity,
    b"base64": _Base64,
    b"quoted-printable": _QuotedPrintable,
}


def encoding(header: bytes) -> bytes:
    """Return the encoding that a part's header names, in lower case."""
    values = {name.lower(): unfold(raw) for name, raw in _find(b"\n" + header)}
    return token(values.get(b"content-transfer-encoding", b"")) or b"7bit"


def is_identity(name: bytes) -> bool:
    return _DECODERS.get(name) is _Identity


def decoded(body: bytes, name: bytes) -> bytes:
    """Return a whole body decoded; as it is, if its encoding is not known."""
    found = decoder(name)
    return found.feed(body) + found.end() if found is not None else body


def decoder(name: bytes) -> Decoder | None:
    """Return a new decoder of an encoding, None if it is not known."""
    make = _DECODERS.get(name)
    return make() if make is not None else None
