"""A message's header block: where it ends, what is set above it and mended in it.

Trace fields are those of RFC 5321 section 4.4, mends those that RFC 6409 section 8
allows for mail from own users. Everything else stays as it came: one changed octet
would break its signatures. Pure; content has CR LF line ends here.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from mailsrv.accounts.addresses import quote
from mailsrv.doors.values import Edit
from mailsrv.mime.address import addresses
from mailsrv.mime.header import unfold
from mailsrv.smtp.reply import Refused, Reply

MAX_HEADER_OCTETS = 256 * 1024
_MAX_FIRST_NAME = 998  # RFC 5322 section 2.1.1: a longer one is no field

_FIRST = re.compile(rb"[!-9;-~]++[ \t]*+:")
# The look-ahead halves the time that the pattern takes.
_FIELD = re.compile(
    rb"\n(?=[bdflmprs])(bcc|date|from|list-unsubscribe|message-id|precedence|received"
    rb"|resent-bcc|return-path|sender)[ \t]*+:([^\n]*+(?:\n[ \t][^\n]*+)*+)",
    re.IGNORECASE,
)

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


class Header:
    """A block's fields that count in delivery."""

    def __init__(self, octets: bytes) -> None:
        """Look through a block. Raises `Refused` for one that holds NUL."""
        if b"\0" in octets:  # readers in C would see another header than we
            raise _NUL
        self._octets = octets
        # By lower-case name. The matches stand one octet later than the fields.
        self._fields: dict[bytes, list[re.Match[bytes]]] = {}
        for found in _FIELD.finditer(b"\n" + octets):
            self._fields.setdefault(found[1].lower(), []).append(found)

    def count(self, name: bytes) -> int:
        """Return how many fields of this name there are."""
        return len(self._fields.get(name, ()))

    def value(self, name: bytes) -> str:
        """Return the value of the first field so named, or nothing."""
        found = self._fields.get(name)
        return unfold(found[0][2]).decode("utf-8", "replace") if found else ""

    def without(self, *names: bytes) -> bytes:
        """Return the block without the fields so named."""
        unwanted = [m.span() for name in names for m in self._fields.get(name, ())]
        pieces, at = [], 0
        for start, end in sorted(unwanted):
            pieces.append(self._octets[at:start])
            at = end
        return b"".join([*pieces, self._octets[at:]]) if pieces else self._octets

    def senders(self) -> list[str]:
        """Return the addresses of From and Sender.

        Raises `Refused` if it is not plain who is meant: readers would show one
        address where another was checked.
        """
        if self.count(b"from") > 1 or self.count(b"sender") > 1:
            raise Refused(Reply(554, "5.6.0", "More than one From or Sender field"))
        found = [
            _address(member.mailbox or b"", member.host)
            for name in (b"from", b"sender")
            for one in self._fields.get(name, ())
            for member in addresses(unfold(one[2]))
            if member.host is not None
        ]
        if self.count(b"from") and not found:
            raise Refused(Reply(554, "5.6.0", "No address in From"))
        return found


@dataclass(slots=True)
class Block:
    """A header block as it will stand in the file, and what policies change in it."""

    return_path: bytes = b""
    trace: bytes = b""  # our Received
    fields: bytes = b""  # what came, mended

    @property
    def octets(self) -> bytes:
        """The block with the empty line at its end."""
        return b"".join((self.return_path, self.trace, self.fields, b"\r\n"))

    def edit(self, edits: Iterable[Edit]) -> None:
        """Take away fields that came, and add others above ours."""
        edits = list(edits)
        if unwanted := [name for edit in edits for name in edit.remove]:
            self.fields = _without(self.fields, unwanted)
        added = "".join(f"{k}: {v}\r\n" for edit in edits for k, v in edit.add)
        self.trace = added.encode() + self.trace


_ADDRESSES = re.compile(
    rb"^(?:from|sender|reply-to|to|cc|resent-[a-z-]+)[ \t]*+:"
    rb"[^\n]*+\n(?:[ \t][^\n]*+\n)*+",
    re.IGNORECASE | re.MULTILINE,
)
_HERE = re.compile(rb"@localhost(?![\w.-])", re.IGNORECASE)


def at_domain(fields: bytes, domain: str) -> bytes:
    """Return a block with `domain` for ``localhost`` in its addresses."""
    here = b"@" + domain.encode()
    return _ADDRESSES.sub(lambda found: _HERE.sub(here, found[0]), fields)


def _without(fields: bytes, names: Iterable[str]) -> bytes:
    either = b"|".join(re.escape(name.encode()) for name in names)
    return re.sub(
        rb"^(?:%b)[ \t]*+:[^\n]*+\n(?:[ \t][^\n]*+\n)*+" % either,
        b"",
        fields,
        flags=re.IGNORECASE | re.MULTILINE,
    )


def _address(local: bytes, host: bytes) -> str:
    return (
        f"{quote(local.decode('utf-8', 'replace'))}@{host.decode('utf-8', 'replace')}"
    )


def protocol(
    *, extended: bool, lmtp: bool, utf8: bool, tls: bool, authenticated: bool
) -> str:
    """Return the name after "with" (RFC 3848; RFC 6531 section 4.3)."""
    if not extended:
        return "SMTP"
    if lmtp:
        base = "UTF8LMTP" if utf8 else "LMTP"
    else:
        base = "UTF8SMTP" if utf8 else "ESMTP"
    return f"{base}{'S' if tls else ''}{'A' if authenticated else ''}"


def received(
    *,
    client_name: str,
    peer: str,
    hostname: str,
    protocol: str,
    tls: str,
    transaction: str,
    forward_path: str,
    date: str,
) -> bytes:
    """Write the Received field (RFC 5321 section 4.4).

    `client_name` is what EHLO gave, `peer` the client's IP address or empty, `tls`
    version and cipher or empty. `forward_path` is empty if there are several
    recipients: they are not told of one another.
    """
    literal = f"IPv6:{peer}" if ":" in peer else peer
    address = f" ([{literal}])" if peer else ""
    cipher = f" ({tls})" if tls else ""
    recipient = f"\r\n\tfor <{forward_path}>" if forward_path else ""
    return (
        f"Received: from {client_name or 'unknown'}{address}\r\n"
        f"\tby {hostname} with {protocol}{cipher}\r\n"
        f"\tid {transaction}{recipient};\r\n\t{date}\r\n"
    ).encode()
