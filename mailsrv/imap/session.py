"""One IMAP session: its state, what it reads and writes, and its news.

What the commands know of the connection. The server owns the transport's callbacks
and passes them on: `received`, `pause`, `resume`, `lost`.
"""

import ipaddress
from collections.abc import Callable
from enum import Flag, auto
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ISSLTransport
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsrv.accounts.authenticator import Authenticator
from mailsrv.accounts.directory import Account
from mailsrv.accounts.scram import ChannelBinding
from mailsrv.imap import format
from mailsrv.imap.deflate import Damaged, Deflater, Inflater
from mailsrv.imap.engine import (
    CONTINUE,
    NEED_DATA,
    Event,
    ImapEngine,
    Line,
    MessageData,
    MessageEnd,
    MessageLiteral,
    Overrun,
)
from mailsrv.imap.errors import ProtocolViolation, Refused
from mailsrv.imap.extensions import NEEDS
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
from mailsrv.mailboxes.store import MailStore
from mailsrv.outlet import Outlet
from mailsrv.settings import ImapSettings, TlsSettings
from mailsrv.tls.binding import channel_binding
from mailsrv.tls.contexts import TlsContexts

log = Logger()

# Octets of pipelined commands that wait; beyond, the socket is not read.
MAX_QUEUED = 128 * 1024
# With COMPRESS: octets that are inflated or deflated at once (some 2 ms), and those
# that are inflated in a turn of the reactor before others get it.
INFLATED_OCTETS = 64 * 1024
DEFLATED_OCTETS = 64 * 1024
INFLATED_IN_A_TURN = 1024 * 1024


class State(Flag):
    """RFC 3501 section 3."""

    NOT_AUTHENTICATED = auto()
    AUTHENTICATED = auto()
    SELECTED = auto()


class Disconnected(Exception):
    """The connection is gone: raised in whatever waits for the client."""


class Services(Protocol):
    """What a session uses of the server (the factory has it)."""

    settings: ImapSettings
    tls_settings: TlsSettings
    tls: TlsContexts | None
    authenticator: Authenticator
    mail_store: MailStore
    reactor: IReactorTime
    log_wire: bool


