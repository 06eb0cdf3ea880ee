"""How messages go over the wire in POP3 (RFC 1939 section 3). Pure."""

import re

_END_OF_LINE = b"\r\n"
_DOT = re.compile(rb"\r\n\.")  # sought in half the time that bytes.replace takes


class Stuffer:
    """Makes a multi-line response of a message that comes in pieces of any size.

    Lines that begin with a dot get a second one. NUL becomes 0x80: Outlook hangs on
    a NUL, and RFC 5322 section 2.3 has no place for it.
    """

    def __init__(self) -> None:
        self._tail = _END_OF_LINE  # the last two octets: a line begins behind them

    def feed(self, piece: bytes) -> bytes:
        """The octets to send for the next piece."""
        octets = piece.replace(b"\0", b"\x80")
        edge = self._tail + octets[:2]
        self._tail = octets[-2:] if len(octets) > 1 else edge[-2:]
        if _DOT.search(octets):
            octets = octets.replace(b"\r\n.", b"\r\n..")
        if (at := edge.find(b"\r\n.")) >= 0:  # a dot of this piece, an end of the last
            octets = octets[:at] + b"." + octets[at:]
        return octets

    def end(self) -> bytes:
        """The octets that end the response; the last line may lack its CRLF."""
        return b".\r\n" if self._tail == _END_OF_LINE else b"\r\n.\r\n"


class Top:
    """Cuts a message after its header and some lines (RFC 1939 section 7, TOP)."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._header_ended = False
        self._tail = _END_OF_LINE  # an empty first line ends an empty header
        self.done = False

    def feed(self, piece: bytes) -> bytes:
        """What is wanted of the next piece; `done` tells that no more is."""
        at = 0
        if not self._header_ended:
            before, joined = len(self._tail), self._tail + piece
            found = joined.find(b"\r\n\r\n")
            self._tail = joined[-3:]
            if found < 0:
                return piece
            self._header_ended = True
            at = found + 4 - before
        lines = piece.count(b"\n", at)
        if lines < self._lines:
            self._lines -= lines
            return piece
        for _ in range(self._lines):
            at = piece.index(b"\n", at) + 1
        self.done = True
        return piece[:at]
