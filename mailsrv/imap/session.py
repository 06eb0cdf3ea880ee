"""One IMAP session: its state, what it may use, and its news."""

import ipaddress
from collections.abc import Callable
from enum import Flag, auto
from typing import Any

from twisted.internet.interfaces import ISSLTransport
from twisted.logger import Logger

from mailsrv.accounts.directory import Account
from mailsrv.accounts.scram import ChannelBinding
from mailsrv.imap import format
from mailsrv.imap.connection import Connection, Services
from mailsrv.imap.errors import ProtocolViolation, Refused
from mailsrv.imap.extensions import IN_REV2, NEEDS
from mailsrv.mailboxes.account import AccountMailboxes
from mailsrv.mailboxes.selected import Selected
from mailsrv.mailboxes.sequence import (
    MAX_FLAGS,
    Exists,
    Expunge,
    Flags,
    Gone,
    Keywords,
    ModSeq,
    News,
    Recent,
)
from mailsrv.tls.binding import channel_binding

log = Logger()


class State(Flag):
    """RFC 3501 section 3."""

    NOT_AUTHENTICATED = auto()
    AUTHENTICATED = auto()
    SELECTED = auto()


class Session(Connection):
    """The conversation with one client, from greeting to end."""

    __slots__ = (
        "_mod_seq",
        "account",
        "after_reply",
        "busy",
        "client",
        "commands",
        "draining",
        "enabled",
        "mailboxes",
        "selected",
        "tag",
        "wake",
    )

    # Any: Twisted's transports have more than one interface declares.
    def __init__(
        self, *, transport: Any, services: Services, peer: str, session_id: str
    ) -> None:
        super().__init__(
            transport=transport, services=services, peer=peer, session_id=session_id
        )
        self.account: Account | None = None
        self.mailboxes: AccountMailboxes | None = None
        self.selected: Selected | None = None
        self.after_reply: Callable[[], None] | None = None  # once, after tagged OK
        self.wake: Callable[[], None] | None = None  # set in IDLE
        self.enabled: set[bytes] = set()  # upper case, by ENABLE or otherwise
        self.client = ""  # what ID told
        self.busy = False  # a command runs
        self.tag = b""  # of the command that runs
        self.draining = False  # BYE as soon as no command runs
        self.commands = 0
        self._mod_seq = 0  # the HIGHESTMODSEQ that the client was told last

    # State

    @property
    def state(self) -> State:
        if self.account is None:
            return State.NOT_AUTHENTICATED
        return State.AUTHENTICATED if self.selected is None else State.SELECTED

    @property
    def user(self) -> str:
        """The account's name for the log, "-" before login."""
        return self.account.name if self.account is not None else "-"

    @property
    def tls_active(self) -> bool:
        return ISSLTransport.providedBy(self.transport)

    @property
    def binding(self) -> ChannelBinding | None:
        """The channel bindings of the connection, if it has any."""
        return channel_binding(self.transport)

    @property
    def may_send_password(self) -> bool:
        """Whether a password may come over this connection (RFC 3501 6.2.3)."""
        if self.tls_active:
            return True
        if not self.services.tls_settings.clear_text_passwords_on_loopback:
            return False
        return bool(self.peer) and ipaddress.ip_address(self.peer).is_loopback

    def offers(self, extension: bytes) -> bool:
        """Whether a word of `extensions.WORDS` is not switched off here."""
        if extension in NEEDS and not self.offers(NEEDS[extension]):
            return False
        word = extension.decode("ascii")
        if self.account is not None and word in self.account.disabled_extensions:
            return False
        return word not in self.settings.disabled_extensions

    def has(self, extension: bytes) -> bool:
        """Whether the client may use an extension: it is offered, or in IMAP4rev2."""
        return (self.is_rev2 and extension in IN_REV2) or self.offers(extension)

    @property
    def is_rev2(self) -> bool:
        """Whether the client speaks IMAP4rev2 (RFC 9051)."""
        return b"IMAP4REV2" in self.enabled

    @property
    def utf8(self) -> bool:
        """Whether names of mailboxes go in UTF-8 (RFC 9755, RFC 9051)."""
        return self.is_rev2 or b"UTF8=ACCEPT" in self.enabled

    @property
    def account_mailboxes(self) -> AccountMailboxes:
        """The account's mailboxes, in a command that needs a login."""
        if self.mailboxes is None:
            raise ProtocolViolation("Log in first")
        return self.mailboxes

    @property
    def mailbox(self) -> Selected:
        """The selected mailbox, in a command that needs one."""
        if self.selected is None:
            raise ProtocolViolation("Select a mailbox first")
        return self.selected

    @property
    def writable_mailbox(self) -> Selected:
        """The selected mailbox, in a command that changes it."""
        if self.mailbox.read_only:
            raise Refused("The mailbox is open read-only", b"CANNOT")
        return self.mailbox

    def logged_in(self, account: Account) -> None:
        self.account = account
        self.mailboxes = self.services.mail_store.account(account)
        self.engine.authenticated = True

    def unselect(self) -> None:
        """Leave the selected mailbox, if any; nothing is expunged."""
        if self.selected is not None:
            self.selected.leave()
            self.selected = None

    # News

    def resume(self) -> None:
        super().resume()
        self.woken()

    def woken(self) -> None:
        """Tell news at once if the client is in IDLE. Never raises."""
        if self.wake is None:
            return
        try:
            self.wake()
        except Exception:  # the caller has nothing to do with it
            log.failure("cannot tell news", session=self.id, peer=self.peer)
            self.bye("Internal error", b"SERVERBUG")

    def drain(self) -> None:
        """The server stops: end now, or after the command that runs."""
        if self.busy and self.wake is None:
            self.draining = True
        else:
            self.bye("The server is going down", b"UNAVAILABLE")

    # News

    def send_news(self, *, expunges: bool) -> bool:
        """Send the untagged responses that tell what happened to the mailbox.

        Returns whether it was so much that more waits for the next call.
        """
        if self.selected is None or self.closing:
            return False
        news = self.selected.news(expunges=expunges)
        if b"QRESYNC" in self.enabled:
            # RFC 7162 section 3.2.10: in place of EXPUNGE; it comes before EXISTS.
            gone = sorted(one.uid for one in news if isinstance(one, Expunge))
            news = [one for one in news if not isinstance(one, Expunge)]
            self.write(format.vanished(format.spans(gone)))
        if news:
            self.write(b"".join(map(self._response, news)))
        if news and isinstance(news[-1], Gone):
            self.bye("The mailbox was deleted or replaced", b"UNAVAILABLE")
        return len(news) >= MAX_FLAGS

    async def send_all_news(self, *, expunges: bool) -> None:
        """As `send_news`, to the end; wait while the client reads slowly."""
        while self.send_news(expunges=expunges):
            await self.drained()

    def _response(self, news: News) -> bytes:
        match news:
            case Exists(count):
                return b"* %d EXISTS\r\n" % count
            case Recent(count):
                return b"" if self.is_rev2 else b"* %d RECENT\r\n" % count
            case Expunge(seq):
                return b"* %d EXPUNGE\r\n" % seq
            case Flags(seq, uid, mask, mod_seq):
                names = self.flags_of_message(uid, mask)
                # The UID is more than STORE owes; UID STORE must tell it.
                flags = b"* %d FETCH (UID %d FLAGS %b" % (seq, uid, names)
                if self.tells_mod_seqs:
                    flags += b" MODSEQ (%d)" % mod_seq
                return flags + b")\r\n"
            case ModSeq(seq, uid, mod_seq):
                return b"* %d FETCH (UID %d MODSEQ (%d))\r\n" % (seq, uid, mod_seq)
            case Keywords():
                return self.flags_of_mailbox()
            case Gone():
                return b""

    # Mod-sequences (RFC 7162)

    @property
    def tells_mod_seqs(self) -> bool:
        """Whether the client is "CONDSTORE-aware" (section 3.1)."""
        return b"CONDSTORE" in self.enabled

    def enable_condstore(self) -> None:
        """Obey a "CONDSTORE enabling command"; raise `ProtocolViolation`."""
        if not self.offers(b"CONDSTORE"):
            raise ProtocolViolation("CONDSTORE is not available")
        if not self.tells_mod_seqs:
            self.enabled.add(b"CONDSTORE")
            if self.selected is not None:
                self.write(b"* OK [%b] Highest.\r\n" % self.highest_mod_seq())

    def highest_mod_seq(self) -> bytes:
        """Return the response code of the selected mailbox."""
        self._mod_seq = self.mailbox.highest_mod_seq
        return b"HIGHESTMODSEQ %d" % self._mod_seq

    def due_mod_seq(self) -> bytes:
        """Return `highest_mod_seq` if the client must hear it, else b"".

        At a tagged response a client takes the highest MODSEQ that it has seen,
        unless it is told another one (section 6). That would be too much while
        something is held back: what it was not told of it would never hear.
        """
        mailbox = self.selected
        if mailbox is None or self.closing or not self.tells_mod_seqs:
            return b""
        if mailbox.highest_mod_seq == self._mod_seq and not mailbox.has_news:
            return b""
        return self.highest_mod_seq()

    def flags_of_message(self, uid: int, mask: int) -> bytes:
        """Return the flags as FETCH shows them, in parentheses."""
        mailbox = self.mailbox
        names = mailbox.flag_octets(mask)
        # RFC 9051 appendix E: \Recent is no more.
        if mailbox.is_recent(uid) and not self.is_rev2:
            names += b" \\Recent" if names else b"\\Recent"
        return b"(%b)" % names

    def flags_of_mailbox(self) -> bytes:
        """Return FLAGS and PERMANENTFLAGS (RFC 3501 sections 7.2.6 and 7.1)."""
        known = [*_SYSTEM_FLAGS, *(k.encode() for k in self.mailbox.keywords if k)]
        permanent = [] if self.mailbox.read_only else [*known]
        if permanent and self.mailbox.takes_new_keywords:
            permanent.append(b"\\*")
        return b"* FLAGS %b\r\n* OK [PERMANENTFLAGS %b] Flags permitted.\r\n" % (
            format.parenthesised(known),
            format.parenthesised(permanent),
        )


_SYSTEM_FLAGS = (b"\\Answered", b"\\Flagged", b"\\Deleted", b"\\Seen", b"\\Draft")
