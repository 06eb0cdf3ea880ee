"""The values that the store hands out, and what it raises. No files, no SQL.

The flags of a message are one int, a bit mask of its mailbox: bits 0 to 4 are the
system flags (RFC 3501 section 2.3.2, without \\Recent), bit 5 + k is the k-th
keyword of that mailbox. The mask of one mailbox means nothing in another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NewType

UID = NewType("UID", int)

ANSWERED = 1
FLAGGED = 2
DELETED = 4
SEEN = 8
DRAFT = 16
SYSTEM_FLAGS: Mapping[str, int] = {
    "\\Answered": ANSWERED,
    "\\Flagged": FLAGGED,
    "\\Deleted": DELETED,
    "\\Seen": SEEN,
    "\\Draft": DRAFT,
}
SYSTEM_MASK = 31
FIRST_KEYWORD_BIT = 5
LETTER_KEYWORDS = 26  # those that Maildir file names can hold, a to z
MAX_KEYWORDS = 58  # bit 62 is the highest: SQLite's integers are signed

MAX_UID = 2**32 - 2  # RFC 3501 section 9 nz-number; Dovecot keeps 2**32 - 1 free


@dataclass(frozen=True, slots=True)
class Target:
    """One copy of a message to be delivered: whose mailbox, and how it starts."""

    folder: str  # the account's directory; an absolute path: the queue's spool
    mailbox: str = "INBOX"
    delivered_to: bytes | None = None  # value of a Delivered-To field
    flags: int = 0  # system flags only
    keywords: tuple[str, ...] = ()  # set when the copy gets its UID
    internal_date: float | None = None  # seconds since 1970; None: now
    delivery_id: str | None = None  # queue id and recipient: finds a repeat

    @property
    def is_mailbox(self) -> bool:
        return not self.folder.startswith("/")


@dataclass(frozen=True, slots=True)
class Delivered:
    """A copy that is durable: what the index takes in without a scan."""

    target: Target
    base: bytes  # the file name without its flags: the message's name for ever
    name: bytes  # the file name as it was published
    in_new: bool  # in new/, else in cur/
    file_octets: int
    size_octets: int  # as served, with CRLF
    internal_date: int  # seconds since 1970: the file's mtime
    flags: int  # system flags only


Change = tuple[UID, int, int]
"""UID, flags, MODSEQ."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What one durable step did to a mailbox; applied to views in order."""

    mailbox: str
    uid_validity: int
    uid_next: int
    highest_mod_seq: int
    added: Sequence[Change] = ()
    flagged: Sequence[Change] = ()
    expunged: Sequence[UID] = ()
    keywords: Sequence[str] | None = None  # all of them, if the list changed
    rebuilt: bool = False  # history is lost: open the mailbox anew, compare by UID


@dataclass(frozen=True, slots=True)
class MailboxInfo:
    """One line of LIST."""

    name: str
    selectable: bool
    special_uses: tuple[str, ...]
    subscribed: bool
    has_children: bool
    mailbox_id: str


@dataclass(frozen=True, slots=True)
class MailboxStatus:
    """The answer to STATUS."""

    messages: int
    recent: int
    unseen: int
    deleted: int
    uid_next: int
    uid_validity: int
    highest_mod_seq: int
    size_octets: int
    deleted_octets: int  # of messages with \\Deleted
    mailbox_id: str


@dataclass(frozen=True, slots=True)
class MailboxState:
    """A mailbox as it is opened: three arrays of one length, by ascending UID."""

    name: str
    mailbox_id: str
    uid_validity: int
    uid_next: int
    highest_mod_seq: int
    recent_uid: int  # messages from this UID on are \\Recent
    keywords: Sequence[str]
    uids: Sequence[int] = field(repr=False)
    flags: Sequence[int] = field(repr=False)
    mod_seqs: Sequence[int] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Quota:
    """Usage of an account. `limit_octets` None: no limit."""

    limit_octets: int | None
    used_octets: int
    messages: int


@dataclass(frozen=True, slots=True)
class Stored:
    """What STORE did, and what it left alone (RFC 7162 section 3.1.3, MODIFIED)."""

    modified: Sequence[UID]
    changes: Changes


@dataclass(frozen=True, slots=True)
class Copied:
    """What COPY did (RFC 4315 section 3 COPYUID); both UID lists run in step."""

    uid_validity: int
    source_uids: Sequence[UID]
    target_uids: Sequence[UID]
    target: Changes


@dataclass(frozen=True, slots=True)
class Moved:
    """What MOVE did (RFC 6851)."""

    uid_validity: int
    source_uids: Sequence[UID]
    target_uids: Sequence[UID]
    source: Changes
    target: Changes


Row = Sequence[Any]
"""Columns of one message, in the order in which they were asked for.

Any: each is bytes, int or None, as the column is.
"""


@dataclass(frozen=True, slots=True)
class Criterion:
    """One of those that messages are sorted by: a name of `sorting.ORDERS`."""

    column: str
    descending: bool = False


class StoreError(Exception):
    """What the store refuses or cannot do; texts are fit for a client."""


class NoSuchMailbox(StoreError):
    """The mailbox does not exist."""


class MailboxExists(StoreError):
    """The mailbox exists already."""


class InvalidName(StoreError):
    """The name cannot be a mailbox's or a keyword's; the text says why."""


class MessageGone(StoreError):
    """The message's file is no longer there."""


class OverQuota(StoreError):
    """The account's quota would be passed."""


class TooManyKeywords(StoreError):
    """The mailbox has no room for another keyword."""


FailureKind = Literal["full", "readonly", "descriptors", "io"]


class DeliveryFailed(StoreError):
    """A passing failure of the machine: nothing was delivered, try again later."""

    def __init__(self, kind: FailureKind) -> None:
        super().__init__(kind)
        self.kind: FailureKind = kind


class PartlyDelivered(StoreError):
    """Some copies of a message are durable, the others failed for now."""

    def __init__(
        self, delivered: "list[Delivered]", failed: "dict[Target, StoreError]"
    ) -> None:
        super().__init__(len(delivered), len(failed))
        self.delivered = delivered
        self.failed = failed


class LockHeld(StoreError):
    """A living process holds a lock: run the job again in `retry_s` seconds."""

    def __init__(self, retry_s: float) -> None:
        super().__init__(retry_s)
        self.retry_s = retry_s
