"""SMTP on Twisted: connections, deadlines, back-pressure, TLS.

The thin side of the protocol: octets go to the engine, its events to the session,
and all replies that one read brings are written at once.
"""

import secrets
import socket
import time
import types
from collections.abc import Callable, Coroutine, Generator
from ipaddress import ip_address
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.accounts.authenticator import Authenticator
from mailsrv.accounts.devices import Devices, HourlyLimit, devices_at
from mailsrv.accounts.directory import Directory
from mailsrv.connections import ConnectionLimits
from mailsrv.interfaces import IListenerService
from mailsrv.outlet import Outlet
from mailsrv.routing.router import Router
from mailsrv.settings import SmtpSettings, TlsSettings
from mailsrv.smtp.engine import TOO_MANY_ERRORS, Engine, Profile, Role, Wait
from mailsrv.smtp.events import Close, Content, Hello, StartTls
from mailsrv.smtp.policies import Policies, with_rules
from mailsrv.smtp.reply import Reply
from mailsrv.smtp.session import START_TLS, Session
from mailsrv.smtp.transaction import Client, MailQueue, MailStore, Site
from mailsrv.tls.binding import channel_binding
from mailsrv.tls.contexts import TlsContexts

log = Logger()

MAX_WAITING_OCTETS = 64 * 1024  # read ahead while a decision is made
STRETCH_OCTETS = 64 * 1024  # of content that `data_timeout_s` is for
COMMANDS_IN_A_TURN = 200  # pipelined ones answered before others get the reactor
LINGER_S = 20.0  # for the peer to take the last reply

_NO_PLUGINS = Policies()
_TOO_MANY_CONNECTIONS = Reply(421, "4.7.0", "Too many connections")
_TALKED_FIRST = Reply(554, "5.5.0", "You talked before the greeting")
_TIMEOUT = Reply(421, "4.4.2", "You took too long")
_SHUTTING_DOWN = Reply(421, "4.3.2", "The server is shutting down")
_NO_ACCOUNT = Reply(421, "4.7.0", "Your account has been disabled")
_BROKEN = Reply(421, "4.3.0", "Local error, try again later")


@implementer(IListenerService)
class SmtpFactory(Factory):
    """Makes the sessions of one role; `settings` and its like may be replaced."""

    noisy = False

    def __init__(
        self,
        role: Role,
        *,
        hostname: str,
        settings: SmtpSettings,
        tls_settings: TlsSettings,
        tls: TlsContexts | None,
        router: Router,
        authenticator: Authenticator,
        mail_store: MailStore,
        queue: MailQueue,
        connections: ConnectionLimits,
        reactor: IReactorTime,
        plugins: Policies = _NO_PLUGINS,
        now: Callable[[], float] = time.time,
        log_wire: bool = False,
    ) -> None:
        self.role = role
        self.hostname = hostname
        self.settings = settings
        self.tls_settings = tls_settings
        self.tls = tls
        self.router = router
        self.authenticator = authenticator
        self.mail_store = mail_store
        self.queue = queue
        self.connections = connections
        self.reactor = reactor
        self.plugins = plugins
        self.now = now
        self.log_wire = log_wire  # commands and replies, at level debug
        self.draining = False
        self._device_limit = HourlyLimit(reactor.seconds)
        self._sessions: set[SmtpServer] = set()
        self._drained: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> "SmtpServer":
        peer = _host(addr)
        client = Client(secrets.token_hex(4), peer, self.role)
        client.devices = self.devices(peer)
        return self.session(client)

    def session(self, client: Client) -> "SmtpServer":
        """Make the session of a client that is known already."""
        server = SmtpServer(self, client)
        server.factory = self
        return server

    def profile(self, peer: str, devices: Devices | None) -> Profile:
        """Return what a session with `peer` offers, by today's settings."""
        settings = self.settings
        loopback = not peer or ip_address(peer).is_loopback
        return Profile(
            hostname=self.hostname,
            role=self.role,
            starttls=self.tls is not None,
            clear_text_auth=loopback
            and self.tls_settings.clear_text_passwords_on_loopback,
            max_message_octets=settings.max_message_octets,
            max_recipients=settings.max_recipients,
            max_errors=settings.max_errors,
            normalise=settings.bare_newlines == "normalise",
            trusted=devices is not None,
        )

    def devices(self, peer: str) -> Devices | None:
        """Return what `peer` may do without AUTH, if it is such a device."""
        if self.role != "submission":
            return None
        return devices_at(peer, self.settings.trusted_networks)

    def site(self, devices: Devices | None) -> Site:
        """Return what a session's transactions work with, by today's settings."""
        return Site(
            self.role,
            self.hostname,
            self.settings,
            self.router,
            self.mail_store,
            self.queue,
            with_rules(
                self.plugins,
                self.role,
                self.router,
                self.mail_store,
                self.settings.over_quota,
                devices,
                self._device_limit,
            ),
            self.now,
        )

    def accounts_changed(self, directory: Directory) -> None:
        """End the log-ins of accounts that are gone or disabled."""
        for session in list(self._sessions):
            session.check_account(directory)

    def opened(self, session: "SmtpServer") -> None:
        """Count a session in."""
        self._sessions.add(session)

    def closed(self, session: "SmtpServer") -> None:
        """Count a session out."""
        self._sessions.discard(session)
        if not self._sessions:
            waiting, self._drained = self._drained, []
            for drained in waiting:
                drained.callback(None)

    async def drain(self) -> None:
        """End idle sessions, and each other one after its transaction."""
        self.draining = True
        for session in list(self._sessions):
            session.end_if_idle()
        if self._sessions:
            drained: Deferred[None] = Deferred()
            self._drained.append(drained)
            await drained


