"""The POP3 server on Twisted: connections, their limits, time and back-pressure.

What is said on a connection stands in `session`.
"""

import secrets
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.accounts.authenticator import Authenticator
from mailsrv.accounts.directory import Account, Directory
from mailsrv.accounts.scram import ChannelBinding
from mailsrv.connections import ConnectionLimits
from mailsrv.interfaces import IListenerService
from mailsrv.mailboxes.store import MailStore
from mailsrv.outlet import Outlet
from mailsrv.pop3.engine import MAX_BUFFERED, Event, Pop3Engine
from mailsrv.pop3.session import Disconnected, Session
from mailsrv.settings import Pop3Settings, TlsSettings
from mailsrv.tls.binding import channel_binding
from mailsrv.tls.contexts import TlsContexts

log = Logger()

CLOSE_S = 30.0  # for the last reply to go out


@implementer(IPushProducer)
class Pop3Protocol(Protocol):
    """One connection. Its session asks for events and writes replies."""

    def __init__(self, factory: "Pop3Factory", peer: str) -> None:
        self.engine = Pop3Engine()
        self.ended_by = "client"
        self.account: Account | None = None
        self._factory = factory
        self._peer = peer
        # Any: Twisted's transports have more than one interface declares.
        self._wire: Any = None
        self._more: Deferred[None] | None = None  # waits for octets of the client
        self._writable: Deferred[None] | None = None  # while the client reads slowly
        self._timer: IDelayedCall | None = None  # runs also while we work
        self._is_lost = self._is_closing = self._is_reading_paused = False

    # From Twisted

    def connectionMade(self) -> None:
        self._wire = self.transport
        self._outlet = Outlet(self._wire)
        if not self._factory.connections.acquire(self._peer):
            self.write(b"-ERR [SYS/TEMP] Too many connections, try again later\r\n")
            self._wire.loseConnection()
            return
        if ITCPTransport.providedBy(self._wire):
            self._wire.setTcpNoDelay(True)
            self._wire.setTcpKeepAlive(True)
        self._wire.registerProducer(self, True)
        self._factory.opened(self)
        session = Session(self, self._factory, self._peer, secrets.token_hex(4))
        serving = Deferred.fromCoroutine(session.serve())
        serving.addErrback(lambda failure: log.failure("POP3 session failed", failure))
        serving.addBoth(self._ended)

    def dataReceived(self, data: bytes) -> None:
        self.engine.receive(data)
        if self.engine.buffered_octets > MAX_BUFFERED and not self._is_reading_paused:
            self._is_reading_paused = True
            self._wire.pauseProducing()
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_lost = True
        self._stop_timer()
        self._wake()
        self.resumeProducing()

    def pauseProducing(self) -> None:
        if self._writable is None:
            self._writable = Deferred()

    def resumeProducing(self) -> None:
        self._outlet.drained()
        writable, self._writable = self._writable, None
        if writable is not None:
            writable.callback(None)

    def stopProducing(self) -> None:
        """Twisted's word for a connection that is lost; `connectionLost` follows."""

    # For the session

    @property
    def is_tls(self) -> bool:
        return bool(ISSLTransport.providedBy(self._wire))

    @property
    def binding(self) -> ChannelBinding | None:
        return channel_binding(self._wire)

    def write(self, octets: bytes) -> None:
        """Send; replies are few and small, all else waits for `written`."""
        if not self._is_lost:
            self._outlet.write(octets)

    async def written(self) -> None:
        """Wait until the client has read most of it. Raises `Disconnected`."""
        while self._writable is not None and not self._is_lost:
            waiting: Deferred[None] = Deferred()
            self._writable.chainDeferred(waiting)
            self._start_timer()
            await waiting
        if self._is_lost:
            raise Disconnected

    async def next_event(self) -> Event:
        """Wait for what the client sends. Raises `Disconnected`, also at the end."""
        if self._writable is not None or self._is_lost:
            await self.written()
        is_timed = False
        while not (self._is_lost or self._is_closing):
            event = self.engine.next_event()
            if event is not None:
                return event
            if self._is_reading_paused:
                self._is_reading_paused = False
                self._wire.resumeProducing()
            if not is_timed:  # octets without an end of line give no more time
                self._start_timer()
                is_timed = True
            self._more = Deferred()
            await self._more
        raise Disconnected

    def start_tls(self, tls: TlsContexts) -> None:
        """Go on in TLS; everything before it is forgotten (RFC 2595 section 4)."""
        self.engine = Pop3Engine()
        self._wire.unregisterProducer()
        self._wire.startTLS(tls)
        self._wire = self.transport
        self._outlet = Outlet(self._wire)
        self._wire.registerProducer(self, True)

    def end(self, ended_by: str) -> None:
        """Close when what was written is sent; `next_event` raises from now on."""
        self.ended_by = ended_by
        self._is_closing = True
        self._wake()

    # The way down

    def shut_down(self, ended_by: str, goodbye: bytes) -> None:
        """End the session, but not in the midst of a command."""
        if not self._is_closing:
            if self._more is not None:
                self.write(b"-ERR " + goodbye + b"\r\n")
            self.end(ended_by)

    def _ended(self, _: object) -> None:
        """The session is over: let the last reply out, but not for ever."""
        self._stop_timer()
        self._factory.closed(self)
        self._factory.connections.release(self._peer)
        if not self._is_lost:
            self._wire.unregisterProducer()
            self._wire.loseConnection()
            self._timer = self._factory.reactor.callLater(
                CLOSE_S, self._wire.abortConnection
            )

    def _start_timer(self) -> None:
        """The client has the same time for each command and each stretch to read."""
        timeout_s = self._factory.settings.idle_timeout_s
        if self._timer is None:
            reactor = self._factory.reactor
            self._timer = reactor.callLater(timeout_s, self._timed_out)
        else:
            self._timer.reset(timeout_s)

    def _timed_out(self) -> None:
        self._timer = None
        if self._more is None and self._writable is None:
            return  # it waits for us
        # RFC 1939 section 3: closed without a word, and nothing is deleted.
        self.end("timeout")
        if self._writable is not None:
            self._wire.abortConnection()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _wake(self) -> None:
        more, self._more = self._more, None
        if more is not None:
            more.callback(None)


