"""BODY and BODYSTRUCTURE as they go on the wire (RFC 3501 section 7.4.2)."""

from mailsrv.mime.nstring import nstring, string
from mailsrv.mime.parameters import Parameters
from mailsrv.mime.structure import Part

# A multipart needs a part on the wire even if the message has none.
_NO_PART = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0)'


def body(root: Part) -> bytes:
    """Write the BODY item."""
    return _write(root, extended=False)


def bodystructure(root: Part) -> bytes:
    """Write the BODYSTRUCTURE item."""
    return _write(root, extended=True)


def _write(root: Part, *, extended: bool) -> bytes:
    written: list[bytes] = []
    waiting: list[Part | bytes] = [root]
    while waiting:
        part = waiting.pop()
        if isinstance(part, bytes):
            written.append(part)
        elif part.is_multipart:
            written.append(b"(")
            waiting.append(_multipart_end(part, extended))
            waiting.extend(reversed(part.parts))
            if not part.parts:
                waiting.append(_NO_PART)
        elif part.is_message:
            message = part.parts[0]
            written.append(b"(%b %b " % (_basic(part), message.envelope))
            waiting.append(b" %d%b)" % (part.lines, _extension(part, extended)))
            waiting.append(message)
        else:
            lines = b" %d" % part.lines if part.type == b"text" else b""
            written.append(
                b"(%b%b%b)" % (_basic(part), lines, _extension(part, extended))
            )
    return b"".join(written)


def _multipart_end(part: Part, extended: bool) -> bytes:
    end = b" " + string(part.subtype)
    if extended:
        end += b" " + _parameters(part.parameters) + _placement(part)
    return end + b")"


def _basic(part: Part) -> bytes:
    parameters = part.parameters
    if part.type == b"text" and part.parameter(b"charset") is None:
        parameters = (*parameters, (b"charset", b"us-ascii"))
    return b"%b %b %b %b %b %b %d" % (
        string(part.type),
        string(part.subtype),
        _parameters(parameters),
        nstring(part.texts.get(b"id")),
        nstring(part.texts.get(b"description")),
        string(part.encoding),
        part.served_end - part.served_body,
    )


def _extension(part: Part, extended: bool) -> bytes:
    if not extended:
        return b""
    return b" " + nstring(part.texts.get(b"md5")) + _placement(part)


def _placement(part: Part) -> bytes:
    """Write disposition, language and location."""
    if part.disposition is None:
        disposition = b"NIL"
    else:
        kind, parameters = part.disposition
        disposition = b"(%b %b)" % (string(kind), _parameters(parameters))
    languages = part.texts.get(b"language", b"").replace(b",", b" ").split()
    return b" %b %b %b" % (
        disposition,
        b"(%b)" % b" ".join(map(string, languages)) if languages else b"NIL",
        nstring(part.texts.get(b"location")),
    )


def _parameters(parameters: Parameters) -> bytes:
    if not parameters:
        return b"NIL"
    return b"(%b)" % b" ".join(
        b"%b %b" % (string(name), string(value)) for name, value in parameters
    )