@implementer(IPushProducer)
class SmtpServer(Protocol):
    """One connection."""

    # Any: what TCP and TLS transports both have is in no one interface.
    transport: Any

    def __init__(self, factory: SmtpFactory, client: Client) -> None:
        self._factory = factory
        self._client = client
        site = factory.site(client.devices)
        self._session = Session(site, factory.authenticator, client, self._hello)
        profile = factory.profile(client.peer, client.devices)
        self._engine = Engine(profile, tls=False)
        self._counted = False  # by the limits of connections
        self._lost = False
        self._working = False  # events are being answered
        self._blocked = False  # the peer does not take its replies
        self._reading = True
        self._deadline_s = 0.0
        self._timer: IDelayedCall | None = None
        self._stretch = 0  # octets of content since the deadline was set

    # The connection

    def connectionMade(self) -> None:
        self._engine.tls = tls = ISSLTransport.providedBy(self.transport)
        if not self._factory.connections.acquire(self._client.peer):
            self._session.log_refusal("connection", _TOO_MANY_CONNECTIONS)
            if tls:  # no handshake for somebody who is sent away
                self.transport.abortConnection()
            else:
                self.transport.write(_TOO_MANY_CONNECTIONS.wire)
                self.transport.loseConnection()
            return
        self._counted = True
        self._factory.opened(self)
        self._outlet = Outlet(self.transport)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)  # replies are written in one piece
        self.transport.registerProducer(self, True)
        self._wait_s(self._factory.settings.command_timeout_s)
        self._outlet.write(self._greeting(tls))
        if self._engine.closing:
            self._end()

    def _greeting(self, tls: bool) -> bytes:
        if self._factory.draining:
            return self._engine.send(_SHUTTING_DOWN)
        handle = self._outlet.socket
        if handle is not None and _has_talked(handle):
            # Only machines that send mail to all the world do not listen first.
            if self._client.role == "submission":
                log.info("talked before the greeting", **self._session.who())
            else:
                self._session.log_refusal("connection", _TALKED_FIRST)
                self._engine.closing = True
                return _TALKED_FIRST.wire
        name = "LMTP" if self._client.role == "lmtp" else "ESMTP"
        return self._engine.send(
            Reply(220, "", f"{self._factory.hostname} {name} mailsrv")
        )

    def dataReceived(self, data: bytes) -> None:
        if self._engine.closing:  # TLS goes on reading for a while
            return
        self._engine.receive(data)
        if self._engine.in_content:
            self._stretch += len(data)
        if self._working or self._blocked:
            if self._engine.buffered > MAX_WAITING_OCTETS:
                self._read(False)
        else:
            self._work()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._counted:
            return
        self._factory.connections.release(self._client.peer)
        if not self._working:
            self._work()  # to take back what was begun

    def pauseProducing(self) -> None:
        """Stop reading: the peer does not take its replies."""
        self._blocked = True

    def resumeProducing(self) -> None:
        """Go on: the replies are on their way."""
        self._outlet.drained()
        self._blocked = False
        if not self._working:
            self._work()

    def stopProducing(self) -> None:
        """Nothing to do: connectionLost comes as well."""

    def _read(self, on: bool) -> None:
        if on is not self._reading and not self._lost:
            self._reading = on
            if on:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def end_if_idle(self) -> None:
        """Say goodbye unless a transaction runs."""
        if not self._working and self._session.idle and not self._lost:
            self._say_goodbye(_SHUTTING_DOWN)

    def check_account(self, directory: Directory) -> None:
        """Forget the log-in if its account is gone or disabled."""
        account = self._client.account
        if account is None:
            return
        if not directory.admits(account):
            self._client.account = None
            self._engine.authenticated = False
            if self._session.idle and not self._working and not self._lost:
                self._say_goodbye(_NO_ACCOUNT)

    def _say_goodbye(self, reply: Reply) -> None:
        if not self._engine.closing:
            self._engine.closing = True
            self._outlet.write(reply.wire)
            self._end()

    def _end(self) -> None:
        """Close when all is written."""
        self._wait_s(LINGER_S)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    # Deadlines: one timer, which looks when it fires whether it was put off.

    def _wait_s(self, timeout_s: float) -> None:
        self._stretch = 0
        self._deadline_s = self._factory.reactor.seconds() + timeout_s
        if self._timer is None:
            self._timer = self._factory.reactor.callLater(timeout_s, self._timed_out)
        elif self._timer.getTime() > self._deadline_s:
            self._timer.reset(timeout_s)

    def _timed_out(self) -> None:
        left_s = self._deadline_s - self._factory.reactor.seconds()
        if self._working:  # we are slow, not the peer
            left_s = max(left_s, 1.0)
        if left_s > 0:
            self._timer = self._factory.reactor.callLater(left_s, self._timed_out)
            return
        self._timer = None
        if self._engine.closing:
            self.transport.abortConnection()
            return
        self._session.log_refusal("connection", _TIMEOUT)
        self._say_goodbye(_TIMEOUT)

    # Answers

    def _work(self) -> None:
        answering = self._answer_all()
        try:
            waiting = answering.send(None)
        except StopIteration:
            return  # nothing had to wait: most reads end here
        except Exception:
            self._broke(Failure())
            return
        rest = Deferred.fromCoroutine(_resumed(answering, waiting))
        rest.addErrback(self._broke)

    def _broke(self, failure: Failure) -> None:
        log.failure("session broke", failure, **self._session.who())
        self._working = False
        if self._lost:
            self._factory.closed(self)
        else:
            self._say_goodbye(_BROKEN)

    def _hello(self, hello: Hello) -> Reply:
        self._client.name = hello.client_name
        self._client.extended = hello.extended
        self._client.tls = _tls_text(self.transport) if self._engine.tls else ""
        self._client.binding = channel_binding(self.transport)
        mechanisms = self._factory.authenticator.mechanisms(
            can_bind=self._client.binding is not None
        )
        return self._engine.hello_reply(hello, mechanisms)

    async def _answer_all(self) -> None:
        """Answer all events that there are; then write, or clean up."""
        self._working = True
        engine = self._engine
        begun_s = self._factory.reactor.seconds()
        replies: list[bytes] = []
        while not self._lost and not self._blocked:
            if len(replies) == COMMANDS_IN_A_TURN:
                self.transport.write(b"".join(replies))
                replies.clear()
                self._wait_s(self._factory.settings.command_timeout_s)
                await deferLater(self._factory.reactor, 0, lambda: None)
                continue
            event = engine.next_event()
            if isinstance(event, Wait):
                break
            if isinstance(event, Content):
                await self._session.content(event.octets)
                continue
            if isinstance(event, Close):
                log.info("closed: {reason}", reason=event.reason, **self._session.who())
                break
            reply = await self._session.decide(event)
            wire = engine.send(reply)
            replies.append(wire)
            if self._factory.log_wire:
                # The events' repr hides what is secret in AUTH.
                log.debug(
                    "{command} -> {reply}",
                    command=repr(event),
                    reply=wire.decode(),
                    **self._session.who(),
                )
            if wire != reply.wire:
                self._session.log_refusal("session", TOO_MANY_ERRORS)
            if isinstance(event, StartTls) and reply is START_TLS and not self._lost:
                # Nothing else waits: the engine saw to that.
                self._outlet.write(b"".join(replies))
                replies.clear()
                self.transport.startTLS(self._factory.tls)
                self._outlet = Outlet(self.transport)
                self._wait_s(self._factory.settings.command_timeout_s)
        self._working = False
        if self._lost:
            await self._session.give_up()
            self._factory.closed(self)
            return
        self._settle(b"".join(replies), self._factory.reactor.seconds() - begun_s)

    def _settle(self, wire: bytes, worked_s: float) -> None:
        """Write the replies, and set the deadline for what comes next."""
        settings = self._factory.settings
        if wire:
            self._outlet.write(wire)
        if self._engine.closing:
            self._end()
            return
        if self._engine.in_content:
            if wire or self._stretch >= STRETCH_OCTETS:
                self._wait_s(settings.data_timeout_s)
        elif wire:
            self._wait_s(settings.command_timeout_s)
        self._deadline_s += worked_s if not wire else 0.0
        self._read(True)
        if self._factory.draining and self._session.idle:
            self._say_goodbye(_SHUTTING_DOWN)


