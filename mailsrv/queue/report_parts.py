"""The parts of a report that programs read: the status, the original, the multipart.

RFC 3464 and RFC 6522; with addresses or a header of more than ASCII RFC 6533. Pure.
"""

import hashlib
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from mailsrv.mime.date import date_time
from mailsrv.mime.header import decode, finder, unfold
from mailsrv.queue.report_text import Fate, Kind, said
from mailsrv.queue.values import Message

MAX_HEADER_OCTETS = 32 * 1024  # of the original's header that go back
MAX_WHOLE_OCTETS = 64 * 1024  # of an original that goes back whole
_MAX_LINE = 998  # RFC 5322 section 2.1.1
_FOLD = 76
_MAX_SUBJECT = 200  # characters
_MAX_REFERENCES = 10
_MAX_WORD = 500  # characters of a parameter of the client's: RFC 3461 section 5.4

_CLASSES = {Kind.FAILED: "54", Kind.DELAYED: "4"}  # of the status; others: 2
_HEX = re.compile(r"\+([0-9A-F]{2})")
_UNICODE = re.compile(r"\\x\{([0-9A-F]{2,6})\}")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,300}>")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9-]{1,50}")
_HOST = re.compile(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]{1,255}")
_find = finder((b"subject", b"message-id", b"references"))


@dataclass(frozen=True, slots=True)
class Original:
    """The message that a report is on, as far as it is known; LF line ends."""

    header: bytes
    body: bytes
    subject: str
    message_id: str  # with brackets; empty: none that is sound
    references: tuple[str, ...]


def read_original(octets: bytes) -> Original:
    """Take apart a header block, or a whole message; LF or CRLF."""
    octets = octets.replace(b"\r\n", b"\n")
    header, _, body = octets.partition(b"\n\n")
    found: dict[bytes, str] = {}
    for name, raw in _find(b"\n" + header[:MAX_HEADER_OCTETS]):
        found.setdefault(name.lower(), decode(unfold(raw)))
    subject = "".join(c if c.isprintable() else " " for c in found.get(b"subject", ""))
    own = _MESSAGE_ID.search(found.get(b"message-id", ""))
    references = _MESSAGE_ID.findall(found.get(b"references", ""))
    return Original(
        header.rstrip(b"\n"),
        body,
        subject[:_MAX_SUBJECT].strip(),
        own[0] if own else "",
        tuple(references[-_MAX_REFERENCES:]),
    )


def of_message(message: Message, hostname: str) -> str:
    """Write the fields on the message (RFC 3464 section 2.2)."""
    envid = from_xtext(message.envid)
    return _fields(
        ("Original-Envelope-Id", envid),
        ("Reporting-MTA", f"dns; {hostname}"),
        ("Arrival-Date", date_time(message.arrived_at_utc)),
        ("X-Mailsrv-Queue-Id", message.id),
    )


def of_recipient(
    kind: Kind,
    fate: Fate,
    until_utc: float | None,
    *,
    is_utf8: bool,
) -> str:
    """Write the fields on a recipient (RFC 3464 section 2.3)."""
    answer = fate.answer
    address_type = "rfc822" if fate.address.isascii() else "utf-8"
    fields = [
        ("Original-Recipient", _orcpt(fate.orcpt, is_utf8=is_utf8)),
        ("Final-Recipient", f"{address_type}; {fate.address}"),
        ("Action", kind),
        ("Status", _status(kind, answer.enhanced_code if answer else "")),
    ]
    if answer is not None:
        host = _HOST.match(answer.peer)
        # RFC 3464 section 2.3.6: what no server has said has no type of its own.
        said_by = "smtp" if host else "x-mailsrv"
        fields += [
            ("Remote-MTA", f"dns; {host[0]}" if host else ""),
            ("Diagnostic-Code", f"{said_by}; {said(answer)}"),
            ("Last-Attempt-Date", date_time(answer.at_utc)),
        ]
    if until_utc is not None:
        fields.append(("Will-Retry-Until", date_time(until_utc)))
    group = _fields(*fields)
    # Only the address types and values of RFC 6533 make a report more than ASCII.
    return group if is_utf8 else group.encode("ascii", "backslashreplace").decode()


def _status(kind: Kind, code: str) -> str:
    """Return the peer's code, if it can stand for what has become of the message."""
    classes = _CLASSES.get(kind, "2")
    if re.fullmatch(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}", code) and code[0] in classes:
        return code
    return f"{classes[0]}.0.0"


def _orcpt(parameter: str, *, is_utf8: bool) -> str:
    """Write Original-Recipient out of the client's ORCPT; empty: it gave none."""
    address_type, _, encoded = parameter.partition(";")
    address = from_xtext(encoded)
    if not address or not _ADDRESS_TYPE.fullmatch(address_type):
        return ""
    if is_utf8 and address_type.lower() == "utf-8":
        address = _UNICODE.sub(_character, address)  # RFC 6533 section 3
    return f"{address_type}; {address}"


def _character(found: re.Match[str]) -> str:
    number = int(found[1], 16)
    character = chr(number) if number < 0x110000 else ""
    return character if character.isprintable() else found[0]


def from_xtext(parameter: str) -> str:
    """Decode a parameter (RFC 3461 section 4); what cannot stand in a field: empty."""
    decoded = _HEX.sub(lambda found: chr(int(found[1], 16)), parameter[:_MAX_WORD])
    return decoded if decoded.isprintable() else ""


def _fields(*fields: tuple[str, str]) -> str:
    """Write those that have a value."""
    return "".join(f"{name}: {_folded(value)}\n" for name, value in fields if value)


def _folded(value: str) -> str:
    lines = textwrap.wrap(
        value,
        _FOLD,
        break_on_hyphens=False,
        # A line may have 998 octets; an address has less, and stays whole.
        break_long_words=len(value.encode("utf-8", "replace")) > _MAX_LINE - 100,
    )
    return "\n ".join(lines)


def header_shown(header: bytes) -> bytes:
    """Return so much of a header block as goes back, in lines that mail may have."""
    shown, total = [], 0
    for line in header[:MAX_HEADER_OCTETS].split(b"\n"):
        shown.append(line.translate(None, b"\r\0")[:_MAX_LINE])
        total += len(line) + 1
    if len(header) > MAX_HEADER_OCTETS:
        shown.pop()  # it may be cut in the middle
    return b"\n".join(shown) + b"\n"


def part(content_type: str, content: bytes, description: str) -> bytes:
    """Write a part of the multipart; LF line ends."""
    # RFC 6522 and RFC 6533 let each of them be of 8 bits.
    encoding = b"" if content.isascii() else b"Content-Transfer-Encoding: 8bit\n"
    return b"Content-Type: %b\nContent-Description: %b\n%b\n%b" % (
        content_type.encode(),
        description.encode(),
        encoding,
        content,
    )


def multipart(fields: Sequence[str], parts: Sequence[bytes]) -> bytes:
    """Write the whole message (RFC 6522); CRLF line ends."""
    # Out of all that is in it: nobody can write a message that has it.
    digest = hashlib.sha256(b"".join(parts) + "".join(fields).encode()).hexdigest()
    boundary = f"report-{digest[:32]}"
    kind = f'multipart/report; report-type=delivery-status;\n boundary="{boundary}"'
    header = "\n".join([*fields, "MIME-Version: 1.0", f"Content-Type: {kind}"])
    pieces = [header.encode("utf-8", "replace"), b"\n"]
    for one in parts:
        pieces.append(f"\n--{boundary}\n".encode() + one)
    pieces.append(f"\n--{boundary}--\n".encode())
    return b"".join(pieces).replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
