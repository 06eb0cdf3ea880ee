"""Answers BINARY and BINARY.SIZE: parts with their encoding undone (RFC 3516).

Runs in a reader's thread. How long a decoded part is shows only once it was decoded,
so it is decoded twice: nothing of it is kept in memory.
"""

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from mailsrv.imap.fetch_items import Binary
from mailsrv.mime.header import MAX_HEADER
from mailsrv.mime.structure import part_at
from mailsrv.mime.transfer import decoder, encoding, is_identity

if TYPE_CHECKING:
    from mailsrv.store.reading import MessageFile

STEP = 256 * 1024  # encoded octets that are decoded at once
WORKED = b""  # a piece that says: some ms of work were done, and nothing is to send


class UnknownEncoding(Exception):
    """The part's encoding is none that can be undone."""


class Changed(Exception):
    """The file gives other octets than before."""


def check(file: "MessageFile", item: Binary) -> None:
    """Raise `UnknownEncoding` if the part cannot be decoded."""
    place = _place(file, item.numbers)
    if place is not None and decoder(place[2]) is None:
        raise UnknownEncoding


def read(file: "MessageFile", item: Binary) -> Generator[bytes, None, None]:
    """Yield a part's value on the wire, in pieces, with `WORKED` between."""
    place = _place(file, item.numbers)
    if place is None:
        yield b"0" if item.only_size else b"NIL"
        return
    size, has_nul = 0, False
    for octets in _decoded(file, place, item.partial):
        size += len(octets)
        has_nul = has_nul or b"\0" in octets
        yield WORKED
    if item.only_size:
        yield b"%d" % size
        return
    # RFC 3516 section 4.2: what holds NUL has to be a literal8.
    yield b"%b{%d}\r\n" % (b"~" if has_nul else b"", size)
    for octets in _decoded(file, place, item.partial):
        size -= len(octets)
        if size < 0:
            break
        yield octets
    if size:
        raise Changed


def _place(
    file: "MessageFile", numbers: tuple[int, ...]
) -> tuple[int, int, bytes] | None:
    """Return where a part lies in the served octets, and its encoding."""
    if not numbers:
        return 0, file.size_octets, b"binary"  # the message with all its encodings
    part = part_at(file.structure(), numbers)
    if part is None:
        return None
    header = min(part.served_body - part.served_start, MAX_HEADER)
    name = encoding(file.read(part.served_start, header))
    return part.served_body, part.served_end, name


def _decoded(
    file: "MessageFile",
    place: tuple[int, int, bytes],
    partial: tuple[int, int] | None,
) -> Iterator[bytes]:
    """Yield the decoded octets, or those that `partial` asks for."""
    start, end, name = place
    first, count = partial or (0, end)
    if is_identity(name):
        start = min(start + first, end)
        end = min(start + count, end)
        first, count = 0, end
    found = decoder(name)
    if found is None:
        raise UnknownEncoding
    while start < end and count > 0:
        octets = file.read(start, min(STEP, end - start))
        if not octets:
            raise Changed
        start += len(octets)
        octets = found.feed(octets)
        if start >= end:
            octets += found.end()
        skipped = min(first, len(octets))
        octets = octets[skipped : skipped + count]
        first -= skipped
        count -= len(octets)
        yield octets
