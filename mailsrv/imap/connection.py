"""One client's connection: octets in and out, compressed or not, and its time.

The server owns the transport's callbacks and passes them on: `received`, `pause`,
`resume`, `lost`. What is said and heard over it is the session's matter.
"""

from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsrv.accounts.authenticator import Authenticator
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
from mailsrv.imap.errors import ProtocolViolation
from mailsrv.mailboxes.store import MailStore
from mailsrv.outlet import Outlet
from mailsrv.settings import ImapSettings, TlsSettings
from mailsrv.tls.contexts import TlsContexts

log = Logger()

LINGER_S = 10.0  # for the last octets to a client that is being closed
# Octets of pipelined commands that wait; beyond, the socket is not read.
MAX_QUEUED = 128 * 1024
# With COMPRESS: octets that are inflated or deflated at once (some 2 ms), and those
# that are inflated in a turn of the reactor before others get it.
INFLATED_OCTETS = 64 * 1024
DEFLATED_OCTETS = 64 * 1024
INFLATED_IN_A_TURN = 1024 * 1024
# Octets of commands, messages apart, that may come out of what is queued: a hundred
# times as much. Deflated commands of real clients are a tenth of themselves.
MAX_INFLATED = 16 * 1024 * 1024


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


class Connection:
    """The way to one client and back."""

    __slots__ = (
        "_commands_inflated",
        "_deflater",
        "_flushing",
        "_inflated",
        "_inflater",
        "_more",
        "_timer",
        "_writable",
        "closing",
        "ended_by",
        "engine",
        "id",
        "message",
        "octets_in",
        "octets_out",
        "outlet",
        "peer",
        "services",
        "settings",
        "since_s",
        "transport",
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
        self.message: MessageLiteral | None = None  # announced and not yet read
        self.closing = False
        self.ended_by = ""
        self.since_s = services.reactor.seconds()
        self.octets_in = 0
        self.octets_out = 0
        self._more: Deferred[None] | None = None  # waits for octets of the client
        self._writable: Deferred[None] | None = None  # while the client reads slowly
        self._inflater: Inflater | None = None  # these two: since COMPRESS
        self._deflater: Deflater | None = None
        self._inflated = 0  # octets in this turn of the reactor
        self._commands_inflated = 0  # octets since the last wait for the client
        self._flushing: IDelayedCall | None = None
        self._timer = services.reactor.callLater(
            self.settings.login_timeout_s, self._timed_out
        )

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
        if not self.engine.reads_message:
            self._commands_inflated += len(octets)
        if self._commands_inflated > MAX_INFLATED:
            self.bye("Too much came out of the compressed data")
            return b""
        return octets

    async def _wait_for_data(self) -> None:
        if self.closing:
            raise Disconnected
        if self.engine.authenticated:  # before that one deadline holds for all
            self._timer.reset(self.settings.idle_timeout_s)
        self._inflated = self._commands_inflated = 0
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
            for line in data.removesuffix(b"\r\n").split(b"\r\n"):
                self.trace("S: " + line.decode("ascii", "backslashreplace"))
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
        log.debug("{wire}", wire=text, session=self.id, peer=self.peer)

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

    def reply(self, tag: bytes, status: bytes, words: str, code: bytes = b"") -> None:
        """Write a status response; `code` without its brackets."""
        bracketed = b"[%b] " % code if code else b""
        line = b"%b %b%b" % (status, bracketed, format.text(words))
        if self.services.log_wire:
            # Before the log-in a "tag" can be a password that came too early.
            shown = tag if self.engine.authenticated else b"-"
            self.trace("S: " + (shown + b" " + line).decode("ascii"))
        self._send(b"%b %b\r\n" % (tag, line))

    # The end

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
