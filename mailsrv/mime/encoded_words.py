"""Writes text into header fields (RFC 2047): ASCII as it is, all else encoded.

UTF-8 in base64, folded so that no line is longer than 76 characters.
"""

import base64
import re

# RFC 2047 section 2: 75 characters a word. 45 octets are 60 of base64, and 12 more.
_MAX_OCTETS = 45
_LINE = 76
_PLAIN = re.compile(r"[ -~]*")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*")


def text(value: str) -> str:
    """Return an unstructured field's value (Subject). No line end may be in it."""
    if _PLAIN.fullmatch(value) and "=?" not in value:
        return _folded(value)
    return _words(value)


def phrase(value: str) -> str:
    """Return a display name, to stand before an address in angle brackets."""
    if not _PLAIN.fullmatch(value) or "=?" in value:
        return _words(value)
    if _ATOMS.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _words(value: str) -> str:
    pieces: list[bytes] = [b""]
    for character in value:
        octets = character.encode("utf-8", "replace")
        if len(pieces[-1]) + len(octets) > _MAX_OCTETS:
            pieces.append(b"")
        pieces[-1] += octets
    # A fold between two words is not shown (section 6.2).
    return "\r\n ".join(
        f"=?utf-8?B?{base64.b64encode(piece).decode()}?=" for piece in pieces
    )


def _folded(value: str) -> str:
    """Fold a long line of ASCII at single blanks: unfolding gives the same text."""
    lines = [""]
    for word in value.split(" "):
        line = lines[-1]
        # A line of blanks alone would end the header for some readers.
        if line.strip() and len(line) + len(word) + 1 > _LINE - 10 and word:
            lines.append(word)
        else:
            lines[-1] = f"{line} {word}" if line or len(lines) > 1 else word
    return "\r\n ".join(lines)
