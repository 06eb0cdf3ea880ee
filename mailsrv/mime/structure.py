"""The MIME structure of a message (RFC 2045, 2046): one pass, no recursion.

Finds where each part's header and body lie, and reads the headers that describe
them. Decodes nothing. Any octets have a structure: what is broken is read as the
nearest sound thing, and never at more than linear cost.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mailsrv.mime.envelope import FIELDS as ENVELOPE_FIELDS
from mailsrv.mime.envelope import collect, envelope_of, repeats
from mailsrv.mime.header import MAX_HEADER, finder
from mailsrv.mime.parameters import Parameters, content_type, disposition, token
from mailsrv.mime.served import Content, LineCounter

MAX_DEPTH = 100  # of parts in parts; deeper ones are opaque
MAX_PARTS = 10_000  # of a message; the last one holds what follows
MAX_BOUNDARY = 200  # octets; RFC 2046 section 5.1.1 says 70
_MAX_DELIMITER_LINE = MAX_BOUNDARY + 100  # with dashes and trailing blanks

_FIELDS = (ENVELOPE_FIELDS | {b"references"}).union(
    b"content-" + name
    for name in (
        b"type transfer-encoding id description disposition md5 language location"
    ).split()
)
_find = finder(_FIELDS)


@dataclass(slots=True)
class Part:
    """A message, or one part of it.

    Header (with its blank line) and body lie at ``start:body`` and ``body:end``
    in the file; the ``served_`` twins of these are offsets of served octets.
    """

    start: int
    served_start: int
    body: int = 0
    served_body: int = 0
    end: int = 0
    served_end: int = 0
    lines: int = 0  # of the body
    type: bytes = b"text"
    subtype: bytes = b"plain"
    parameters: Parameters = ()
    encoding: bytes = b"7bit"
    disposition: tuple[bytes, Parameters] | None = None
    fields: dict[bytes, bytes] = field(default_factory=dict)  # see `_FIELDS`
    envelope: bytes = b""  # of a message; empty for a part
    repeats: bool = False  # see `envelope.repeats`
    parts: "list[Part]" = field(default_factory=list)

    @property
    def is_multipart(self) -> bool:
        return self.type == b"multipart"

    @property
    def is_text(self) -> bool:
        return self.type == b"text"

    @property
    def is_message(self) -> bool:
        """Whether its body is a message: the one member of ``parts``."""
        return self.type == b"message" and self.subtype in (b"rfc822", b"global")

    @property
    def is_global(self) -> bool:
        """Whether it is a message with UTF-8 in its header (RFC 6532)."""
        return self.is_message and self.subtype == b"global"

    def parameter(self, name: bytes) -> bytes | None:
        """Return the Content-Type's parameter of this lower-case name."""
        return dict(self.parameters).get(name)

    def walk(self) -> "Iterator[Part]":
        """Yield this part and all within it, each before its own parts."""
        waiting = [self]
        while waiting:
            part = waiting.pop()
            yield part
            waiting.extend(reversed(part.parts))


def parse(content: Content, counter: LineCounter | None = None) -> Part:
    """Return the structure of a whole message; a fresh `counter` gets used up."""
    return _Scanner(content, counter or LineCounter(content)).run()


