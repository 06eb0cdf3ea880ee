"""POP3 unique ids as Dovecot's setting pop3_uidl_format makes them. Pure.

The spellings of Dovecot 2.3 (``%08Xu%08Xv``) and of 2.4 (``%{uid | hex(8)}``) are
known, for the UID, UIDVALIDITY, the message's id and its base name. An id that a
uidlist holds in its P field is not made but taken.
"""

import re
from collections.abc import Callable

DEFAULT = "%08Xu%08Xv"  # Dovecot's own

_PIECE = re.compile(
    r"(?P<plain>[!-$&-~]+)"  # RFC 1939 section 7: printable, no space
    r"|%(?P<percent>%)"
    r"|%(?P<old>(?:0(?P<width>[1-9]\d?)X|X)?(?P<short>[uvgf]))"
    r"|%\{ *(?P<long>uid|uidvalidity|guid|filename) *"
    r"(?:\| *(?P<hex>hex)(?:\((?P<digits>[1-9]\d?)\))? *)?\}"
)
_SHORT = {"uid": "u", "uidvalidity": "v", "guid": "g", "filename": "f"}

Uidl = Callable[[int, int, bytes, bytes], bytes]
"""Makes the id from UID, UIDVALIDITY, the message's id and its base name."""


def compiled(text: str) -> Uidl:
    """Return the maker of ids of this format. Raises ValueError: not a format."""
    template, used, at = "", False, 0
    while at < len(text):
        match = _PIECE.match(text, at)
        if match is None:
            raise ValueError(f"{text[at : at + 20]!r} is not understood")
        piece, is_value = _piece(match)
        template += piece
        used = used or is_value
        at = match.end()
    if not used:
        raise ValueError("every message would have the same id")
    made = template.encode()
    return lambda uid, uid_validity, guid, base: (
        made % {b"u": uid, b"v": uid_validity, b"g": guid, b"f": base}
    )


def _piece(match: re.Match[str]) -> tuple[str, bool]:
    """Return a piece for the operator %, and whether it holds a value."""
    if match["plain"]:
        return match["plain"], False
    if match["percent"]:
        return "%%", False
    key = match["short"] or _SHORT[match["long"]]
    in_hex = "X" in (match["old"] or "") or bool(match["hex"])
    if key in "gf":
        if in_hex:
            raise ValueError("only numbers can be hexadecimal")
        return f"%({key})b", True
    width = match["width"] or match["digits"] or ""
    return f"%({key}){'0' + width if width else ''}{'x' if in_hex else 'd'}", True
