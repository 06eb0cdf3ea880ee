"""The text of a message as SEARCH compares it: decoded from encodings and charsets.

Reads text parts and the headers of messages in messages; what is attached in other
types is passed over, unread. Bounded by named limits.
"""

import re
from collections.abc import Callable, Iterator
from html import unescape

from mailsrv.mime import charset
from mailsrv.mime.header import MAX_HEADER, decode, fields, finder, unfold
from mailsrv.mime.parameters import Parameters, content_type, token
from mailsrv.mime.structure import Part
from mailsrv.mime.transfer import decoded

MAX_PART = 1024 * 1024  # octets of a text part that are looked at
MAX_TEXT = 16 * 1024 * 1024  # octets of all text parts of a message

# Long texts come in windows: to fold more at once would hold up other threads. What
# is sought is found across an edge if it is no longer than the overlap.
WINDOW = 128 * 1024  # characters
OVERLAP = 1024

Read = Callable[[int, int], bytes]  # (served offset, count) -> served octets

_find = finder((b"content-type", b"content-transfer-encoding"))
# Stretches that are not shown, then single tags.
_UNSEEN = re.compile(
    r"<(style|script)\b[^<>]*+>(?:[^<]++|<(?!/\1))*+(?:</\1[^<>]*+>|$)"
    r"|<!--(?:[^-]++|-(?!->))*+(?:-->|$)",
    re.IGNORECASE,
)
_TAG = re.compile(r"</?[a-zA-Z!][^<>]*+>")
_BREAK = re.compile(r"<(?:br|p|div|td|th|tr|li|h\d)\b[^<>]*+>", re.IGNORECASE)


def texts(root: Part, read: Read, *, header: bool) -> Iterator[str]:
    """Yield the texts of a message; with `header`, its header's first.

    `root` may come from `structure.load`: only kinds and served places count.
    """
    if header:
        yield from header_texts(root, read)
    yield from body_texts(root, read)


def header_texts(root: Part, read: Read) -> Iterator[str]:
    """Yield the text of a message's own header."""
    octets = min(root.served_body - root.served_start, MAX_HEADER)
    yield from _windows(header_text(read(root.served_start, octets)))


def body_texts(root: Part, read: Read) -> Iterator[str]:
    """Yield the texts of a message's body, headers of messages in it included."""
    left = MAX_TEXT
    inner = {
        id(part.parts[0]) for part in root.walk() if part.is_message and part.parts
    }
    for part in root.walk():
        is_message = id(part) in inner
        if not (is_message or part.is_text):
            continue
        octets = min(part.served_body - part.served_start, MAX_HEADER)
        block = read(part.served_start, octets)
        if is_message:
            yield from _windows(header_text(block))
        if part.is_text and left > 0:
            size = min(part.served_end - part.served_body, MAX_PART, left)
            left -= size
            yield from _windows(part_text(block, read(part.served_body, size)))


def _windows(text: str) -> Iterator[str]:
    for start in range(0, max(1, len(text) - OVERLAP), WINDOW):
        yield text[start : start + WINDOW + OVERLAP]


def header_text(block: bytes) -> str:
    """Return a header's fields decoded, one a line."""
    return "\n".join(
        f"{name.decode('ascii')}: {decode(unfold(raw))}" for name, raw in fields(block)
    )


def part_text(header: bytes, body: bytes) -> str:
    """Return the text of a text part; of HTML, what is shown."""
    values = {name.lower(): unfold(raw) for name, raw in _find(b"\n" + header)}
    subtype = b"plain"
    parameters: Parameters = ()
    if read := content_type(values.get(b"content-type", b"")):
        _, subtype, parameters = read
    encoding = token(values.get(b"content-transfer-encoding", b""))
    return decoded_text(body, subtype, parameters, encoding)


def decoded_text(
    body: bytes, subtype: bytes, parameters: Parameters, encoding: bytes | None
) -> str:
    """Return the text of a text part of which the header is known."""
    name = dict(parameters).get(b"charset", b"").decode("ascii", "replace")
    text = charset.decode(decoded(body, encoding or b"7bit"), name)
    return _shown(text) if subtype == b"html" else text


def _shown(html: str) -> str:
    text = _UNSEEN.sub(" ", html)
    return unescape(_TAG.sub("", _BREAK.sub(" ", text)))
