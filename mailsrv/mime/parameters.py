"""Content-Type, Content-Disposition and their parameters (RFC 2045, 2183, 2231).

Reads what is written against the grammar as far as its sense is plain. Values
keep their octets; RFC 2231 continuations are joined, their encoding is kept.
"""

import re
from itertools import islice
from urllib.parse import quote_from_bytes

MAX_PARAMETERS = 100  # of one field; those after them are dropped

Parameters = tuple[tuple[bytes, bytes], ...]  # lower-case name, value

_TYPE = re.compile(
    rb'\s*+([^\s"(),/:;<=>?@\[\]\\]++)\s*+/\s*+([^\s"(),/:;<=>?@\[\]\\]++)'
)
_TOKEN = re.compile(rb'\s*+"?([^\s"(),/:;<=>?@\[\]\\]++)')
_PARAMETER = re.compile(
    rb';\s*+([^\s=;"]++)\s*+=\s*+(?:"((?:[^"\\]++|\\.)*+)"?|([^;]*+))', re.S
)
_CONTINUED = re.compile(rb"(.*)\*(\d{1,3})(\*?)", re.S)
_COMMENT = re.compile(rb'("(?:[^"\\]++|\\.)*+"?)|\([^()]*+\)', re.S)
_ESCAPED = re.compile(rb"\\(.)", re.S)
_ENCODED = re.compile(rb"[^']*+'[^']*+'")


def content_type(value: bytes) -> tuple[bytes, bytes, Parameters] | None:
    """Read type, subtype, both lower-case, and parameters; None if it is none."""
    found = _TYPE.match(value)
    if found is None:
        return None
    return found[1].lower(), found[2].lower(), parameters(value, found.end())


def token(value: bytes) -> bytes | None:
    """Read the lower-case token that begins an encoding or disposition."""
    found = _TOKEN.match(_uncomment(value))
    return found[1].lower() if found else None


def disposition(value: bytes) -> tuple[bytes, Parameters] | None:
    """Read a Content-Disposition: its lower-case kind and its parameters."""
    kind = token(value)
    return None if kind is None else (kind, parameters(value))


def parameters(value: bytes, place: int = 0) -> Parameters:
    """Read the parameters after `place`; of a repeated name the first counts."""
    if value.find(b";", place) < 0:
        return ()
    if b"(" in value:
        value, place = _uncomment(value[place:]), 0
    read: dict[bytes, bytes] = {}
    continued = False
    for found in islice(_PARAMETER.finditer(value, place), MAX_PARAMETERS):
        name = found[1].lower()
        quoted = found[2]
        if quoted is None:
            text = found[3].strip()
        else:
            text = _ESCAPED.sub(rb"\1", quoted) if b"\\" in quoted else quoted
        continued = continued or b"*" in name
        read.setdefault(name, text)
    return tuple((_join(read) if continued else read).items())


def _uncomment(value: bytes) -> bytes:
    """Take comments out; one nested in another leaves its surroundings."""
    return _COMMENT.sub(rb"\1", value) if b"(" in value else value


def _join(read: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Join ``name*0``, ``name*1*``, ... (RFC 2231 section 3) to one ``name*``.

    If no piece is encoded, to a plain ``name``.
    """
    joined: dict[bytes, bytes] = {}
    pieces: dict[bytes, dict[int, tuple[bytes, bool]]] = {}
    for name, text in read.items():
        if found := _CONTINUED.fullmatch(name):
            pieces.setdefault(found[1], {})[int(found[2])] = text, bool(found[3])
        else:
            joined[name] = text
    for name, numbered in pieces.items():
        whole, encoded = _concatenate(numbered)
        joined.setdefault(name + b"*" if encoded else name, whole)
    return joined


def _concatenate(numbered: dict[int, tuple[bytes, bool]]) -> tuple[bytes, bool]:
    run: list[tuple[bytes, bool]] = []
    while len(run) in numbered:
        run.append(numbered[len(run)])
    if not any(encoded for _, encoded in run):
        return b"".join(text for text, _ in run), False
    whole = b"".join(
        text if encoded else quote_from_bytes(text).encode() for text, encoded in run
    )
    # Only the first piece may name a charset; without one the value has none.
    return (whole if _ENCODED.match(whole) else b"''" + whole), True
