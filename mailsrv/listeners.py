"""The listening ports: bound with root's rights, opened to clients later.

What touches the data is made after root is dropped; until then, and again when
the server stops, a connection that comes in is closed at once.
"""

from collections.abc import Iterable, Mapping

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    ILoggingContext,
    IProtocol,
    IProtocolFactory,
)
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.checks import IMPLICIT_TLS
from mailsrv.settings import Listener
from mailsrv.tls.contexts import TlsContexts


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
            endpoint = serverFromString(reactor, listener.endpoint)
            bound = endpoint.listen(self._doors[listener.service])
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
