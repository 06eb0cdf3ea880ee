"""The values of the queue: a message, its recipients, and what became of them."""

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

LOCAL = "local"  # the destination of what goes into mailboxes here
LIST = "list"  # of what goes to a list's members
ALIAS = "alias"  # of one of several members, who have rows of their own


class Priority(IntEnum):
    """Whose turn comes first: a newsletter never delays a letter."""

    REPORT = 0
    LETTER = 1
    BULK = 2


class State(StrEnum):
    """What is to be done for a recipient."""

    WAITING = "waiting"  # for its next attempt, or in one
    HELD = "held"  # until an admin releases it
    DELIVERED = "delivered"
    FAILED = "failed"  # for good; the sender is told
    DROPPED = "dropped"  # by an admin; nobody is told


@dataclass(frozen=True, slots=True)
class Answer:
    """What the last attempt came to."""

    code: int  # as a reply of SMTP has it, ours if the peer gave none
    enhanced_code: str  # RFC 3463
    text: str
    at_utc: float
    peer: str = ""  # host name and address of who said it; empty: nobody did
    tls: str = ""  # version, cipher, and how the peer was known
    # The other server takes no DSN parameters: with it the trail ends (RFC 3461
    # section 6.2.3, "relayed").
    relayed: bool = False

    @property
    def positive(self) -> bool:
        return self.code < 400

    @property
    def permanent(self) -> bool:
        return self.code >= 500


@dataclass(frozen=True, slots=True)
class Message:
    """A message in the queue. Its content is a file of the spool."""

    id: str  # the same as in the log since it came in
    file: str  # its name in the spool
    reverse_path: str  # empty: a report
    account: str | None  # who has sent it; None: another server, or the queue
    arrived_at_utc: float
    priority: Priority
    size_octets: int  # as sent, with CRLF, without `prefix` and Return-Path
    skip_octets: int = 0  # of the file: the Return-Path, which is not sent on
    prefix: bytes = field(default=b"", repr=False)  # header fields put on top
    eight_bit: bool = False
    smtputf8: bool = False  # the header or the reverse-path is not ASCII
    require_tls: bool = False  # RFC 8689
    tls_optional: bool = False  # see `tls_required`
    ret: str = ""  # RFC 3461 sections 4.3 and 4.4
    envid: str = ""
    once: str = ""  # a message with this word is taken one time


@dataclass(frozen=True, slots=True)
class Recipient:
    """One recipient of a message, with a fate of its own."""

    message: str  # its id
    forward_path: str
    destination: str  # where it goes: a domain, LOCAL or LIST
    next_at_utc: float | None  # the next attempt; None: there will be none
    state: State = State.WAITING
    notify: str = ""  # RFC 3461 sections 4.1 and 4.2
    orcpt: str = ""
    original: str = ""  # the forward-path as the sender named it, if another
    reverse_path: str | None = None  # its own, instead of the message's (VERP)
    prefix: bytes = field(default=b"", repr=False)  # header fields of its own
    attempts: int = 0
    warned: bool = False  # the sender knows of the delay
    answer: Answer | None = None
    id: int = 0  # 0: not in the queue yet

    @property
    def goes_alone(self) -> bool:
        """Whether what is sent differs from what others get."""
        return self.reverse_path is not None or bool(self.prefix)


@dataclass(frozen=True, slots=True)
class Result:
    """What an attempt, or an admin, has made of a recipient."""

    recipient: Recipient  # as it was
    state: State
    next_at_utc: float | None  # not None if and only if it is waiting
    answer: Answer | None  # None: as before
    warned: bool = False
    attempted: bool = True


Entry = tuple[Message, "tuple[Recipient, ...]"]
"""A message with some of its recipients."""


@dataclass(frozen=True, slots=True, order=True)
class Lane:
    """Recipients who wait for the same thing: of one sender, to one destination."""

    priority: Priority
    destination: str
    sender: str  # the message's reverse-path