class Session:
    """The conversation with one client, from greeting to end."""

    __slots__ = (
        "_deflater",
        "_flushing",
        "_inflated",
        "_inflater",
        "_mod_seq",
        "_more",
        "_timer",
        "_writable",
        "account",
        "after_reply",
        "busy",
        "client",
        "closing",
        "commands",
        "draining",
        "enabled",
        "ended_by",
        "engine",
        "id",
        "mailboxes",
        "message",
        "octets_in",
        "octets_out",
        "outlet",
        "peer",
        "selected",
        "services",
        "settings",
        "since_s",
        "tag",
        "transport",
        "wake",
    )

    # Any: Twisted's transports have more than one interface declares.
    def __init__(
        self, *, transport: Any, services: Services, peer: str, session_id: str
    ) -> None:
        self.transport = transport
        self.outlet = Outlet(transport)
        self.services = services
        self.settings = services.settings
        self.peer = peer
        self.id = session_id
        self.engine = ImapEngine()
        self.account: Account | None = None
        self.mailboxes: AccountMailboxes | None = None
        self.selected: Selected | None = None
        self.message: MessageLiteral | None = None  # announced and not yet read
        self.after_reply: Callable[[], None] | None = None  # once, after tagged OK
        self.wake: Callable[[], None] | None = None  # set in IDLE
        self.enabled: set[bytes] = set()  # upper case, by ENABLE or otherwise
        self.client = ""  # what ID told
        self.busy = False  # a command runs
        self.tag = b""  # of the command that runs
        self.closing = False
        self.draining = False  # BYE as soon as no command runs
        self.ended_by = ""
        self.since_s = services.reactor.seconds()
        self.commands = 0
        self.octets_in = 0
        self.octets_out = 0
        self._mod_seq = 0  # the HIGHESTMODSEQ that the client was told last
        self._more: Deferred[None] | None = None  # waits for octets of the client
        self._writable: Deferred[None] | None = None  # while the client reads slowly
        self._inflater: Inflater | None = None  # these two: since COMPRESS
        self._deflater: Deflater | None = None
        self._inflated = 0  # octets since the session last waited for the client
        self._flushing: IDelayedCall | None = None
        self._timer = services.reactor.callLater(
            self.settings.login_timeout_s, self._timed_out
        )

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

    # Reading

    def received(self, data: bytes) -> None:
        """Take octets of the client."""
        self.octets_in += len(data)
        if self.closing:
            return
        if self._inflater is None:
            self.engine.receive(data)
            queued = self.engine.buffered_octets
        else:
            self._inflater.feed(data)
            queued = self._inflater.waiting_octets
        if self._more is not None:
            more, self._more = self._more, None
            more.callback(None)
        elif queued > MAX_QUEUED:
            self.transport.pauseProducing()

    async def event(self) -> Event:
        """Return what the client sends next; raise `Disconnected`."""
        while True:
            event = self.engine.next_event()
            if event is CONTINUE:
                self.write(b"+ OK\r\n")
            elif event is not NEED_DATA:
                return event
            elif octets := await self._inflate():
                self.engine.receive(octets)
            else:
                await self._wait_for_data()

    async def _inflate(self) -> bytes:
        """Return some of what came compressed, b"" if there is none."""
        if self._inflater is None or self.closing:
            return b""
        if self._inflated > INFLATED_IN_A_TURN:
            self._inflated = 0
            await deferLater(self.services.reactor, 0, lambda: None)
        try:
            octets = self._inflater.take(INFLATED_OCTETS)
        except Damaged:
            self.bye("The compressed data is damaged")
            return b""
        self._inflated += len(octets)
        return octets

    async def _wait_for_data(self) -> None:
        if self.closing:
            raise Disconnected
        if self.account is not None:  # before that one deadline holds for all
            self._timer.reset(self.settings.idle_timeout_s)
        self._inflated = 0
        self._more = Deferred()
        self.transport.resumeProducing()
        await self._more

    async def line(self) -> bytes:
        """Return the next line of the client, which is no command."""
        self.engine.read_line()
        return await self._expect(Line)

    async def message_data(self) -> bytes | MessageEnd:
        """Return the next octets of the announced message, or that it has ended.

        The first call lets the client send it (a synchronising literal). After the
        end `message` is the next one of the command, if there is one.
        """
        if self.message is not None:
            if self.services.log_wire:
                self.trace(f"C: a message of {self.message.size_octets} octets")
            if self.message.synchronising:
                self.write(b"+ OK\r\n")
            self.engine.read_message(self.message)
            self.message = None
        event = await self.event()
        match event:
            case MessageData(data):
                return data
            case MessageEnd():
                self.message = event.message
                return event
        raise self._overrun(event)

    async def _expect(self, kind: type[Line]) -> bytes:
        event = await self.event()
        if isinstance(event, kind):
            return event.data
        raise self._overrun(event)

    def _overrun(self, event: Event) -> Exception:
        if isinstance(event, Overrun):
            self.bye(event.text)
            return Disconnected()
        return ProtocolViolation("Expected a line")

    # Writing

    def write(self, data: bytes) -> None:
        """Write a small answer, without anything of a message's content."""
        if self.services.log_wire:
            self.trace("S: " + data.decode("ascii", "backslashreplace"))
        self._send(data)

    async def write_some(self, data: bytes) -> None:
        """Write a piece of a large answer; wait while the client reads slowly."""
        if self.services.log_wire:
            self.trace(f"S: {len(data)} octets of data")
        if self._deflater is None:
            self._send(data)
            if self._writable is not None:
                await self.drained()
            return
        for at in range(0, len(data), DEFLATED_OCTETS):
            if at:
                await deferLater(self.services.reactor, 0, lambda: None)
            await self.drained()
            end = at + DEFLATED_OCTETS
            self._send(data[at:end], more=end < len(data))

    def _send(self, data: bytes, *, more: bool = False) -> None:
        """Hand octets to the transport; `more` follows of the same answer."""
        self.octets_out += len(data)
        if self._deflater is None:
            self.outlet.write(data)
            return
        if octets := self._deflater.deflate(data):
            self.outlet.write(octets)
        # Whoever wrote: the client can read it all before the reactor waits again.
        if self._flushing is None and not more:
            self._flushing = self.services.reactor.callLater(0, self._flush)

    def _flush(self) -> None:
        """End a burst of compressed octets."""
        if self._flushing is not None and self._flushing.active():
            self._flushing.cancel()
        self._flushing = None
        if self._deflater is not None and (octets := self._deflater.flush()):
            self.outlet.write(octets)

    @property
    def compressed(self) -> bool:
        return self._deflater is not None

    def compress(self) -> None:
        """Begin COMPRESS=DEFLATE: what was received but not read is so already."""
        self._inflater, self._deflater = Inflater(), Deflater()
        self._inflater.feed(self.engine.take_buffered())

    def trace(self, text: str) -> None:
        """Log a line of the wire at level debug: no password, nothing of a message."""
        log.debug("{wire}", wire=text, session=self.id, peer=self.peer, user=self.user)

    async def drained(self) -> None:
        """Wait until the transport takes more; raise `Disconnected`."""
        while self._writable is not None:
            self._timer.reset(self.settings.idle_timeout_s)
            await self._writable
        if self.closing:
            raise Disconnected

    def pause(self) -> None:
        """The transport's buffer is full."""
        if self._writable is None:
            self._writable = Deferred()

    def resume(self) -> None:
        """The transport's buffer is empty."""
        self.outlet.drained()
        if self._writable is not None:
            writable, self._writable = self._writable, None
            writable.callback(None)
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

    def reply(self, tag: bytes, status: bytes, words: str, code: bytes = b"") -> None:
        """Write a status response; `code` without its brackets."""
        bracketed = b"[%b] " % code if code else b""
        line = b"%b %b%b\r\n" % (status, bracketed, format.text(words))
        if self.services.log_wire:
            # Before the log-in a "tag" can be a password that came too early.
            shown = tag if self.account is not None else b"-"
            self.trace("S: " + (shown + b" " + line).decode("ascii"))
        self._send(b"%b %b" % (tag, line))

    def drain(self) -> None:
        """The server stops: end now, or after the command that runs."""
        if self.busy and self.wake is None:
            self.draining = True
        else:
            self.bye("The server is going down", b"UNAVAILABLE")

    def bye(self, text: str, code: bytes = b"") -> None:
        """Say that the connection ends, and end it."""
        if not self.closing:
            self.reply(b"*", b"BYE", text, code)
            self.close(text)

    def close(self, reason: str) -> None:
        """End the connection once what was written is on its way."""
        if self.closing:
            return
        self.closing = True
        self.ended_by = reason
        self._flush()
        # With a producer Twisted's TLS would wait for its end, not close.
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        # A peer that neither reads nor closes is not waited for.
        self._timer.reset(LINGER_S)
        self._fail_waiting()

    def lost(self, reason: str) -> None:
        """The connection is gone."""
        self.closing = True
        self.ended_by = self.ended_by or reason
        if self._timer.active():
            self._timer.cancel()
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
        self._fail_waiting()

    @property
    def writable(self) -> bool:
        """Whether the client takes what is written."""
        return self._writable is None and not self.closing

    def _fail_waiting(self) -> None:
        """Whatever waits for the client raises `Disconnected`."""
        if self._more is not None:
            more, self._more = self._more, None
            more.errback(Disconnected())
        if self._writable is not None:
            writable, self._writable = self._writable, None
            writable.callback(None)

    def _timed_out(self) -> None:
        self._timer = self.services.reactor.callLater(LINGER_S, self._timed_out)
        if self.closing or self._writable is not None:
            self.ended_by = self.ended_by or "the client does not read"
            self.transport.abortConnection()
        elif self._more is not None:
            self.bye("Autologout; nothing heard for too long")

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
        permanent = [] if self.mailbox.read_only else [*known, b"\\*"]
        return b"* FLAGS %b\r\n* OK [PERMANENTFLAGS %b] Flags permitted.\r\n" % (
            format.parenthesised(known),
            format.parenthesised(permanent),
        )


LINGER_S = 10.0  # for the last octets to a client that is being closed
_SYSTEM_FLAGS = (b"\\Answered", b"\\Flagged", b"\\Deleted", b"\\Seen", b"\\Draft")
