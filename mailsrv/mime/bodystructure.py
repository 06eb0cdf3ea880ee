"""BODY and BODYSTRUCTURE as they go on the wire (RFC 3501 section 7.4.2)."""

from mailsrv.mime.nstring import nstring, string
from mailsrv.mime.parameters import Parameters
from mailsrv.mime.structure import Part

_PLACEMENT_FIELDS = (b"content-disposition", b"content-language", b"content-location")
# A multipart needs a part on the wire even if the message has none.
_NO_PART = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0'
_NO_EXTENSION = b" NIL NIL NIL NIL"
# In what is written without `nest_global`, if that would write something else.
GLOBAL = b'("message" "global" '


def body_and_bodystructure(
    root: Part, *, nest_global: bool = False
) -> tuple[bytes, bytes]:
    """Write both items in one walk: the second adds an extension to each part.

    `nest_global`: message/global has a body of its own, which IMAP4rev2 knows (RFC
    9051 section 9) and IMAP4rev1 does not.
    """
    body: list[bytes] = []
    bodystructure: list[bytes] = []
    waiting: list[Part | tuple[bytes, bytes]] = [root]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Part):
            nests = nest_global or not part.is_global
            begin, end, extension = _one(part, nests=nests)
            waiting.append((end + b")", end + extension + b")"))
            if nests:
                waiting.extend(reversed(part.parts))
            part = _begins(part, begin)
        body.append(part[0])
        bodystructure.append(part[1])
    return b"".join(body), b"".join(bodystructure)


def _begins(part: Part, begin: bytes) -> tuple[bytes, bytes]:
    if part.is_multipart and not part.parts:
        begin += _NO_PART
        return begin + b")", begin + _NO_EXTENSION + b")"
    return begin, begin


def _one(part: Part, *, nests: bool) -> tuple[bytes, bytes, bytes]:
    """Write what stands before a part's own parts, after them, and the extension."""
    if part.is_multipart:
        extension = b" " + _parameters(part.parameters) + _placement(part)
        return b"(", b" " + string(part.subtype), extension
    extension = b" " + nstring(part.fields.get(b"content-md5")) + _placement(part)
    begin, lines = b"(" + _basic(part), b" %d" % part.lines
    if part.is_message and nests:
        return b"%b %b " % (begin, part.parts[0].envelope), lines, extension
    return begin, lines if part.type == b"text" else b"", extension


def _basic(part: Part) -> bytes:
    parameters = part.parameters
    if part.type == b"text" and part.parameter(b"charset") is None:
        parameters = (*parameters, (b"charset", b"us-ascii"))
    return b"%b %b %b %b %b %b %d" % (
        string(part.type),
        string(part.subtype),
        _parameters(parameters),
        nstring(part.fields.get(b"content-id")),
        nstring(part.fields.get(b"content-description")),
        string(part.encoding),
        part.served_end - part.served_body,
    )


def _placement(part: Part) -> bytes:
    """Write disposition, language and location."""
    if part.fields.keys().isdisjoint(_PLACEMENT_FIELDS):
        return b" NIL NIL NIL"
    if part.disposition is None:
        disposition = b"NIL"
    else:
        kind, parameters = part.disposition
        disposition = b"(%b %b)" % (string(kind), _parameters(parameters))
    languages = part.fields.get(b"content-language", b"").replace(b",", b" ").split()
    return b" %b %b %b" % (
        disposition,
        b"(%b)" % b" ".join(map(string, languages)) if languages else b"NIL",
        nstring(part.fields.get(b"content-location")),
    )


def _parameters(parameters: Parameters) -> bytes:
    if not parameters:
        return b"NIL"
    return b"(%b)" % b" ".join(
        b"%b %b" % (string(name), string(value)) for name, value in parameters
    )