@types.coroutine
def _resumed(
    started: Coroutine[Any, Any, None], waiting: Any
) -> Generator[Any, Any, None]:
    """Let Twisted go on with a coroutine that has run up to its first wait.

    Any: the Deferreds that it waits for, and their results.
    """
    try:
        while True:
            try:
                result = yield waiting
            except GeneratorExit:
                started.close()
                raise
            except BaseException as error:  # all others go in there
                waiting = started.throw(error)
            else:
                waiting = started.send(result)
    except StopIteration:
        return


# The transports are typed by what they are at run time, hence object.


def _host(address: object) -> str:
    """Return the IP address of a peer; a UNIX socket's has none."""
    return address.host if isinstance(address, IPv4Address | IPv6Address) else ""


def _has_talked(handle: socket.socket) -> bool:
    """Look, without waiting or taking, whether octets have come already."""
    try:
        return bool(handle.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:  # nothing there
        return False


def _tls_text(transport: object) -> str:
    """Return version and cipher of the session, for Received."""
    get_handle = getattr(transport, "getHandle", None)
    handle = get_handle() if get_handle else None
    version = getattr(handle, "get_protocol_version_name", None)
    cipher = getattr(handle, "get_cipher_name", None)
    return f"{version()} {cipher()}" if version and cipher else "TLS"
