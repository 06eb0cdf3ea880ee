"""The listening ports: bound with root's rights, opened to clients later.

What touches the data is made after root is dropped; until then, and again when
the server stops, a connection that comes in is closed at once. Where there are
connection policies, a session begins when they have accepted its peer.
"""

import ipaddress
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from mailsrv.doors.guest import Asked, PluginFailed, decide
from mailsrv.doors.values import Accept, Connection, Decision, Defer, Reject
from mailsrv.proxy_protocol import Client, NotProxied, read_header
from mailsrv.settings import Listener
from mailsrv.tls.contexts import TlsContexts

BACKLOG = 1024  # connections that wait to be accepted; Twisted's 50 is one burst
PROXY_HEADER_S = 10.0  # a proxy sends its header at once
MAX_ASKING = 1000  # of a service: later ones are counted by the protocols

log = Logger()


@implementer(IProtocolFactory, ILoggingContext)
class Door:
    """Gives connections to `inside`, or refuses them while that is None.

    With `policies` they are asked first.
    """

    def __init__(self, service: str) -> None:
        self.service = service
        self.inside: IProtocolFactory | None = None
        self.policies: Sequence[Asked] = ()
        self.asking = 0  # connections that wait for a policy

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        if self.inside is None or not self.policies:
            return self.enter(addr)
        if self.asking >= MAX_ASKING:
            log.warn("too many connections wait for a policy", peer=_host(addr))
            return None
        return Threshold(self, addr)

    def enter(self, addr: IAddress) -> IProtocol | None:
        """Begin a session."""
        if self.inside is None:
            return None
        try:
            return self.inside.buildProtocol(addr)
        except Exception:  # of a plugin's factory
            log.failure("{service} makes no session", service=self.service)
            return None

    def logPrefix(self) -> str:
        return self.service

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


class Threshold(Protocol):
    """Holds a connection until its policies have decided, then gives its place up."""

    transport: Any  # a TCP or UNIX transport; no interface has its `protocol`

    def __init__(self, door: Door, address: IAddress) -> None:
        self._door = door
        self._address = address
        self._held = b""
        self._lost = False

    def connectionMade(self) -> None:
        self._door.asking += 1
        self.transport.pauseProducing()
        Deferred.fromCoroutine(self._ask()).addErrback(self._broke)

    def dataReceived(self, data: bytes) -> None:
        self._held += data  # of one read: no more comes in a pause

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True

    async def _ask(self) -> None:
        connection = Connection(self._door.service, _host(self._address))
        decision: Decision
        try:
            decision = await decide(
                self._door.policies,
                lambda policy: policy.connection(connection),
                {"service": connection.service, "peer": connection.peer},
            )
        except PluginFailed:
            decision = _NO_DECISION
        finally:
            self._door.asking -= 1
        if not self._lost:
            self._decided(decision)

    def _decided(self, decision: Decision) -> None:
        if not isinstance(decision, Accept):
            # No octet in clear where TLS is expected.
            if farewell := _FAREWELLS.get(self._door.service):
                self.transport.write(farewell(decision))
            self.transport.loseConnection()
            return
        protocol = self._door.enter(self._address)
        if protocol is None:
            self.transport.abortConnection()
            return
        self.transport.protocol = protocol
        self.transport.resumeProducing()  # before: a session may pause it again
        protocol.makeConnection(self.transport)
        if self._held:
            protocol.dataReceived(self._held)

    def _broke(self, failure: Failure) -> None:
        log.failure("no session begins", failure, service=self._door.service)
        self.transport.abortConnection()


def _smtp_farewell(decision: Reject | Defer) -> bytes:
    # RFC 5321 section 3.1: 554 instead of the greeting. It asks for a session in
    # which all but QUIT is refused; the connection ends at once here.
    code = 554 if isinstance(decision, Reject) else 421
    return f"{code} {decision.enhanced_code} {decision.text}\r\n".encode()


def _pop3_farewell(decision: Reject | Defer) -> bytes:
    kind = "PERM" if isinstance(decision, Reject) else "TEMP"  # RFC 3206
    return f"-ERR [SYS/{kind}] {decision.text}\r\n".encode()


_FAREWELLS: Mapping[str, Callable[[Reject | Defer], bytes]] = {
    "smtp": _smtp_farewell,
    "submission": _smtp_farewell,
    "lmtp": _smtp_farewell,
    "imap": lambda decision: f"* BYE {decision.text}\r\n".encode(),
    "pop3": _pop3_farewell,
}
_NO_DECISION = Defer("Local error, please try again later", 451, "4.3.0")


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
    """A door behind a proxy: one of `proxies`, or anybody if there are none."""

    noisy = False

    def __init__(
        self, door: Door, clock: IReactorTime, proxies: Sequence[str] = ()
    ) -> None:
        self._door = door
        self._clock = clock
        self._proxies = [ipaddress.ip_network(text) for text in proxies]

    def logPrefix(self) -> str:
        return self._door.logPrefix()

    def buildProtocol(self, addr: IAddress | None) -> ProxyHeader | None:
        if self._proxies and not self._is_proxy(addr):
            log.warn("not one of the proxies", peer="" if addr is None else _host(addr))
            return None
        return ProxyHeader(self._door, self._clock)

    def _is_proxy(self, addr: IAddress | None) -> bool:
        if addr is None or not (host := _host(addr)):  # a UNIX socket
            return True
        address = ipaddress.ip_address(host)
        if isinstance(address, ipaddress.IPv6Address):
            address = address.ipv4_mapped or address
        return any(address in network for network in self._proxies)


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
                door = ProxiedDoor(
                    self._doors[listener.service],
                    IReactorTime(reactor),
                    listener.proxies,
                )
            if text.startswith(("tcp:", "tcp6:")) and ":backlog=" not in text:
                text += f":backlog={BACKLOG}"
            bound = serverFromString(reactor, text).listen(door)
            failures: list[Failure] = []
            bound.addCallbacks(self._ports.append, failures.append)
            if failures:
                failures[0].raiseException()

    def open(
        self,
        factories: Mapping[str, IProtocolFactory],
        tls: TlsContexts | None,
        policies: Sequence[Asked] = (),
    ) -> None:
        """Serve the connections that come from now on and `policies` accept."""
        for service, door in self._doors.items():
            door.policies = policies
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


def _host(address: IAddress) -> str:
    """Return the IP address of a peer; a UNIX socket's has none."""
    return address.host if isinstance(address, IPv4Address | IPv6Address) else ""
