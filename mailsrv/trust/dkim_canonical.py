"""The relaxed canonical forms of DKIM (RFC 6376 sections 3.4.2 and 3.4.4).

A body is hashed as it comes, with LF or CRLF and in bounded memory. Pure.
"""

import base64
import hashlib
import re

_PIECE = 64 * 1024
_LINE_ENDS = b"\r\n" * 1024
_BLANKS = b" \t\n"
_WSP = re.compile(rb"[ \t]++")
_FIELD = re.compile(
    rb"^([!-9;-~]++)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)", re.MULTILINE
)


def fields(header: bytes) -> list[tuple[bytes, bytes]]:
    """Return the fields of a header block: lower-case names, relaxed values.

    What is no field is passed over, as verifiers do.
    """
    block = header.replace(b"\r\n", b"\n")
    return [(found[1].lower(), value(found[2])) for found in _FIELD.finditer(block)]


def value(raw: bytes) -> bytes:
    """Return a field's value unfolded, each run of blanks being one space."""
    unfolded = raw.replace(b"\n", b"") if b"\n" in raw else raw
    return _WSP.sub(b" ", unfolded).strip(b" ")


class BodyHash:
    """Takes the body piece by piece, gives the value of bh= (SHA-256)."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._after_cr = False  # the last octet is not taken yet: a CR
        # Blanks that count only if something follows them.
        self._lines = 0
        self._blank = False
        self._is_empty = True

    def feed(self, piece: bytes) -> None:
        for place in range(0, len(piece), _PIECE):
            self._feed(piece[place : place + _PIECE])

    def end(self) -> str:
        """Return the hash in base64. Nothing can be fed any more."""
        if self._after_cr:
            self._take(b"\r")
        # Empty lines at the end do not count; the last line has an end.
        if not self._is_empty:
            self._sha.update(b"\r\n")
        return base64.b64encode(self._sha.digest()).decode()

    def _feed(self, octets: bytes) -> None:
        if self._after_cr:
            octets = b"\r" + octets
        self._after_cr = octets.endswith(b"\r")
        if self._after_cr:
            octets = octets[:-1]
        self._take(octets.replace(b"\r\n", b"\n"))

    def _take(self, octets: bytes) -> None:
        rest = octets.lstrip(_BLANKS)
        self._hold(octets[: len(octets) - len(rest)])
        core = rest.rstrip(_BLANKS)
        if not core:
            return
        self._release()
        self._is_empty = False
        self._sha.update(_relaxed(core))
        self._hold(rest[len(core) :])

    def _hold(self, blanks: bytes) -> None:
        if not blanks:
            return
        lines = blanks.count(b"\n")
        self._blank = not blanks.endswith(b"\n") or (not lines and self._blank)
        self._lines += lines

    def _release(self) -> None:
        while self._lines:
            lines = min(self._lines, len(_LINE_ENDS) // 2)
            self._sha.update(_LINE_ENDS[: 2 * lines])
            self._lines -= lines
        if self._blank:
            self._sha.update(b" ")
            self._blank = False


def _relaxed(octets: bytes) -> bytes:
    """Reduce blanks within and at the ends of lines; LF becomes CRLF."""
    octets = octets.replace(b"\t", b" ")
    # At most 16 turns, since a piece has 64 KiB; a pattern would stop at every space.
    while b"  " in octets:
        octets = octets.replace(b"  ", b" ")
    return octets.replace(b" \n", b"\n").replace(b"\n", b"\r\n")
