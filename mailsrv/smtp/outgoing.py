"""The values of sending: a message's envelope, and what the client's engine reports."""

from dataclasses import dataclass, field

from mailsrv.smtp.reply import Reply


@dataclass(frozen=True, slots=True)
class Login:
    """With whose name to log in at a smarthost."""

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class OutgoingRecipient:
    """One RCPT; `notify` and `orcpt` as in RFC 3461 sections 4.1 and 4.2."""

    forward_path: str
    notify: str = ""
    orcpt: str = ""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """The envelope of a transaction."""

    reverse_path: str  # empty: a report
    recipients: tuple[OutgoingRecipient, ...]
    size_octets: int  # of the content as sent, without dot-stuffing
    eight_bit: bool
    smtputf8: bool  # the header or an address is not ASCII
    ret: str = ""  # RFC 3461 sections 4.3 and 4.4
    envid: str = ""
    require_tls: bool = False


# Events


@dataclass(frozen=True, slots=True)
class Send:
    """Write these octets."""

    octets: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class StartTls:
    """Shake hands now, then call `tls_on`."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A transaction may begin."""


@dataclass(frozen=True, slots=True)
class SendContent:
    """Hand the message to `content`, and call `content_end`."""


@dataclass(frozen=True, slots=True)
class Done:
    """What the peer said to each recipient, in their order."""

    replies: tuple[Reply, ...]
    # All of the message was sent and no answer came: the peer may have it
    # (RFC 5321 section 4.5.4.1 and RFC 1047).
    uncertain: bool = False
    # MAIL was taken. If not, another server may well take the message.
    begun: bool = True


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more can be sent over this connection."""

    reply: Reply  # why; 221 after QUIT


Event = Send | StartTls | Ready | SendContent | Done | Ended


class Lacking(Exception):
    """The peer does not offer what a message needs; nothing was sent of it."""

    def __init__(self, extension: str) -> None:
        super().__init__(extension)
        self.extension = extension
