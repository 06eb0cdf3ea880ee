"""Arguments of SMTP commands (RFC 5321 section 4.1.2), from octets to events.

Each function takes what follows the verb and its space, without CRLF, and raises
`Refused` with the reply. Every pattern takes linear time.
"""

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from mailsrv.accounts.sasl import (
    SaslCancelled,
    SaslError,
    SaslTooLong,
    decode_initial,
    decode_response,
)
from mailsrv.smtp.events import Auth, AuthResponse, Hello, Mail, Rcpt
from mailsrv.smtp.reply import Refused, Reply

# Looser than RFC 5321 section 4.5.3.1.1 (64): lists that put the recipient into
# the sender's local part (VERP) go beyond it. A domain has at most 255 octets.
MAX_LOCAL_PART = 256
MAX_DOMAIN = 255
MAX_CLIENT_NAME = 255
MAX_ENVID = 100  # RFC 3461 section 4.4
MAX_ORCPT = 500  # section 4.2

# atext and dots; any 8-bit octet, for RFC 6531. Looser than RFC 5321 section 4.1.2:
# some Japanese phone companies gave out local parts with two dots in a row.
_ATOMS = rb'[^\x00-\x20\x7f"(),:;<>@\[\\\]]++'
_QUOTED = rb'"(?:[^\x00-\x1f\x7f"\\]|\\[\x20-\x7e])*+"'
_DOMAIN = rb"[A-Za-z0-9_\x80-\xff-]++(?:\.[A-Za-z0-9_\x80-\xff-]++)*+"
_LITERAL = rb"\[[A-Za-z0-9:.-]++\]"
# RFC 5321 appendix C: a source route is accepted and ignored.
_ROUTE = rb"(?:@" + _DOMAIN + rb"(?:,@" + _DOMAIN + rb")*+:)?"
_ADDRESS = re.compile(
    _ROUTE
    + rb"(?P<local>%b|%b)@(?P<domain>%b|%b)" % (_ATOMS, _QUOTED, _DOMAIN, _LITERAL)
)
# The path may hold ">" only in a quoted local part.
_PATH = re.compile(rb'[ \t]*<((?:[^"<>]|%b)*+)>(?:[ \t]+(.*))?' % _QUOTED, re.DOTALL)
_PARAMETER = re.compile(rb"([A-Za-z0-9][A-Za-z0-9-]*+)(?:=([!-<>-~\x80-\xff]++))?")
# RFC 3461 section 4; any 8-bit octet, for RFC 6533 section 3 (utf-8-address).
_XTEXT = re.compile(r"(?:[!-*,-<>-~\x80-\U0010ffff]|\+[0-9A-F]{2})*+")
_ORCPT = re.compile(rf"[A-Za-z0-9-]{{1,40}};{_XTEXT.pattern}")
_NOTIFY = {b"SUCCESS", b"FAILURE", b"DELAY"}
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN_LOCAL = re.compile(r'[^\x00-\x20\x7f"(),:;<>@\[\\\]]+')
_UNPRINTABLE = re.compile(r"[^!-~]+")

_NO_PATH = Refused(Reply(501, "5.5.4", "Syntax: an address in < >"))
_BAD_ADDRESS = Reply(501, "5.1.3", "That is not an address")
_BAD_PARAMETER = Reply(501, "5.5.4", "Syntax error in a parameter")
_UNKNOWN_PARAMETER = Reply(555, "5.5.4", "Parameter not known or not offered")
_NEEDS_SMTPUTF8 = Reply(553, "5.6.7", "Such an address needs SMTPUTF8")
_BAD_RESPONSE = Reply(501, "5.5.2", "That is not base64, or too long")
_LONG_RESPONSE = Reply(500, "5.5.6", "Line too long")  # RFC 4954 section 6


def hello(argument: bytes, extended: bool) -> Hello:
    """Read EHLO and HELO.

    Looser than RFC 5321 section 4.1.1.1: Windows machines send names with spaces
    and underscores. What could not stand in a header field becomes "?".
    """
    name = argument.strip().decode("utf-8", "replace")[:MAX_CLIENT_NAME]
    if not name:
        raise Refused(Reply(501, "5.5.4", "Syntax: EHLO name"))
    return Hello(_UNPRINTABLE.sub("?", name), extended)


def mail(argument: bytes) -> Mail:
    """Read ``FROM:<reverse-path> [parameters]``."""
    path, parameters = _path(argument, b"FROM:")
    values = _parameters(parameters)
    size_octets = 0
    if (size := values.pop(b"SIZE", None)) is not None:
        if not size.isdigit() or len(size) > 20:  # RFC 1870 section 3: 20 digits
            raise Refused(_BAD_PARAMETER)
        size_octets = int(size)
    # RFC 6152 section 2. Eight bits are taken without it as well.
    if values.pop(b"BODY", b"7BIT").upper() not in (b"7BIT", b"8BITMIME"):
        raise Refused(_UNKNOWN_PARAMETER)
    smtputf8 = b"SMTPUTF8" in values
    if values.pop(b"SMTPUTF8", b""):
        raise Refused(_BAD_PARAMETER)
    ret = values.pop(b"RET", b"").upper().decode("ascii", "replace")
    if ret not in ("", "FULL", "HDRS"):
        raise Refused(_BAD_PARAMETER)
    envid = _text(values.pop(b"ENVID", b""), _XTEXT, MAX_ENVID)
    require_tls = b"REQUIRETLS" in values
    if values.pop(b"REQUIRETLS", b""):
        raise Refused(_BAD_PARAMETER)
    # RFC 4954 section 5: taken, and treated as AUTH=<>, since nobody is trusted
    # to speak for another.
    values.pop(b"AUTH", None)
    if values:
        raise Refused(_UNKNOWN_PARAMETER)
    reverse_path = _address(path) if path else ""
    if not smtputf8 and not reverse_path.isascii():
        raise Refused(_NEEDS_SMTPUTF8)
    return Mail(reverse_path, size_octets, smtputf8, ret, envid, require_tls)


