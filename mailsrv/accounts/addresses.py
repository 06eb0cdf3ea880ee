"""Addresses: their grammar and the one form in which they are compared.

RFC 5321 section 4.1.2 with RFC 6531 section 3.3 (UTF-8 local parts) and IDNA2008
(RFC 5890). A domain is kept as its A-label in lower case, so that both spellings of
an internationalised domain are the same. Local parts compare without case: RFC 5321
section 2.4 leaves that to the host that owns them. Knows nothing of accounts.
"""

import ipaddress
import re
import unicodedata
from dataclasses import dataclass

import idna

# idna loads its tables and its codec at first use: not on the reactor thread, please,
# nor when root is dropped and Python's folders may be closed to the mail's user.
idna.encode("ä.example", uts46=True)

MAX_LOCAL_OCTETS = 64  # RFC 5321 section 4.5.3.1.1
MAX_DOMAIN_OCTETS = 255  # RFC 5321 section 4.5.3.1.2
MAX_LABEL_OCTETS = 63  # RFC 1035 section 2.3.4

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u0080-\U0010ffff]+"
_DOT_STRING = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
# Looser than RFC 5321 section 4.1.2: host names with "_" do send mail.
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")


class InvalidAddress(ValueError):
    """The text is no address; the message says why, in words for people."""


@dataclass(frozen=True, slots=True)
class Address:
    """`local` is unquoted and as written, `domain` is in its canonical form."""

    local: str
    domain: str

    def __str__(self) -> str:
        return f"{quote(self.local)}@{self.domain}"

    @property
    def canonical(self) -> str:
        """The text under which the address is stored and compared."""
        return f"{quote(fold(self.local))}@{self.domain}"


def parse(text: str) -> Address:
    """Read an address without angle brackets. Raises `InvalidAddress`."""
    if len(text) > MAX_LOCAL_OCTETS * 2 + MAX_DOMAIN_OCTETS:
        raise InvalidAddress("the address is too long")
    local, at, domain = text.rpartition("@")
    if not at:
        raise InvalidAddress(f"{text!r} has no @")
    return Address(_parse_local(local), canonical_domain(domain))


def _parse_local(text: str) -> str:
    text = unicodedata.normalize("NFC", text)  # RFC 6532 section 3.1
    if quoted := _QUOTED.fullmatch(text):
        local = _QUOTED_PAIR.sub(r"\1", quoted[1])
    elif _DOT_STRING.fullmatch(text):
        local = text
    else:
        raise InvalidAddress(f"{text!r} cannot stand before the @")
    if not local or any(unicodedata.category(c) in ("Cc", "Cs") for c in local):
        raise InvalidAddress("an empty part or a control character before the @")
    if len(local.encode()) > MAX_LOCAL_OCTETS:
        raise InvalidAddress(f"more than {MAX_LOCAL_OCTETS} octets before the @")
    return local


def canonical_domain(text: str) -> str:
    """The A-label form, in lower case, of a domain or of an address literal."""
    if text.startswith("["):
        return _literal(text)
    if len(text) > MAX_DOMAIN_OCTETS:  # bounds the work of idna
        raise InvalidAddress("the domain is too long")
    domain = text.lower()
    if not domain.isascii():
        try:
            domain = idna.encode(text, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise InvalidAddress(f"{text!r} is no domain name") from error
    if len(domain) > MAX_DOMAIN_OCTETS:
        raise InvalidAddress("the domain is too long")
    for label in domain.split("."):
        if len(label) > MAX_LABEL_OCTETS or not _LABEL.fullmatch(label):
            raise InvalidAddress(f"{text!r} is no domain name")
    return domain


def _literal(text: str) -> str:
    """RFC 5321 section 4.1.3."""
    inner = text[1:-1] if text.endswith("]") else ""
    try:
        if inner[:5].upper() == "IPV6:":
            return f"[IPv6:{ipaddress.IPv6Address(inner[5:])}]"
        return f"[{ipaddress.IPv4Address(inner)}]"
    except ValueError as error:
        raise InvalidAddress(f"{text!r} is no address literal") from error


def fold(local: str) -> str:
    """Make local parts comparable: Unicode's canonical caseless matching."""
    if local.isascii():
        return local.lower()
    folded = unicodedata.normalize("NFD", local).casefold()
    return unicodedata.normalize("NFC", folded)


def quote(local: str) -> str:
    """Write a local part as a Dot-string, or as a Quoted-string if it must be."""
    if _DOT_STRING.fullmatch(local):
        return local
    escaped = local.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def shown(address: str) -> str:
    """The form for people: U-labels instead of A-labels. Also takes a bare domain."""
    local, at, domain = address.rpartition("@")
    try:
        return f"{local}{at}{idna.decode(domain)}"
    except (idna.IDNAError, UnicodeError):
        return address  # an address literal, or a label that is no IDNA2008
