"""What of a transaction goes on through the queue, instead of into mailboxes at once.

Addresses elsewhere, mailing lists, accounts whose copy failed for now, and those of
which the sender wants to hear that it has arrived. Makes the queue's rows; pure.
"""

from dataclasses import dataclass, field, replace

from mailsrv.accounts.directory import Account
from mailsrv.queue.addressing import domain_of
from mailsrv.queue.reports import DEFAULT_NOTIFY
from mailsrv.queue.tls_required import is_tls_optional
from mailsrv.queue.values import (
    ALIAS,
    LIST,
    LOCAL,
    Message,
    Priority,
    Recipient,
)
from mailsrv.routing.router import Local
from mailsrv.smtp.events import Mail, Rcpt
from mailsrv.smtp.header import Header
from mailsrv.store.values import Delivered

_BULK = ("bulk", "list", "junk")


@dataclass(slots=True)
class Onward:
    """The recipients of one message that the queue has to see to."""

    message: str  # its id
    at_utc: float
    _found: dict[tuple[str, str], Recipient] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self._found)

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        return tuple(self._found.values())

    def outside(self, rcpt: Rcpt, address: str) -> None:
        """Add an address that the sender has named."""
        self._add(rcpt, address, domain_of(address))

    def expanded(self, rcpt: Rcpt, address: str) -> Rcpt:
        """Note that an address of ours leads to several; return RCPT for these.

        RFC 3461 section 5.2.7.3 (b): their success is not reported, but that of this.
        """
        words = rcpt.notify.split(",")
        if "SUCCESS" not in words:
            return rcpt
        self._add(replace(rcpt, forward_path=address), address, ALIAS)
        words.remove("SUCCESS")
        return replace(rcpt, notify=",".join(words) or "NEVER")

    def forwarded(self, rcpt: Rcpt, local: Local, reverse_path: str | None) -> None:
        """Add what an address of ours leads to; `reverse_path`: for elsewhere."""
        for address in local.outside:
            self._add(rcpt, address, domain_of(address), reverse_path)
        for address in local.lists:
            self._add(rcpt, address, LIST)

    def account(self, rcpt: Rcpt, account: Account) -> None:
        """Add an account that does not get its copy at once."""
        self._add(rcpt, account.name, LOCAL)

    def _add(
        self,
        rcpt: Rcpt,
        address: str,
        destination: str,
        reverse_path: str | None = None,
    ) -> None:
        key = destination, address
        if (known := self._found.get(key)) is not None:  # by another way
            notify = _either(known.notify, rcpt.notify)
            self._found[key] = replace(known, notify=notify)
            return
        self._found[key] = Recipient(
            self.message,
            address,
            destination,
            self.at_utc,
            notify=rcpt.notify,
            orcpt=rcpt.orcpt,
            original=rcpt.forward_path if rcpt.forward_path != address else "",
            reverse_path=reverse_path,
        )


def _either(one: str, other: str) -> str:
    """Return NOTIFY of a copy for which there were two (RFC 3461 section 4.1)."""
    if one == other:
        return one
    words = {*_words(one), *_words(other)} - {"NEVER"}
    return ",".join(sorted(words, key="FAILURE,DELAY,SUCCESS".find)) or "NEVER"


def _words(notify: str) -> list[str]:
    return (notify or DEFAULT_NOTIFY).split(",")


def message(
    id: str,
    mail: Mail,
    account: str | None,
    header: bytes,
    copy: Delivered,
    file: str,
    *,
    at_utc: float,
    priority: Priority,
    eight_bit: bool,
) -> Message:
    """Return the queue's message for a file of the spool.

    `header` is the block as it was written with CRLF, Return-Path first; `copy` is
    one with that header.
    """
    return_path_octets = header.index(b"\r\n") + 2
    # What of the recipients' addresses needs it is seen when it goes to them.
    ascii_only = header.isascii() and mail.reverse_path.isascii()
    return Message(
        id,
        file,
        mail.reverse_path,
        account,
        at_utc,
        priority,
        copy.size_octets - return_path_octets,
        skip_octets=return_path_octets - 1,  # LF in the file
        eight_bit=eight_bit,
        smtputf8=mail.smtputf8 and not ascii_only,
        require_tls=mail.require_tls,
        # RFC 8689 section 3: the field says nothing beside REQUIRETLS.
        tls_optional=not mail.require_tls and is_tls_optional(header),
        ret=mail.ret,
        envid=mail.envid,
    )


def priority(reverse_path: str, header: Header) -> Priority:
    """Say whose turn a message has: what says that it is for many comes last."""
    if not reverse_path:
        return Priority.REPORT
    bulk = header.value(b"precedence").strip().lower() in _BULK
    if bulk or header.count(b"list-unsubscribe"):
        return Priority.BULK
    return Priority.LETTER
