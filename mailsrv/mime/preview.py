"""The first words of a message, as a list of messages shows them (RFC 8970)."""

import re
import unicodedata
from collections.abc import Iterator

from mailsrv.mime.served import Content
from mailsrv.mime.structure import Part
from mailsrv.mime.text import decoded_text

MAX_CHARACTERS = 200  # RFC 8970 section 3.1; never over 256
MAX_PARTS = 5  # that are looked at until one says something
_OCTETS = {b"plain": 8 * 1024, b"html": 48 * 1024}  # of a part; styles are long

# Other blanks and what is not seen: newsletters fill the lines behind their first
# words with these, so that a preview shows nothing else.
_UNSEEN = (
    "\0-\x1f\x7f-\xa0\xad\u034f\u061c\u115f\u1680\u180e\u2000-\u200f\u2028-\u202f"
    "\u205f-\u206f\u3000\u3164\ufeff\ufff9-\ufffc"
)
_BLANKS = re.compile(f" ?[{_UNSEEN}][{_UNSEEN} ]*+")
_QUOTED = re.compile(r"^>.*$", re.MULTILINE)


def preview(root: Part, content: Content) -> str:
    """Return up to `MAX_CHARACTERS` of the text that a reader would show first.

    Of a text part that is not attached; "" if there is none. `root` is of `parse`,
    with the fields of its parts.
    """
    for count, part in enumerate(_shown(root), 1):
        end = min(part.end, part.body + _OCTETS[part.subtype])
        text = decoded_text(
            content[part.body : end], part.subtype, part.parameters, part.encoding
        )
        # What is quoted is no news, unless it is all there is.
        if ">" in text and (words := _words(_QUOTED.sub("", text))):
            return words
        if words := _words(text):
            return words
        if count == MAX_PARTS:
            break
    return ""


def _shown(root: Part) -> Iterator[Part]:
    """Yield the text parts that are not attached, plain ones before alternatives."""
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if part.is_multipart:
            if part.subtype == b"encrypted":
                continue  # RFC 8970 section 3.1: nothing can be shown of it
            parts = part.parts
            if part.subtype == b"alternative":
                parts = sorted(parts, key=lambda each: each.subtype != b"plain")
            waiting.extend(reversed(parts))
        elif part.is_text and part.subtype in _OCTETS:
            if part.disposition is None or part.disposition[0] != b"attachment":
                yield part


def _words(text: str) -> str:
    text = " ".join(text[: 16 * MAX_CHARACTERS].split())
    if not (text.isascii() and text.isprintable()):
        text = " ".join(_BLANKS.sub(_blank, text).split())
    end = MAX_CHARACTERS
    while end < len(text) and unicodedata.category(text[end])[0] == "M":
        end -= 1  # no character without its accents
        if end == MAX_CHARACTERS // 2:
            return text[:MAX_CHARACTERS]
    return text[:end].rstrip()


def _blank(found: re.Match[str]) -> str:
    """Make blanks one; inside a word what is not seen may join letters or signs."""
    run = found[0]
    if run in ("\u200c", "\u200d"):
        return run
    return " " if any(c.isspace() or c < " " for c in run) else ""