def rcpt(argument: bytes) -> Rcpt:
    """Read ``TO:<forward-path> [parameters]``. Whether it is UTF-8 is in MAIL."""
    path, parameters = _path(argument, b"TO:")
    values = _parameters(parameters)
    notify = _notify(values.pop(b"NOTIFY", None))
    orcpt = ""
    if (original := values.pop(b"ORCPT", None)) is not None:
        orcpt = _text(original, _ORCPT, MAX_ORCPT)
    if values:
        raise Refused(_UNKNOWN_PARAMETER)
    if path.lower() == b"postmaster":  # RFC 5321 section 4.1.1.3
        return Rcpt("Postmaster", notify, orcpt)
    return Rcpt(_address(path), notify, orcpt)


def _notify(value: bytes | None) -> str:
    """Read NOTIFY (RFC 3461 section 4.1)."""
    if value is None:
        return ""
    words = value.upper().split(b",")
    if words != [b"NEVER"] and not _NOTIFY.issuperset(words):
        raise Refused(_BAD_PARAMETER)
    return b",".join(dict.fromkeys(words)).decode("ascii")


def _text(value: bytes, pattern: re.Pattern[str], limit: int) -> str:
    text = value.decode("utf-8", "replace")
    if len(text) > limit or not pattern.fullmatch(text) or _UNSAFE.search(text):
        raise Refused(_BAD_PARAMETER)
    return text


def auth(argument: bytes) -> Auth:
    """Read ``mechanism [initial-response]``.

    Looser than RFC 4954 section 4: Windows Mail sends two spaces after PLAIN.
    """
    mechanism, _, response = argument.strip().partition(b" ")
    if not mechanism:
        raise Refused(Reply(501, "5.5.4", "Syntax: AUTH mechanism"))
    name = mechanism.decode("ascii", "replace").upper()
    try:
        return Auth(name, decode_initial(response.strip() or None))
    except SaslTooLong as error:
        raise Refused(_LONG_RESPONSE) from error
    except SaslError as error:
        raise Refused(_BAD_RESPONSE) from error


def auth_response(line: bytes) -> AuthResponse:
    """Read the answer to a 334."""
    try:
        return AuthResponse(decode_response(line.strip()))
    except SaslCancelled as error:
        raise Refused(Reply(501, "5.7.0", "Log-in cancelled")) from error
    except SaslTooLong as error:
        raise Refused(_LONG_RESPONSE) from error
    except SaslError as error:
        raise Refused(_BAD_RESPONSE) from error


def bdat(argument: bytes) -> tuple[int, bool]:
    """Read ``chunk-size [LAST]`` (RFC 3030 section 2): size, and whether it is last.

    After a `Refused` nobody knows where the chunk ends: close the connection.
    """
    words = argument.upper().split()
    size_digits = words[0] if words else b""
    if (
        not size_digits.isdigit()
        or len(size_digits) > 20
        or words[1:] not in ([], [b"LAST"])
    ):
        raise Refused(Reply(501, "5.5.4", "Syntax: BDAT size [LAST]"))
    return int(size_digits), len(words) == 2


def _path(argument: bytes, keyword: bytes) -> tuple[bytes, bytes]:
    """Divide into what stands in < > and the parameters.

    Looser than RFC 5321 section 4.1.1.2: Outlook sends a space after the colon.
    """
    if argument[: len(keyword)].upper() != keyword:
        raise Refused(
            Reply(501, "5.5.4", f"Syntax: {keyword.decode()}<address> [parameters]")
        )
    found = _PATH.fullmatch(argument, len(keyword))
    if found is None:
        raise _NO_PATH
    return found[1], found[2] or b""


def _parameters(text: bytes) -> dict[bytes, bytes]:
    values: dict[bytes, bytes] = {}
    for word in text.split():
        found = _PARAMETER.fullmatch(word)
        if found is None or found[1].upper() in values:
            raise Refused(_BAD_PARAMETER)
        values[found[1].upper()] = found[2] or b""
    return values


def _address(path: bytes) -> str:
    """Read a mailbox, with its source route if it has one."""
    found = _ADDRESS.fullmatch(path)
    if found is None:
        raise Refused(_BAD_ADDRESS)
    local, domain = found["local"], found["domain"]
    if len(local) > MAX_LOCAL_PART or len(domain) > MAX_DOMAIN:
        raise Refused(_BAD_ADDRESS)
    try:
        address = f"{_unquoted(local.decode())}@{_domain(domain.decode())}"
    except ValueError as error:  # not UTF-8, or no such address literal
        raise Refused(_BAD_ADDRESS) from error
    if _UNSAFE.search(address):  # it will stand in header fields and the log
        raise Refused(_BAD_ADDRESS)
    return address


def _unquoted(local: str) -> str:
    """Take off quotes that are not needed (RFC 5321 section 4.1.2)."""
    if not local.startswith('"'):
        return local
    text = re.sub(r"\\(.)", r"\1", local[1:-1])
    if _PLAIN_LOCAL.fullmatch(text):
        return text
    escaped = re.sub(r'(["\\])', r"\\\1", text)
    return f'"{escaped}"'


def _domain(domain: str) -> str:
    """Check an address literal (RFC 5321 section 4.1.3); ValueError if it is none."""
    if domain.startswith("["):
        address = domain[1:-1]
        try:
            if address[:5].upper() == "IPV6:":
                IPv6Address(address[5:])
            else:
                IPv4Address(address)
        except AddressValueError as error:
            raise ValueError(domain) from error
    return domain
