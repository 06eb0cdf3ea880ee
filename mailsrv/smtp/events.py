"""What the SMTP engine reports: the commands, and the pieces of a message.

A command holds the engine until its reply is sent. Addresses are text as in the
command, local@domain, with a quoted local part only where it needs its quotes.
"""

from dataclasses import dataclass, field

from mailsrv.smtp.reply import Reply


@dataclass(frozen=True, slots=True)
class Hello:
    """EHLO, or HELO if not `extended`. The client's name is not verified."""

    client_name: str
    extended: bool


@dataclass(frozen=True, slots=True)
class Mail:
    """MAIL FROM; the reverse path is empty for a report (``<>``)."""

    reverse_path: str
    size_octets: int  # as declared, 0 without SIZE
    smtputf8: bool
    ret: str = ""  # RFC 3461 section 4.3: FULL, HDRS, or nothing
    envid: str = ""  # section 4.4, as it came: xtext
    require_tls: bool = False  # RFC 8689


@dataclass(frozen=True, slots=True)
class Rcpt:
    """RCPT TO; the forward path lacks a domain only for ``<Postmaster>``."""

    forward_path: str
    # RFC 3461 section 4.1: NEVER, or some of SUCCESS,FAILURE,DELAY; empty: not said.
    notify: str = ""
    orcpt: str = ""  # section 4.2, as it came: type;xtext


@dataclass(frozen=True, slots=True)
class Data:
    """DATA: 354 lets the message come, any other reply does not."""


@dataclass(frozen=True, slots=True)
class Content:
    """Some octets of the message, free of dot-stuffing. Needs no reply."""

    octets: bytes


@dataclass(frozen=True, slots=True)
class ChunkEnd:
    """The end of a BDAT that is not the last one."""

    refusal: Reply | None  # why the message cannot be taken


@dataclass(frozen=True, slots=True)
class ContentEnd:
    """The end of the message, by DATA or BDAT LAST."""

    size_octets: int
    refusal: Reply | None


@dataclass(frozen=True, slots=True)
class StartTls:
    """STARTTLS: after a 220 the TLS handshake begins."""


@dataclass(frozen=True, slots=True)
class Auth:
    """AUTH: 334 asks for an AuthResponse, 235 is success."""

    mechanism: str
    # Decoded; None without an initial response.
    initial: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class AuthResponse:
    """The decoded answer to a 334."""

    octets: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reset:
    """RSET."""


@dataclass(frozen=True, slots=True)
class Quit:
    """QUIT: the reply is the last one."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A command that needs no decision: send `reply`."""

    reply: Reply


@dataclass(frozen=True, slots=True)
class Close:
    """What came is not SMTP: close without a word."""

    reason: str


Event = (
    Hello
    | Mail
    | Rcpt
    | Data
    | Content
    | ChunkEnd
    | ContentEnd
    | StartTls
    | Auth
    | AuthResponse
    | Reset
    | Quit
    | Settled
    | Close
)
