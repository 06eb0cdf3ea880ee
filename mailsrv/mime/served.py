"""Octets of a file against octets as they are served.

A Maildir file has LF line ends, or CRLF, or both; what is served has CRLF only.
An LF without a CR before it therefore counts twice: sizes, section offsets and
the places of partial fetches are all of served octets.
"""

import struct
from bisect import bisect_right
from typing import Protocol

STEP = 64 * 1024  # octets of the file between two checkpoints


class Content(Protocol):
    """A message's octets: bytes, or a file that is read piece by piece."""

    def __len__(self) -> int: ...
    def __getitem__(self, place: slice, /) -> bytes: ...
    def find(self, octets: bytes, start: int = ..., end: int = ..., /) -> int: ...


def to_crlf(octets: bytes, *, after_cr: bool = False) -> bytes:
    """Give each bare LF its CR. `after_cr`: the octet before these was a CR."""
    if after_cr and octets[:1] == b"\n":
        return b"\n" + to_crlf(octets[1:])
    if b"\r" in octets:
        octets = octets.replace(b"\r\n", b"\n")
    return octets.replace(b"\n", b"\r\n")


class LineCounter:
    """Counts lines and bare LFs up to a place that only moves forward."""

    __slots__ = ("_checkpoints", "_content", "_place", "bare", "has_cr", "lines")

    def __init__(self, content: Content) -> None:
        self._content = content
        self.has_cr = content.find(b"\r") >= 0
        self._place = 0
        self._checkpoints: list[int] = []
        self.lines = 0
        self.bare = 0

    def advance(self, place: int) -> int:
        """Count up to `place`, an offset in the file; return its served offset."""
        while (start := self._place) < place:
            end = min(place, (start // STEP + 1) * STEP)
            self._count(start, end)
            self._place = end
            if end % STEP == 0:
                self._checkpoints.append(self.bare)
        return place + self.bare

    def _count(self, start: int, end: int) -> None:
        piece = self._content[start:end]
        # To take out an octet is four times as fast as to count it.
        lines = bare = len(piece) - len(piece.replace(b"\n", b""))
        if self.has_cr:
            bare -= piece.count(b"\r\n")
            # A CRLF that lies across the edge of two pieces.
            if (
                start
                and piece[:1] == b"\n"
                and self._content[start - 1 : start] == b"\r"
            ):
                bare -= 1
        self.lines += lines
        self.bare += bare

    def checkpoints(self) -> bytes:
        """Return the bare LFs before each full `STEP`, for `seek`."""
        return struct.pack(f"<{len(self._checkpoints)}I", *self._checkpoints)


def seek(checkpoints: bytes, served_offset: int) -> tuple[int, int]:
    """Return a place in the file at or before `served_offset`, and its own offset.

    The first is an offset in the file's octets, the second of served ones; less
    than two `STEP` lie between it and what is sought.
    """
    if not checkpoints:
        return 0, 0
    bare = struct.unpack(f"<{len(checkpoints) // 4}I", checkpoints)
    found = bisect_right(
        range(len(bare)), served_offset, key=lambda i: (i + 1) * STEP + bare[i]
    )
    if not found:
        return 0, 0
    return found * STEP, found * STEP + bare[found - 1]
