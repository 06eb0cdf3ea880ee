"""What plugins are asked about and told of, and the verdicts that policies answer.

Values only. A verdict with a text or a field that would break the protocol cannot be
made: the `ValueError` is that of the plugin, and defers the message.
"""

import re
from dataclasses import dataclass, field

MAX_TEXT = 400  # RFC 5321 section 4.5.3.1.5: 512 octets for a reply line
MAX_FIELD = 998  # RFC 5322 section 2.1.1: octets of a line
MAX_EDIT = 64 * 1024  # octets added by one edit; a header is read up to 256 KiB

_TEXT = re.compile(r"[ -~]+")
_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322 section 3.6.8


@dataclass(frozen=True, slots=True)
class Connection:
    """A client that has connected to a service."""

    service: str  # as in [[listen]]
    peer: str  # IP address; empty: a UNIX socket


@dataclass(frozen=True, slots=True)
class Sender:
    """A MAIL command, and who gave it."""

    service: str  # "mx", "submission" or "lmtp"
    peer: str
    client_name: str  # as EHLO, HELO or LHLO gave it; nobody has checked it
    tls: bool
    account: str | None  # the address of who has logged in
    reverse_path: str  # empty: a bounce
    size_octets: int  # as announced; 0: unknown
    app_password: str = ""  # the label of that by which it has logged in


@dataclass(frozen=True, slots=True)
class Recipient:
    """A RCPT command whose address is known here."""

    sender: Sender
    forward_path: str
    accounts: tuple[str, ...]  # who will get the message here; others: elsewhere


@dataclass(frozen=True, slots=True)
class Change:
    """What one durable step did to a mailbox; the messages are named by UID."""

    account: str
    mailbox: str
    added: tuple[int, ...]
    flagged: tuple[int, ...]  # their flags are others now
    expunged: tuple[int, ...]
    rebuilt: bool = False  # it is seen for the first time, or anew: all may be other


@dataclass(frozen=True, slots=True)
class TokenRefused:
    """A bearer token that is not good, and what helps to get another one.

    `scope` and `openid_configuration` (a URL) are told to the client (RFC 7628
    section 3.2.2); empty ones are left out.
    """

    scope: str = ""
    openid_configuration: str = ""


@dataclass(frozen=True, slots=True)
class Accept:
    """Nothing against it: the next policy is asked."""


@dataclass(frozen=True, slots=True)
class Reject:
    """Never: the client is told 5yz and `text`, and tells the sender."""

    text: str
    code: int = 550
    enhanced_code: str = "5.7.1"  # RFC 3463

    def __post_init__(self) -> None:
        _check(self.text, self.code, self.enhanced_code, "5")


@dataclass(frozen=True, slots=True)
class Defer:
    """Not now: the client is told 4yz and `text`, and tries again."""

    text: str
    code: int = 451
    enhanced_code: str = "4.7.1"

    def __post_init__(self) -> None:
        _check(self.text, self.code, self.enhanced_code, "4")


@dataclass(frozen=True, slots=True)
class Edit:
    """Accept, with other header fields.

    All fields of a name in `remove` go; those of `add` are set above the others,
    below Return-Path alone. The trace fields of this server stay.
    """

    add: tuple[tuple[str, str], ...] = ()  # name, value: one line of ASCII each
    remove: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in (*self.remove, *(name for name, _ in self.add)):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} is no name of a header field")
        for name, value in self.add:
            if not _TEXT.fullmatch(value) or len(name) + len(value) + 2 > MAX_FIELD:
                raise ValueError(f"the value of {name} is no line of ASCII text")
        octets = sum(len(name) + len(value) + 4 for name, value in self.add)
        if octets > MAX_EDIT:
            raise ValueError(f"{octets} octets of header fields, more than {MAX_EDIT}")


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Accept, but into the Junk mailboxes of the recipients."""

    reason: str  # for the log
    edit: Edit = field(default_factory=Edit)


Decision = Accept | Reject | Defer
"""What connection, sender and recipient policies answer."""

Verdict = Decision | Edit | Quarantine
"""What message policies answer."""

ACCEPT = Accept()


def _check(text: str, code: int, enhanced_code: str, kind: str) -> None:
    if not _TEXT.fullmatch(text) or len(text) > MAX_TEXT:
        raise ValueError(f"{text!r} is no line of ASCII text")
    if str(code)[:1] != kind or not 400 <= code <= 599:
        raise ValueError(f"{code} is no {kind}yz code")
    if not re.fullmatch(rf"{kind}\.\d{{1,3}}\.\d{{1,3}}", enhanced_code):
        raise ValueError(f"{enhanced_code!r} is no {kind}.y.z code")
