"""The first words of a message, as a list of messages shows them (RFC 8970)."""

import re
import unicodedata
from collections.abc import Iterator

from mailsrv.mime.served import Content
from mailsrv.mime.structure import Part
from mailsrv.mime.text import decoded_text

MAX_CHARACTERS = 200  # RFC 8970 section 3.1; never over 256
MAX_PARTS = 5  # that are looked at until one says something
# Octets of a part that are looked at, and if these say too little; styles are long.
_OCTETS = {b"plain": (2 * 1024, 8 * 1024), b"html": (8 * 1024, 48 * 1024)}
_ENOUGH = 2 * MAX_CHARACTERS  # what is cut off does not show in the preview

# Other blanks and what is not seen: newsletters fill the lines behind their first
# words with these, so that a preview shows nothing else.
_UNSEEN = (
    "\0-\x1f\x7f-\xa0\xad\u034f\u061c\u115f\u1680\u180e\u2000-\u200f\u2028-\u202f"
    "\u205f-\u206f\u3000\u3164\ufeff\ufff9-\ufffc"
)
_BLANKS = re.compile(f" ?[{_UNSEEN}][{_UNSEEN} ]*+")
_CUT_TAG = re.compile(r"<[^<>]*+$")


def preview(root: Part, content: Content) -> str:
    """Return up to `MAX_CHARACTERS` of the text that a reader would show first.

    Of a text part that is not attached; "" if there is none. `root` is of `parse`,
    with the fields of its parts.
    """
    for count, part in enumerate(_shown(root), 1):
        for octets in _OCTETS[part.subtype]:
            end = min(part.end, part.body + octets)
            text = decoded_text(
                content[part.body : end], part.subtype, part.parameters, part.encoding
            )
            if end < part.end and part.subtype == b"html":
                text = _CUT_TAG.sub("", text)
            words = _words(_news(text))
            if len(words) >= _ENOUGH or end == part.end:
                break
        if words := words or _words(text):
            return _cut(words)
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


def _news(text: str) -> str:
    """Leave out what is quoted: it is shown only if it is all there is."""
    if ">" not in text:
        return text
    return "\n".join([line for line in text.split("\n") if line[:1] != ">"])


def _words(text: str) -> str:
    """Return the first words, more than are shown, with one blank between them."""
    for characters in (5 * MAX_CHARACTERS, 16 * MAX_CHARACTERS):
        words = " ".join(text[:characters].split())
        if not (words.isascii() and words.isprintable()):
            words = " ".join(_BLANKS.sub(_blank, words).split())
        if len(words) >= _ENOUGH:
            break
    return words


def _cut(words: str) -> str:
    end = MAX_CHARACTERS
    while end < len(words) and unicodedata.category(words[end])[0] == "M":
        end -= 1  # no character without its accents
        if end == MAX_CHARACTERS // 2:
            return words[:MAX_CHARACTERS]
    return words[:end].rstrip()


def _blank(found: re.Match[str]) -> str:
    """Make blanks one; inside a word what is not seen may join letters or signs."""
    run = found[0]
    if run in ("\u200c", "\u200d"):
        return run
    return " " if any(c.isspace() or c < " " for c in run) else ""
