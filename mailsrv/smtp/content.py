"""The octets of a message as DATA and BDAT carry them (RFC 5321, RFC 3030).

Only CR LF . CR LF ends a message, wherever reads are cut. Nothing is kept but the
few octets that may be the beginning of that end; lines may have any length, since
nothing here works by lines (RFC 5321 section 4.5.3.1.6 asks for 1000 at least).
"""

import re
from dataclasses import dataclass, field

from mailsrv.smtp.reply import Reply

END = b"\r\n.\r\n"
_BEGINNINGS = (b"\r\n.\r", b"\r\n.", b"\r\n", b"\r")
_NEWLINE = re.compile(rb"\r+\n?|\n")

TOO_BIG = Reply(552, "5.3.4", "Message too big")
# What one server takes for a newline and the next does not lets a second message
# be smuggled in (CVE-2023-51764 and its kin).
BARE_NEWLINE = Reply(
    554, "5.6.0", "CR or LF alone in a message (RFC 5321 section 2.3.8)"
)


@dataclass(slots=True)
class Intake:
    """What each octet of one message must pass: its size and its newlines.

    Once `refusal` is set nothing more is let through.
    """

    max_octets: int
    normalise: bool  # repair bare CR and LF instead of refusing
    size_octets: int = 0
    refusal: Reply | None = None

    def take(self, octets: bytes) -> bytes:
        """Return what is to be stored of `octets`, which cut no CR LF in two."""
        self.size_octets += len(octets)
        if self.refusal is not None:
            return b""
        if self.size_octets > self.max_octets:
            self.refusal = TOO_BIG
            return b""
        # To take out an octet is four times as fast as to count it.
        crs = len(octets) - len(octets.replace(b"\r", b""))
        lfs = len(octets) - len(octets.replace(b"\n", b""))
        if crs == lfs == octets.count(b"\r\n"):
            return octets
        if not self.normalise:
            self.refusal = BARE_NEWLINE
            return b""
        # A run of CR is one newline. Where it is cut, the next octets begin with
        # its last CR.
        return _NEWLINE.sub(b"\r\n", octets.rstrip(b"\r"))


@dataclass(slots=True)
class DataReader:
    """Content after DATA: finds its end, takes off dot-stuffing."""

    intake: Intake
    # As if a line had ended before the first one: its dot counts too.
    _held: bytes = b"\r\n"
    _begun: bool = False

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Return content, and where in `data` the message ended, or -1."""
        whole = self._held + data
        # Most reads have no stuffed dot, so that one search does for both; base64,
        # as in most large mail, has no dot at all.
        dot = whole.find(b"\r\n.") if b"." in whole else -1
        end = whole.find(END, dot) if dot >= 0 else -1
        if end >= 0:
            octets = whole[: end + 2]
            after = end + len(END) - len(self._held)
        else:
            kept = _kept(whole)
            octets, self._held = whole[: len(whole) - kept], whole[len(whole) - kept :]
            after = -1
        if not octets:
            return b"", after
        if dot != end:
            # No CR LF . is cut in two: the beginning of one would have been held.
            octets = octets.replace(b"\r\n.", b"\r\n")
        if not self._begun:
            self._begun = True
            octets = octets[2:]
        return self.intake.take(octets), after


def _kept(octets: bytes) -> int:
    """Return the length of the longest end of `octets` that may begin `END`."""
    for beginning in _BEGINNINGS:
        if octets.endswith(beginning):
            return len(beginning)
    return 0


@dataclass(slots=True)
class ChunkReader:
    """Content of a row of BDAT commands; a chunk may cut a CR LF in two."""

    intake: Intake
    last: bool = False
    _left: int = 0
    _held: bytes = field(default=b"")

    def begin(self, size_octets: int, last: bool) -> None:
        """Begin the next chunk."""
        self._left = size_octets
        self.last = last

    def feed(self, data: bytes) -> tuple[bytes, int]:
        """Return content, and where in `data` the chunk ended, or -1."""
        part = data[: self._left]
        self._left -= len(part)
        ended = self._left == 0
        octets = self._held + part
        self._held = b""
        if octets.endswith(b"\r") and not (ended and self.last):
            octets, self._held = octets[:-1], b"\r"
        return self.intake.take(octets), len(part) if ended else -1
