"""Codes the parts of a message that hold no lines in base64 (RFC 3516 section 4.4).

A Maildir keeps lines: a bare CR or LF would not come out as it went in, and NUL may
not be in what IMAP and POP3 send.
"""

import binascii
import re
from collections.abc import Generator, Iterator

from mailsrv.mime.structure import Part, parse

_BINARY = re.compile(rb"\r(?!\n)|(?<!\r)\n|\0")
_FIELD = re.compile(
    rb"^content-transfer-encoding[ \t]*:[^\n]*+\n(?:[ \t][^\n]*+\n)*+",
    re.IGNORECASE | re.MULTILINE,
)
_CODED = b"Content-Transfer-Encoding: base64\r\n"
_LINE = 57  # octets that make 76 characters
_SLICE = 2000 * _LINE  # octets that are coded at once, in a ms or so


def is_binary(octets: bytes) -> bool:
    return _BINARY.search(octets) is not None


def code_binary(message: bytes) -> Generator[None, None, bytes]:
    """Return a message whose parts all hold lines, with CR LF; yield now and then."""
    pieces: list[bytes] = []
    done = 0
    for part in _leaves(parse(message)):
        body = message[part.body : part.end]
        if part.encoding in (b"7bit", b"8bit", b"binary") and is_binary(body):
            pieces.append(message[done : part.start])
            pieces.append(_header(message[part.start : part.body]))
            for start in range(0, len(body), _SLICE):
                pieces.extend(_lines(body[start : start + _SLICE]))
                yield
            done = part.end
    return b"".join((*pieces, message[done:]))


def _leaves(root: Part) -> Iterator[Part]:
    return (part for part in root.walk() if not part.parts)


def _header(header: bytes) -> bytes:
    """Return a part's header, blank line and all, with the encoding that it has now."""
    rest = _FIELD.sub(b"", header)
    return _CODED + (rest if rest.endswith(b"\n") else rest + b"\r\n\r\n")


def _lines(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), _LINE):
        yield binascii.b2a_base64(body[start : start + _LINE], newline=False) + b"\r\n"