@implementer(IListenerService)
class Pop3Factory(Factory):
    """Serves POP3, in clear or inside a TLS that stands already."""

    noisy = False

    def __init__(
        self,
        *,
        settings: Pop3Settings,
        tls_settings: TlsSettings,
        tls: TlsContexts | None,
        authenticator: Authenticator,
        mail_store: MailStore,
        connections: ConnectionLimits,
        reactor: IReactorTime,
    ) -> None:
        self.settings = settings
        self.tls_settings = tls_settings
        self.tls = tls
        self.authenticator = authenticator
        self.mail_store = mail_store
        self.connections = connections
        self.reactor = reactor
        self._open: set[Pop3Protocol] = set()
        self._drained: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Pop3Protocol:
        return Pop3Protocol(self, getattr(addr, "host", ""))

    async def drain(self) -> None:
        """End all sessions, each after the command that it runs."""
        for protocol in list(self._open):
            protocol.shut_down("shut down", b"[SYS/TEMP] The server shuts down")
        if self._open:
            self._drained = Deferred()
            await self._drained

    def accounts_changed(self, directory: Directory) -> None:
        """End the sessions of accounts and app passwords that are gone."""
        for protocol in list(self._open):
            if protocol.account and not directory.admits(protocol.account):
                protocol.shut_down("account closed", b"[AUTH] The account is closed")

    def opened(self, protocol: Pop3Protocol) -> None:
        """Count a session in."""
        self._open.add(protocol)

    def closed(self, protocol: Pop3Protocol) -> None:
        """Count a session out."""
        self._open.discard(protocol)
        if not self._open and self._drained is not None:
            drained, self._drained = self._drained, None
            drained.callback(None)
