"""A message's header block: where it ends, what is set above it and mended in it.

Trace fields are those of RFC 5321 section 4.4, mends those that RFC 6409 section 8
allows for mail from own users. Everything else stays as it came: one changed octet
would break its signatures. Pure; content has CR LF line ends here.
"""

import re
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from mailsrv.accounts.addresses import quote
from mailsrv.mime.address import addresses
from mailsrv.mime.header import unfold
from mailsrv.smtp.reply import Refused, Reply

MAX_HEADER_OCTETS = 256 * 1024
_MAX_FIRST_NAME = 998  # RFC 5322 section 2.1.1: a longer one is no field

_FIRST = re.compile(rb"[!-9;-~]++[ \t]*+:")
# The look-ahead halves the time that the pattern takes.
_FIELD = re.compile(
    rb"\n(?=[bdfmrs])(bcc|date|from|message-id|received|resent-bcc|return-path|sender)"
    rb"[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)",
    re.IGNORECASE,
)
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()

_TOO_BIG = Refused(Reply(552, "5.3.4", "Header too big"))
_NUL = Refused(Reply(554, "5.6.0", "NUL in the header"))


@dataclass(slots=True)
class HeaderReader:
    """Holds a message's octets until its header block is complete."""

    _held: bytearray = field(default_factory=bytearray)

    def feed(self, octets: bytes) -> tuple[bytes, bytes] | None:
        """Return header fields and the body's beginning; None: go on feeding.

        The fields come without the empty line that ends them. A message whose first
        line is no field has no header.
        """
        searched = max(0, len(self._held) - 3)
        self._held += octets
        held = self._held
        if held[:1] == b"\r":
            return (b"", bytes(held[2:])) if len(held) > 1 else None
        if _FIRST.match(held) is None:
            if b"\r" not in held and len(held) <= _MAX_FIRST_NAME:
                return None
            return b"", bytes(held)
        end = held.find(b"\r\n\r\n", searched)
        if end + 2 > MAX_HEADER_OCTETS or (end < 0 and len(held) > MAX_HEADER_OCTETS):
            raise _TOO_BIG
        if end < 0:
            return None
        return bytes(held[: end + 2]), bytes(held[end + 4 :])

    def finish(self) -> tuple[bytes, bytes]:
        """As `feed`, for a message that ended before its header block did."""
        held = bytes(self._held)
        if held and not held.endswith(b"\r\n"):
            held += b"\r\n"
        return (held, b"") if _FIRST.match(held) else (b"", held)


@dataclass(frozen=True, slots=True)
class HeaderField:
    """One field that counts here; the offsets take in its last CR LF."""

    name: bytes  # lower case
    start: int
    end: int
    raw: bytes  # the value, folds and all


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of a block that count in delivery."""

    octets: bytes
    fields: tuple[HeaderField, ...]

    @classmethod
    def of(cls, octets: bytes) -> "Header":
        """Look through a block. Raises `Refused` for one that holds NUL."""
        if b"\0" in octets:  # readers in C would see another header than we
            raise _NUL
        return cls(
            octets,
            tuple(
                HeaderField(m[1].lower(), m.start(), m.end(), m[2])
                for m in _FIELD.finditer(b"\n" + octets)
            ),
        )

    def count(self, name: bytes) -> int:
        """Return how many fields of this name there are."""
        return sum(f.name == name for f in self.fields)

    def value(self, name: bytes) -> str:
        """Return the value of the first field so named, or nothing."""
        for found in self.fields:
            if found.name == name:
                return unfold(found.raw).decode("utf-8", "replace")
        return ""

    def without(self, names: Collection[bytes]) -> bytes:
        """Return the block without the fields so named."""
        pieces, at = [], 0
        for found in self.fields:
            if found.name in names:
                pieces.append(self.octets[at : found.start])
                at = found.end
        return b"".join([*pieces, self.octets[at:]]) if pieces else self.octets

    def senders(self) -> list[str]:
        """Return the addresses of From and Sender.

        Raises `Refused` if it is not plain who is meant: readers would show one
        address where another was checked.
        """
        if self.count(b"from") > 1 or self.count(b"sender") > 1:
            raise Refused(Reply(554, "5.6.0", "More than one From or Sender field"))
        found = [
            _address(member.mailbox or b"", member.host)
            for f in self.fields
            if f.name in (b"from", b"sender")
            for member in addresses(unfold(f.raw))
            if member.host is not None
        ]
        if self.count(b"from") and not found:
            raise Refused(Reply(554, "5.6.0", "No address in From"))
        return found


def _address(local: bytes, host: bytes) -> str:
    return (
        f"{quote(local.decode('utf-8', 'replace'))}@{host.decode('utf-8', 'replace')}"
    )


def date_time(at_utc: float) -> str:
    """Write a time as RFC 5322 section 3.3 does, in the local zone."""
    there = time.localtime(at_utc)
    offset = there.tm_gmtoff // 60
    sign = "-" if offset < 0 else "+"
    hours, minutes = divmod(abs(offset), 60)
    return (
        f"{_DAYS[there.tm_wday]}, {there.tm_mday} {_MONTHS[there.tm_mon - 1]}"
        f" {there.tm_year} {there.tm_hour:02}:{there.tm_min:02}:{there.tm_sec:02}"
        f" {sign}{hours:02}{minutes:02}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What a Received field tells of one transaction."""

    client_name: str  # as EHLO gave it; empty: none
    peer: str  # the client's IP address; empty: a UNIX socket
    hostname: str
    protocol: str
    tls: str  # version and cipher; empty: clear text
    transaction: str
    forward_path: str  # empty if there are several: they are not told of each other
    date: str


def protocol(*, extended: bool, utf8: bool, tls: bool, authenticated: bool) -> str:
    """Return the name after "with" (RFC 3848; RFC 6531 section 4.3)."""
    if not extended:
        return "SMTP"
    base = "UTF8SMTP" if utf8 else "ESMTP"
    return f"{base}{'S' if tls else ''}{'A' if authenticated else ''}"


def received(trace: Trace) -> bytes:
    """Write the Received field (RFC 5321 section 4.4)."""
    peer = f"IPv6:{trace.peer}" if ":" in trace.peer else trace.peer
    lines = [
        f"Received: from {trace.client_name or 'unknown'}"
        + (f" ([{peer}])" if peer else ""),
        f"by {trace.hostname} with {trace.protocol}"
        + (f" ({trace.tls})" if trace.tls else ""),
        f"id {trace.transaction}",
    ]
    if trace.forward_path:
        lines.append(f"for <{trace.forward_path}>")
    text = "\r\n\t".join(lines)
    return f"{text};\r\n\t{trace.date}\r\n".encode()
