"""Modified UTF-7, the encoding of mailbox names (RFC 3501 section 5.1.3)."""

import binascii
import re

_TO_ENCODE = re.compile("&|[^ -~]+")
_SHIFTED = re.compile(rb"&([A-Za-z0-9+,]*)-")
_PLAIN = re.compile(rb"[ -%'-~]*\Z")  # printable US-ASCII without "&"


def encode(text: str) -> bytes:
    """Encode `text`; raise ValueError if it holds half a surrogate pair."""
    return _TO_ENCODE.sub(_shift, text).encode("ascii")


def decode(octets: bytes) -> str:
    """Decode a name; raise ValueError unless it is what `encode` makes.

    Several spellings of one name would be several directories, so only the one
    that RFC 3501 allows is taken: no superfluous shifts, no bits left over.
    """
    pieces = _SHIFTED.split(octets)  # plain and shifted pieces in turn
    for plain in pieces[::2]:
        if not _PLAIN.match(plain):
            raise ValueError("not modified UTF-7")
    text = "".join(
        _unshift(piece) if n % 2 else piece.decode("ascii")
        for n, piece in enumerate(pieces)
    )
    if encode(text) != octets:
        raise ValueError("not the only spelling of this modified UTF-7")
    return text


def _shift(match: re.Match[str]) -> str:
    text = match.group()
    if text == "&":
        return "&-"
    coded = binascii.b2a_base64(text.encode("utf-16-be"), newline=False)
    return "&" + coded.decode("ascii").rstrip("=").replace("/", ",") + "-"


def _unshift(coded: bytes) -> str:
    if not coded:
        return "&"
    padded = coded.replace(b",", b"/") + b"=" * (-len(coded) % 4)
    # binascii.Error and UnicodeDecodeError are ValueErrors
    return binascii.a2b_base64(padded).decode("utf-16-be")
