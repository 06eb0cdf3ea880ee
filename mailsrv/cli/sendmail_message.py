"""A message as a program gives it to sendmail: its header made ready to send. Pure.

Names without a domain become names at ``localhost``, which the server replaces by
the domain of this machine's mail.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mailsrv.mime.address import Address, addresses
from mailsrv.mime.header import unfold

HERE = "localhost"
MAX_HEADER_OCTETS = 256 * 1024

_FIELD = re.compile(rb"([!-9;-~]++)[ \t]*+:((?:[^\n]*+\n?)(?:[ \t][^\n]*+\n?)*+)")
_FROM_LINE = re.compile(rb">?From [^\n]*\n")
_QUALIFIED = frozenset(
    name.encode()
    for name in "from sender reply-to to cc bcc resent-from resent-to resent-cc"
    " resent-bcc".split()
)
_RECIPIENTS = frozenset({b"to", b"cc", b"bcc"})
_ATOMS = re.compile(rb"[^\x00-\x1f()<>@,;:\\\".\[\]\x7f]*")


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a message, and whom it names."""

    octets: bytes  # the block with LF line ends and its empty line
    recipients: tuple[str, ...]  # of To, Cc and Bcc
    body: bytes  # what came behind it so far


def read(start: bytes, *, full_name: str = "", user: str = "") -> Head:
    """Read the first octets of a message, which hold all of its header block.

    `start` has LF line ends. Text without a header gets one.
    """
    if found := _FROM_LINE.match(start):  # of an mbox
        start = start[found.end() :]
    fields: list[tuple[bytes, bytes]] = []
    place = 0
    while found := _FIELD.match(start, place):
        fields.append((found[1], found[2]))
        place = found.end()
    body = start[place:]
    body = body[1:] if body.startswith(b"\n") else body
    names = {name.lower() for name, _ in fields}
    if user and b"from" not in names:
        author = Address(full_name.encode() or None, None, user.encode(), b"")
        fields.append((b"From", b" " + _written(author) + b"\n"))
    block = b"".join(name + b":" + _value(name, value) for name, value in fields)
    return Head(block + b"\n", tuple(_recipients(fields)), body)


def qualified(address: str) -> str:
    """Return an address of the command line with a domain."""
    address = address.strip().removeprefix("<").removesuffix(">")
    return address if "@" in address or not address else f"{address}@{HERE}"


def _recipients(fields: Iterable[tuple[bytes, bytes]]) -> Iterator[str]:
    for name, value in fields:
        if name.lower() in _RECIPIENTS:
            for member in addresses(unfold(value)):
                if member.host is not None and member.mailbox:
                    yield _address(member).decode("utf-8", "surrogateescape")


def _value(name: bytes, value: bytes) -> bytes:
    """Return a field's value, anew only if a domain is missing in it."""
    if not value.endswith(b"\n"):
        value += b"\n"
    if name.lower() not in _QUALIFIED:
        return value
    members = addresses(unfold(value))
    if not any(member.host == b"" and member.mailbox for member in members):
        return value
    people = [member for member in members if member.host is not None]
    return b" " + b",\n ".join(map(_written, people)) + b"\n"


def _address(member: Address) -> bytes:
    return b"%b@%b" % (member.mailbox or b"", member.host or HERE.encode())


def _written(member: Address) -> bytes:
    if not member.name:
        return _address(member)
    name = member.name.replace(b"\n", b" ").replace(b"\r", b" ")
    if b"=?" not in name and not _ATOMS.fullmatch(name):
        name = b'"%b"' % re.sub(rb'(["\\])', rb"\\\1", name)
    return b"%b <%b>" % (name, _address(member))