class _Scanner:
    """Walks through a message from delimiter to delimiter."""

    def __init__(self, content: Content, counter: LineCounter) -> None:
        self._content = content
        self._counter = counter
        self._open: list[tuple[Part, bytes]] = []  # with boundaries, or b""
        self._levels: dict[bytes, list[int]] = {}  # of open boundaries
        self._count = 0
        # Of each kind of blank line the first at or after the last place asked for.
        self._blank_lines = {b"\n\n": -1}
        if self._counter.has_cr:
            self._blank_lines[b"\n\r\n"] = -1

    def run(self) -> Part:
        place = self._begin_message(0, None)
        root = self._open[0][0]
        while self._levels and (found := self._delimiter(place, len(self._content))):
            line, place, level, is_last = found
            self._close(level + 1, self._before(line))
            if is_last:
                self._forget_boundary(level)
            elif self._count < MAX_PARTS:
                place = self._begin_part(place, level)
            else:
                break
        self._close(0, len(self._content))
        return root

    # Beginnings and ends of parts.

    def _begin_message(self, start: int, parent: Part | None) -> int:
        """Open the message at `start`, and those that begin its body."""
        part = Part(start, self._counter.advance(start))
        self._add(part, parent)
        self._read_header(part)
        part.envelope = envelope_of(part.fields)
        return self._describe(part)

    def _begin_part(self, start: int, level: int) -> int:
        parent = self._open[level][0]
        part = Part(start, self._counter.advance(start))
        self._add(part, parent)
        self._read_header(part)
        if parent.subtype == b"digest":  # RFC 2046 section 5.1.5
            part.type, part.subtype = b"message", b"rfc822"
        return self._describe(part)

    def _add(self, part: Part, parent: Part | None) -> None:
        self._count += 1
        self._open.append((part, b""))
        if parent is not None:
            parent.parts.append(part)

    def _close(self, level: int, end: int) -> None:
        """End the open parts from `level` down."""
        while len(self._open) > level:
            self._forget_boundary(len(self._open) - 1)
            part, _ = self._open.pop()
            part.end = max(end, part.body)
            part.served_end = self._counter.advance(part.end)
            part.lines = self._counter.lines - part.lines

    def _forget_boundary(self, level: int) -> None:
        part, boundary = self._open[level]
        if boundary:
            self._open[level] = part, b""
            levels = self._levels[boundary]
            levels.pop()
            if not levels:
                del self._levels[boundary]

    # Headers.

    def _read_header(self, part: Part) -> None:
        """Find the header's end, and those of its fields that count."""
        start = part.start
        end = self._header_end(start)
        if self._levels and (found := self._delimiter(start, end)):
            end = max(start, self._before(found[0]))  # no blank line, no body
        part.body = end
        part.served_body = self._counter.advance(end)
        part.lines = self._counter.lines  # until its end is known
        header = self._content[start : min(end, start + MAX_HEADER)]
        fields = _find(b"\n" + header)
        part.fields = collect(fields)
        part.repeats = len(part.fields) < len(fields) and repeats(fields)

    def _header_end(self, start: int) -> int:
        content = self._content
        if content[start : start + 1] == b"\n":
            return start + 1
        if content[start : start + 2] == b"\r\n":
            return start + 2
        ends = [len(content)]
        for octets, place in self._blank_lines.items():
            if place < start:  # else known from an earlier part's look
                place = content.find(octets, start)
                self._blank_lines[octets] = place if place >= 0 else len(content)
            ends.append(self._blank_lines[octets] + len(octets))
        return min(ends)

    def _describe(self, part: Part) -> int:
        """Note what the header says; open what the body begins with.

        Returns the place to go on from.
        """
        values = part.fields
        # RFC 2045 section 5.2: what cannot be read is text/plain.
        if (value := values.get(b"content-type")) and (read := content_type(value)):
            part.type, part.subtype, part.parameters = read
        if value := values.get(b"content-transfer-encoding"):
            part.encoding = token(value) or part.encoding
        if value := values.get(b"content-disposition"):
            part.disposition = disposition(value)
        room = len(self._open) < MAX_DEPTH and self._count < MAX_PARTS
        if part.is_multipart:
            self._open_multipart(part, room)
        elif part.is_message:
            if room:
                return self._begin_message(part.body, part)
            part.type, part.subtype = b"application", b"octet-stream"
        return part.body

    def _open_multipart(self, part: Part, room: bool) -> None:
        boundary = (part.parameter(b"boundary") or b"").rstrip()
        if not room:
            part.type, part.subtype = b"application", b"octet-stream"
        elif not 0 < len(boundary) <= MAX_BOUNDARY:
            # Without a boundary there are no parts: shown as the text it is.
            part.type, part.subtype, part.parameters = b"text", b"plain", ()
        else:
            level = len(self._open) - 1
            self._open[level] = part, boundary
            self._levels.setdefault(boundary, []).append(level)

    # Delimiter lines.

    def _delimiter(self, place: int, end: int) -> tuple[int, int, int, bool] | None:
        """Find the first delimiter line that begins in ``place:end``.

        Returns its place, the place after it, the level of its multipart and
        whether it is the last of that.

        Stricter than RFC 2046 section 5.1.1: after the boundary only blanks may
        follow, so that no boundary is taken for one it begins with.
        """
        content, levels = self._content, self._levels
        before = place - 1
        while (before := content.find(b"\n--", before, end + 2)) >= 0:
            line = before + 1
            stop = content.find(b"\n", line, line + _MAX_DELIMITER_LINE)
            if stop < 0:
                stop = min(len(content), line + _MAX_DELIMITER_LINE)
            rest = content[line + 2 : stop].rstrip()
            after = min(stop + 1, len(content))  # the file may end in the line
            if rest in levels:
                return line, after, levels[rest][-1], False
            if rest[-2:] == b"--" and rest[:-2] in levels:
                return line, after, levels[rest[:-2]][-1], True
            before = stop
        return None

    def _before(self, line: int) -> int:
        """Return where the line end lies that belongs to the delimiter there."""
        return line - 2 if self._content[line - 2 : line - 1] == b"\r" else line - 1


def part_at(root: Part, numbers: Sequence[int]) -> Part | None:
    """Return the part with this number (RFC 3501 section 6.4.5), or None.

    No numbers: the message itself.
    """
    part, is_whole = root, True  # whole: `part` stands for a message, unnumbered
    for number in numbers:
        if part.is_message and not is_whole:
            part, is_whole = part.parts[0], True
        if part.is_multipart:
            if not 0 < number <= len(part.parts):
                return None
            part, is_whole = part.parts[number - 1], False
        elif is_whole and number == 1:
            is_whole = False
        else:
            return None
    return part


_RECORD = struct.Struct("<BQQQI")  # kind, served start, body, end, number of parts
# What a record's kind stands for; all that is not named is the first.
_KINDS = (
    (b"application", b"octet-stream"),
    (b"text", b"plain"),
    (b"message", b"rfc822"),
    (b"multipart", b"mixed"),
)


def dump(root: Part) -> bytes:
    """Keep what sections are found by: kinds and places of served octets."""
    return b"".join(
        _RECORD.pack(
            part.is_text + 2 * part.is_message + 3 * part.is_multipart,
            part.served_start,
            part.served_body,
            part.served_end,
            len(part.parts),
        )
        for part in root.walk()
    )


def load(dumped: bytes) -> Part:
    """Make of a `dump` a structure good for `part_at` and served places."""
    root: Part | None = None
    unfilled: list[tuple[Part, int]] = []
    for kind, start, body, end, count in _RECORD.iter_unpack(dumped):
        part = Part(-1, start, served_body=body, served_end=end)
        part.type, part.subtype = _KINDS[kind]
        if unfilled:
            unfilled[-1][0].parts.append(part)
        root = root or part
        unfilled.append((part, count))
        while unfilled and len(unfilled[-1][0].parts) == unfilled[-1][1]:
            unfilled.pop()
    if root is None:
        raise ValueError("not a dumped structure")
    return root
