"""Makes a message of 7 bits out of one of 8 (RFC 6152 section 3, RFC 2045 section 6).

For servers that take no other. Each part with 8-bit octets is encoded anew, all else
stays as it is. What is signed is never touched, and header fields hold no more than
ASCII or cannot be sent. The message is read piece by piece.
"""

import base64
import binascii
import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mailsrv.mime.header import MAX_HEADER
from mailsrv.mime.parameters import content_type
from mailsrv.mime.served import Content, to_crlf
from mailsrv.mime.structure import MAX_PARTS, Part, parse
from mailsrv.mime.transfer import is_identity

_PIECE = 64 * 1024
_BASE64_LINE = 57  # octets in a line of 76 characters
_HIGH = bytes(range(128, 256))
_ENCODING = re.compile(
    rb"^content-transfer-encoding[ \t]*+:[^\n]*+(?:\n(?=[ \t])[^\n]*+)*+(?:\n|\Z)",
    re.IGNORECASE | re.MULTILINE,
)
_VERSION = re.compile(rb"^mime-version[ \t]*+:", re.IGNORECASE | re.MULTILINE)
_BLANK_LINE = re.compile(rb"(?:\A|(?<=\n))\r?\n\Z")


class NotConvertible(Exception):
    """The message cannot be sent in 7 bits; the text says why."""


@dataclass(frozen=True, slots=True)
class _Edit:
    """What stands in the new message instead of the octets between two places."""

    start: int
    end: int
    pieces: Iterable[bytes]


def seven_bit(content: Content) -> Iterator[bytes]:
    """Return the message in 7 bits, in pieces; LF or CRLF, as it comes.

    Raises `NotConvertible`, at once.
    """
    edits = [*_edits(content, parse(content))]
    place = 0
    for edit in edits:
        if not _is_ascii(content, place, edit.start):
            raise NotConvertible("8-bit octets outside the parts")
        place = edit.end
    if not _is_ascii(content, place, len(content)):
        raise NotConvertible("8-bit octets outside the parts")
    return _applied(content, edits)


def _applied(content: Content, edits: Iterable[_Edit]) -> Iterator[bytes]:
    place = 0
    for edit in edits:
        yield from _slices(content, place, edit.start)
        yield from edit.pieces
        place = edit.end
    yield from _slices(content, place, len(content))


def _edits(content: Content, root: Part) -> Iterator[_Edit]:
    """Yield what is to be changed, in order."""
    waiting = [root]
    count = 0
    while waiting:
        part = waiting.pop()
        count += 1
        if count >= MAX_PARTS:  # what follows was not looked at
            raise NotConvertible("too many parts")
        if not _is_ascii(content, part.start, part.body):
            raise NotConvertible("8-bit octets in a header")
        if part.is_multipart and part.subtype == b"signed":
            # RFC 1847 section 2.1: it was to be of 7 bits when it was signed.
            if not _is_ascii(content, part.body, part.end):
                raise NotConvertible("8-bit octets that are signed")
        elif part.parts or _is_ascii(content, part.body, part.end):
            yield from _labelled(content, part)
            waiting.extend(reversed(part.parts))
        else:
            yield from _encoded(content, part, is_root=part is root)


def _labelled(content: Content, part: Part) -> Iterator[_Edit]:
    """Say of a part that it has 7 bits, if it said something else."""
    if part.encoding in (b"8bit", b"binary"):
        header = _ENCODING.sub(b"", _header(content, part))
        yield _Edit(part.start, part.body, [header])


def _encoded(content: Content, part: Part, *, is_root: bool) -> Iterator[_Edit]:
    if not is_identity(part.encoding):
        raise NotConvertible("8-bit octets in what is encoded")
    kind, subtype, _ = content_type(part.fields.get(b"content-type", b"")) or (
        part.type,
        part.subtype,
        (),
    )
    # RFC 2045 section 6.4: these have no encoding. RFC 6532 section 3.7: but that one.
    is_global = subtype.startswith(b"global")
    if kind == b"multipart" or (kind == b"message" and not is_global):
        raise NotConvertible(f"8-bit octets in a broken {kind.decode()}")
    counted = _count(content, part)
    is_text = part.type in (b"text", b"message")
    # Quoted-printable stays readable, but makes two octets more of each.
    quoted = is_text and counted.high * 3 <= part.end - part.body
    header = _ENCODING.sub(b"", _header(content, part))
    header = _BLANK_LINE.sub(b"", header)
    if is_root and not _VERSION.search(header):
        header += b"MIME-Version: 1.0\n"
    if b"content-type" not in part.fields:
        # RFC 1428 section 3: a charset that nobody has named.
        charset = b"utf-8" if counted.is_utf8 else b"unknown-8bit"
        header += b"Content-Type: text/plain; charset=%b\n" % charset
    name = b"quoted-printable" if quoted else b"base64"
    header += b"Content-Transfer-Encoding: %b\n\n" % name
    yield _Edit(part.start, part.body, [header])
    encode = _quoted_printable if quoted else _base64
    yield _Edit(part.body, part.end, encode(content, part))


def _header(content: Content, part: Part) -> bytes:
    if part.body - part.start > MAX_HEADER:
        raise NotConvertible("a header that is too long")
    return content[part.start : part.body]


@dataclass(slots=True)
class _Counted:
    """What stands in the body of a part."""

    high: int = 0  # 8-bit octets
    is_utf8: bool = True


def _count(content: Content, part: Part) -> _Counted:
    counted = _Counted()
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for piece in _slices(content, part.body, part.end):
            counted.high += len(piece) - len(piece.translate(None, _HIGH))
            if counted.is_utf8:
                decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        counted.is_utf8 = False
        counted.high = sum(
            len(piece) - len(piece.translate(None, _HIGH))
            for piece in _slices(content, part.body, part.end)
        )
    return counted


def _quoted_printable(content: Content, part: Part) -> Iterator[bytes]:
    held = b""
    for piece in _slices(content, part.body, part.end):
        held += piece
        cut = held.rfind(b"\n") + 1
        if cut:
            yield _quoted(held[:cut])
            held = held[cut:]
        elif len(held) > _PIECE:  # a line without end, in lines that are none
            # Not between CR and LF, where the next piece may begin.
            yield _quoted(held[:_PIECE]) + b"=\n"
            held = held[_PIECE:]
    yield _quoted(held)


def _quoted(octets: bytes) -> bytes:
    lines = binascii.b2a_qp(octets.replace(b"\r\n", b"\n"), istext=True)
    return lines.replace(b"\r", b"=0D")


def _base64(content: Content, part: Part) -> Iterator[bytes]:
    """Encode lines as they are sent, with CRLF."""
    held = b""
    after_cr = False
    for piece in _slices(content, part.body, part.end):
        held += to_crlf(piece, after_cr=after_cr)
        after_cr = piece.endswith(b"\r")
        whole = len(held) - len(held) % _BASE64_LINE
        yield base64.encodebytes(held[:whole])
        held = held[whole:]
    last = base64.encodebytes(held)
    # Before a delimiter stands a line end already.
    yield last if part.end == len(content) else last.removesuffix(b"\n")


def _slices(content: Content, start: int, end: int) -> Iterator[bytes]:
    for place in range(start, end, _PIECE):
        yield content[place : min(place + _PIECE, end)]


def _is_ascii(content: Content, start: int, end: int) -> bool:
    return all(map(bytes.isascii, _slices(content, start, end)))
