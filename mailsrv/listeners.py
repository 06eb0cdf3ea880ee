"""The listening ports: bound with root's rights, opened to clients later.

What touches the data is made after root is dropped; until then, and again when
the server stops, a connection that comes in is closed at once.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    ILoggingContext,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.checks import IMPLICIT_TLS, PROXY_PREFIX
from mailsrv.proxy_protocol import Client, NotProxied, read_header
from mailsrv.settings import Listener
from mailsrv.tls.contexts import TlsContexts

BACKLOG = 1024  # connections that wait to be accepted; Twisted's 50 is one burst
PROXY_HEADER_S = 10.0  # a proxy sends its header at once

log = Logger()


@implementer(IProtocolFactory, ILoggingContext)
class Door:
    """Gives connections to `inside`, or refuses them while that is None."""

    def __init__(self, service: str) -> None:
        self._service = service
        self.inside: IProtocolFactory | None = None

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        return None if self.inside is None else self.inside.buildProtocol(addr)

    def logPrefix(self) -> str:
        return self._service

    def doStart(self) -> None:
        """The port is bound."""

    def doStop(self) -> None:
        """The port is closed."""


class TlsFactory(TLSMemoryBIOFactory):
    """TLS from the first octet, where the inner factory may refuse a connection."""

    def buildProtocol(  # type: ignore[override]  # None, as IProtocolFactory has it
        self, addr: IAddress | None
    ) -> TLSMemoryBIOProtocol | None:
        inside = self.wrappedFactory.buildProtocol(addr)
        return None if inside is None else self.protocol(self, inside)


class ProxyHeader(Protocol):
    """Reads the PROXY header, then gives its place to the client's protocol."""

    transport: Any  # a TCP or UNIX transport; no interface has its `protocol`

    def __init__(self, door: Door, clock: IReactorTime) -> None:
        self._door = door
        self._clock = clock
        self._received = b""
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._timer = self._clock.callLater(
            PROXY_HEADER_S, self.transport.abortConnection
        )

    def dataReceived(self, data: bytes) -> None:
        self._received += data
        try:
            client = read_header(self._received)
        except NotProxied:
            log.warn("no PROXY header", peer=str(self.transport.getPeer()))
            self.transport.abortConnection()
            return
        if client is None:
            return
        self._stop_timer()
        protocol = self._door.buildProtocol(self._address(client))
        if protocol is None:
            self.transport.abortConnection()
            return
        # As startTLS does it: what comes from now on is the client's.
        self.transport.protocol = protocol
        protocol.makeConnection(self.transport)
        if rest := self._received[client.header_octets :]:
            protocol.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop_timer()

    def _address(self, client: Client) -> IAddress:
        match client.address:
            case ipaddress.IPv4Address():
                return IPv4Address("TCP", str(client.address), client.port)
            case ipaddress.IPv6Address():
                return IPv6Address("TCP", str(client.address), client.port)
            case None:  # of the proxy itself, such as a health check
                address: IAddress = self.transport.getPeer()
                return address

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()


class ProxiedDoor(Factory):
    """A door behind a proxy."""

    noisy = False

    def __init__(self, door: Door, clock: IReactorTime) -> None:
        self._door = door
        self._clock = clock

    def logPrefix(self) -> str:
        return self._door.logPrefix()

    def buildProtocol(self, addr: IAddress | None) -> ProxyHeader:
        return ProxyHeader(self._door, self._clock)


class Listeners:
    """One door for each service, and the ports in front of them."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._listeners = tuple(listeners)
        self._ports: list[IListeningPort] = []
        self._doors = {
            listener.service: Door(listener.service) for listener in self._listeners
        }

    def bind(self, reactor: object) -> None:
        """Listen everywhere. Raises the first failure (`CannotListenError`)."""
        for listener in self._listeners:
            door: IProtocolFactory = self._doors[listener.service]
            text = listener.endpoint.removeprefix(PROXY_PREFIX)
            if text != listener.endpoint:
                door = ProxiedDoor(self._doors[listener.service], IReactorTime(reactor))
            if text.startswith(("tcp:", "tcp6:")) and ":backlog=" not in text:
                text += f":backlog={BACKLOG}"
            bound = serverFromString(reactor, text).listen(door)
            failures: list[Failure] = []
            bound.addCallbacks(self._ports.append, failures.append)
            if failures:
                failures[0].raiseException()

    def open(
        self, factories: Mapping[str, IProtocolFactory], tls: TlsContexts | None
    ) -> None:
        """Serve the connections that come from now on."""
        for service, door in self._doors.items():
            factory = factories[service]
            if service in IMPLICIT_TLS and tls is not None:
                factory = TlsFactory(tls, False, factory)
            door.inside = factory

    def close(self) -> "Deferred[list[tuple[bool, object]]]":
        """Accept no more; fires when the ports are closed."""
        for door in self._doors.values():
            door.inside = None
        ports, self._ports = self._ports, []
        closing: list[Deferred[object]] = [
            maybeDeferred(port.stopListening) for port in ports
        ]
        return DeferredList(closing, consumeErrors=True)

    def __str__(self) -> str:
        return ", ".join(
            f"{listener.service} on {listener.endpoint}" for listener in self._listeners
        )
