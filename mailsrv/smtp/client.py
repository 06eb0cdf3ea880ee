"""SMTP and LMTP to another server, on Twisted: the thin side of `ClientEngine`.

Deadlines, back-pressure and TLS. One connection; whoever has it sends one message
after the other.
"""

from collections import deque
from collections.abc import AsyncIterator
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.outlet import Outlet
from mailsrv.smtp.client_engine import (
    LOST,
    NO_TLS,
    TOO_SLOW,
    ClientEngine,
    Wait,
)
from mailsrv.smtp.outgoing import (
    Done,
    Ended,
    Outgoing,
    Ready,
    Send,
    SendContent,
    StartTls,
)
from mailsrv.smtp.reply import Reply
from mailsrv.tls.peer import PeerTls
from mailsrv.tls.peer_certificate import NotTrusted

HANDSHAKE_TIMEOUT_S = 60
LINGER_S = 5.0  # for the peer to close after QUIT
_WRITE_OCTETS = 32 * 1024  # of content that are worth a write of their own


class ConnectionEnded(Exception):
    """The connection never became, or is no more, one that sends."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.code, reply.text)
        self.reply = reply


class TlsFailed(ConnectionEnded):
    """It was ended for its TLS: no handshake, or a peer that is not trusted."""


@implementer(IPushProducer, IHandshakeListener)
class SmtpClient(Protocol):
    """One connection. Await `ready`, then `send` while `usable`, then `quit`."""

    # Any: what TCP, UNIX and TLS transports have in common is in no one interface.
    transport: Any

    def __init__(
        self,
        engine: ClientEngine,
        reactor: IReactorTime,
        *,
        host: str,
        tls: PeerTls,
        implicit_tls: bool = False,
    ) -> None:
        """`host` is the name that the certificate should have."""
        self.engine = engine
        self.tls = ""  # how the connection is protected, in words
        self.usable = False
        self.gone: Deferred[None] | None = None
        self._reactor = reactor
        self._host = host
        self._peer_tls = tls
        self._implicit_tls = implicit_tls
        self._told: deque[Ready | SendContent | Done | Ended] = deque()
        self._waiter: Deferred[None] | None = None  # for something told
        self._room: Deferred[None] | None = None  # the transport is full until then
        self._ips = ("", "")  # ours, and the peer's
        self._shaking_hands = False
        self._tls_failure: NotTrusted | None = None
        self._lost = False
        self._timer: IDelayedCall | None = None

    # What the owner does

    async def ready(self) -> None:
        """Wait until a message may be sent. Raises `ConnectionEnded`."""
        event = await self._next()
        if self.engine.lacks_tls:
            self._note(NotTrusted(NO_TLS.text, "starttls-not-supported"))
        if isinstance(event, Ended):
            kind = ConnectionEnded if self._tls_failure is None else TlsFailed
            raise kind(event.reply)
        self.usable = True

    async def send(self, outgoing: Outgoing, pieces: AsyncIterator[bytes]) -> Done:
        """Send a message, whose content has CRLF; afterwards look at `usable`.

        Raises `Lacking`, after which the connection is as before, and what `pieces`
        raises, after which it is closed and the peer has nothing.
        """
        self.engine.begin(outgoing)
        self.usable = False
        self._pump()
        event = await self._next()
        if isinstance(event, SendContent):
            await self._send_content(pieces)
            event = await self._next()
        assert isinstance(event, Done)  # noqa: S101  the engine's order of events
        self.usable = isinstance(await self._next(), Ready)
        return event

    def quit(self) -> None:
        """Say goodbye and close."""
        self.usable = False
        if not self._lost:
            self.engine.quit()
            self._pump()

    def abort(self) -> None:
        """Close at once."""
        self._give_up(LOST)

    # Twisted's side

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        ends = self.transport.getHost(), self.transport.getPeer()
        # A UNIX socket's have none. Later, a lost transport does not know.
        self._ips = getattr(ends[0], "host", ""), getattr(ends[1], "host", "")
        self.transport.registerProducer(self, True)
        self._outlet = Outlet(self.transport)
        if self._implicit_tls:
            self._start_tls()
        else:
            self._wait_s(self.engine.timeout_s)

    def dataReceived(self, data: bytes) -> None:
        if self.usable:  # nobody asked: a goodbye, or nothing that we understand
            self._give_up(LOST)
            return
        self.engine.receive(data)
        self._pump()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._lost = True
        self._cancel_timer()
        self.usable = False
        if self._shaking_hands:
            why = reason.value if reason is not None else None
            self._told_lost(self._no_handshake(_handshake_text(why)))
        else:
            self._told_lost(LOST)
        if self.gone is not None:
            self.gone.callback(None)

    def handshakeCompleted(self) -> None:
        self._shaking_hands = False
        connection = self.transport.getHandle()
        assert isinstance(connection, SSL.Connection)  # noqa: S101  it is TLS now
        try:
            judged = self._peer_tls.judge(connection)
        except NotTrusted as failure:
            self._tls_failure = failure
            self._note(failure)
            self._give_up(Reply(451, "4.7.5", f"TLS: {failure.text}"))
            return
        self.tls = judged.words
        self._note(judged.failure)
        if self._implicit_tls:
            self.engine.tls_active = True
            self._wait_s(self.engine.timeout_s)
        else:
            self.engine.tls_on()
            self._pump()

    def pauseProducing(self) -> None:
        """Wait: the peer does not take what was written."""
        if self._room is None:
            self._room = Deferred()

    def resumeProducing(self) -> None:
        """Go on."""
        self._outlet.drained()
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def stopProducing(self) -> None:
        """Nothing to do: connectionLost comes as well."""

    # Inside

    async def _next(self) -> Ready | SendContent | Done | Ended:
        while not self._told:
            self._waiter = Deferred()
            await self._waiter
        return self._told.popleft()

    def _pump(self, octets: bytes = b"") -> None:
        """Do what the engine wants; write all of it at once, after `octets`."""
        lines = [octets] if octets else []
        ended = False
        while not isinstance(event := self.engine.next_event(), Wait):
            match event:
                case Send(line):
                    lines.append(line)
                case StartTls():
                    self._start_tls()
                case Ended():
                    ended = True
                    self._told.append(event)
                case _:
                    self._told.append(event)
        if lines and not self._lost:
            self._outlet.write(b"".join(lines))
        if ended:
            self._close()
        elif not self._shaking_hands:
            self._wait_s(self.engine.timeout_s)
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and self._told:
            waiter.callback(None)
        else:
            self._waiter = waiter

    async def _send_content(self, pieces: AsyncIterator[bytes]) -> None:
        held = b""  # to be written with what comes next: its end, of a short message
        try:
            async for piece in pieces:
                if self._room is not None:
                    await self._room
                if self._lost or self._told:
                    return  # what became of it is told
                held += self.engine.content(piece)
                if len(held) >= _WRITE_OCTETS:
                    self._outlet.write(held)
                    held = b""
                self._wait_s(self.engine.timeout_s)
            if self._lost or self._told:
                return
            self.engine.content_end()
        except BaseException:
            self._give_up(LOST)  # without its end nobody takes it
            raise
        self._pump(held)

    def _start_tls(self) -> None:
        self._shaking_hands = True
        self._wait_s(HANDSHAKE_TIMEOUT_S)
        self.transport.startTLS(self._peer_tls.creator(self._host))
        self._outlet = Outlet(self.transport)

    def _told_lost(self, why: Reply) -> None:
        self.engine.lost(why)
        while not isinstance(event := self.engine.next_event(), Wait):
            if isinstance(event, Done | Ended):
                self._told.append(event)
        self.resumeProducing()
        self._wake()

    def _no_handshake(self, text: str) -> Reply:
        self._shaking_hands = False
        self._tls_failure = NotTrusted(text)
        self._note(self._tls_failure)
        return Reply(451, "4.7.5", text)

    def _note(self, failure: NotTrusted | None) -> None:
        sending_ip, receiving_ip = self._ips
        self._peer_tls.note(failure, sending_ip=sending_ip, receiving_ip=receiving_ip)

    def _give_up(self, why: Reply) -> None:
        self.usable = False
        if not self._lost:
            self._lost = True  # before others hear of it: nothing more is written
            self._told_lost(why)
            self.transport.abortConnection()

    def _close(self) -> None:
        if not self._lost:
            self._wait_s(LINGER_S)
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    # One timer at a time; 0: an idle connection, whose owner watches it.

    def _wait_s(self, timeout_s: float) -> None:
        if timeout_s == 0 or self._lost:
            self._cancel_timer()
        elif self._timer is not None:
            self._timer.reset(timeout_s)
        else:
            self._timer = self._reactor.callLater(timeout_s, self._timed_out)

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _timed_out(self) -> None:
        self._timer = None
        if self._shaking_hands:
            text = "TLS: the other server did not finish the handshake in time"
            self._give_up(self._no_handshake(text))
        else:
            self._give_up(TOO_SLOW)


def _handshake_text(why: BaseException | None) -> str:
    """Say why there was no handshake, in OpenSSL's words if it has some."""
    if isinstance(why, SSL.Error) and why.args and why.args[0]:
        errors = why.args[0]
        if isinstance(errors, list) and isinstance(errors[-1], tuple):
            return f"TLS: {errors[-1][-1]}"
    return "TLS: the other server broke the handshake off"
